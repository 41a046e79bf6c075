"""The operation's state machine: one pure function over one table; no clock, no I/O, no randomness.

The backend is a shell around :func:`step`: it turns what happens on the wire into events, lets the ledger apply
them one after the other, and carries out the commands that come back. ``TABLE`` holds every pair of status and
event; docs/explanation/operations.md shows it and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from ktrdr.artifacts import sha256_of
from ktrdr.errors import InvalidInput, InvalidTransition
from ktrdr.operations.events import (
    Accepted,
    Assigned,
    CancelRequested,
    CancelWorker,
    ChildDied,
    Command,
    Event,
    Finished,
    LeaseExpired,
    NotMine,
    Progressed,
    Refused,
    Released,
    StopStray,
    Unreachable,
    Wake,
    WorkerLost,
)
from ktrdr.operations.model import NewOperation, Operation, OperationStatus
from ktrdr.operations.progress import Progress
from ktrdr.operations.story import tell

__all__ = ["EVENTS", "TABLE", "Rule", "Transition", "new_operation", "step"]

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
EVENTS: tuple[type, ...] = get_args(Event)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")  # as ktrdr.protocol.messages.Identifier
_ERROR_LENGTH = 8_000
_CHILD_DEATHS = 2  # a killed child gets one retry


@dataclass(frozen=True, slots=True)
class Transition:
    """What one event did.

    ``operation`` is the operation afterwards. When ``outcome`` is ``ignored`` it differs from before in its story
    at most. ``commands`` are to be carried out once the operation is stored; all of them may be repeated or lost
    without harm. An ``Assigned`` that was ignored (the operation ended meanwhile) assigned nothing: look at
    ``outcome`` before telling the worker.
    """

    operation: Operation
    commands: tuple[Command, ...] = ()
    outcome: Literal["changed", "ignored"] = "changed"


@dataclass(frozen=True, slots=True)
class _Moment:
    now: datetime
    max_failures: int


Handler = Callable[[Operation, Any, _Moment], Transition]


@dataclass(frozen=True, slots=True)
class Rule:
    """One cell of the table: what an event of the newest assignment does in one status.

    ``kind`` is ``go`` (``handler`` leads to one of ``to``), ``ignore`` (recorded, nothing else) or ``refuse``
    (InvalidTransition).
    """

    kind: Literal["go", "ignore", "refuse"]
    to: tuple[OperationStatus, ...] = ()
    handler: Handler | None = None


def new_operation(new: NewOperation, now: datetime) -> Operation:
    """The ledger's first record of a submission: pending, attempt 0.

    Raises
    ------
    InvalidInput
        If the id is not 1 to 128 letters, digits, dots, underscores or hyphens beginning with a letter or digit.
    """
    if not _IDENTIFIER.match(new.operation_id):
        raise InvalidInput(
            f"'{new.operation_id[:140]}' cannot be an operation's id: up to 128 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit."
        )
    return Operation(
        operation_id=new.operation_id,
        operation_type=new.operation_type,
        status=PENDING,
        spec_digest=sha256_of(new.spec),
        created_at=now,
        priority=new.priority,
        requirements=dict(new.requirements),
        parent_operation_id=new.parent_operation_id,
        idempotency_key=new.idempotency_key,
        story=tell((), now, "submitted"),
    )


def step(operation: Operation, event: Event, now: datetime, *, max_failures: int = 3) -> Transition:
    """What ``event`` makes of ``operation``.

    ``attempt`` is the fence: an event that carries an assignment counts only if it equals the operation's newest
    one in worker, instance and attempt. Any other is stale: recorded, ignored, and answered with ``StopStray`` if
    the worker may still run it.

    Parameters
    ----------
    now
        Aware time of the event; it goes into the story and the operation's times, and decides whether a lease has
        really ended.
    max_failures
        The operation fails when this many attempts were lost.

    Raises
    ------
    InvalidTransition
        If the table refuses the pair: assigning an operation that is not pending. The operation is unchanged.
    """
    rule = TABLE[operation.status, type(event)]
    if operation.status.terminal or _is_stale(operation, event):
        return _ignore_stray(operation, event, now)
    if rule.kind == "refuse":
        raise InvalidTransition(
            operation.operation_id, operation.status, type(event).__name__, operation.story
        )
    if rule.handler is None:
        return _ignore(operation, event, now)
    return rule.handler(operation, event, _Moment(now, max_failures))


# --- fence and ignoring -------------------------------------------------------------------------------------------


def _is_stale(operation: Operation, event: Event) -> bool:
    return not isinstance(event, Assigned | CancelRequested) and event.assignment != operation.assignment


def _ignore_stray(operation: Operation, event: Event, now: datetime) -> Transition:
    """The event's attempt no longer counts, or the operation has ended."""
    commands: tuple[Command, ...] = ()
    if isinstance(event, Accepted | Progressed | Unreachable):
        commands = (StopStray(operation.operation_id, event.assignment),)
    return _ignore(operation, event, now, commands)


def _ignore(
    operation: Operation, event: Event, now: datetime, commands: tuple[Command, ...] = ()
) -> Transition:
    text = f"ignored: {_describe(event)} while {operation.status}"
    return Transition(replace(operation, story=tell(operation.story, now, text)), commands, "ignored")


def _describe(event: Event) -> str:
    name = type(event).__name__
    if isinstance(event, Assigned):
        return f"{name} to {event.worker_id}"
    if isinstance(event, CancelRequested):
        return f"{name} ({event.reason})"
    return f"{name} from {event.assignment.worker_id}, attempt {event.assignment.attempt}"


# --- the ways to move ---------------------------------------------------------------------------------------------


def _again(operation: Operation, moment: _Moment, why: str, **changes: Any) -> Transition:
    """Back to the queue. The assignment stays on record: if its worker reappears first, it is adopted."""
    moved = replace(
        operation,
        status=PENDING,
        lease_expires_at=None,
        story=tell(operation.story, moment.now, f"{why}; pending again"),
        **changes,
    )
    return Transition(moved, (Wake(operation.operation_id),))


def _end(
    operation: Operation,
    moment: _Moment,
    status: OperationStatus,
    why: str,
    commands: tuple[Command, ...] = (),
    **changes: Any,
) -> Transition:
    ended = replace(
        operation,
        status=status,
        completed_at=moment.now,
        lease_expires_at=None,
        not_before=None,
        story=tell(operation.story, moment.now, f"{why}; {status}"),
        **changes,
    )
    return Transition(ended, (*commands, Wake(operation.operation_id)))


def _assign(operation: Operation, event: Assigned, moment: _Moment) -> Transition:
    attempt = operation.attempt + 1
    moved = replace(
        operation,
        status=ASSIGNED,
        attempt=attempt,
        worker_id=event.worker_id,
        instance_id=event.instance_id,
        lease_expires_at=event.lease_expires_at,
        not_before=None,
        progress=None,
        story=tell(operation.story, moment.now, f"attempt {attempt}: assigned to {event.worker_id}"),
    )
    return Transition(moved)


def _run(operation: Operation, event: Accepted | Progressed, moment: _Moment) -> Transition:
    """A worker vouches for the newest attempt: first sign of life, adoption, or one more renewal of the lease."""
    story = operation.story
    if operation.status is not RUNNING:
        verb = "adopted, running" if operation.status is PENDING else "running"
        story = tell(story, moment.now, f"attempt {operation.attempt}: {verb} on {operation.worker_id}")
    moved = replace(
        operation,
        status=RUNNING,
        started_at=operation.started_at or moment.now,
        lease_expires_at=_later(operation.lease_expires_at, event.lease_expires_at),
        not_before=None,
        progress=_forward(operation.progress, event),
        story=story,
    )
    return Transition(moved)


def _vouch_cancelling(operation: Operation, event: Accepted | Progressed, moment: _Moment) -> Transition:
    """Still alive although it was told to stop: perhaps it was not heard, so it is told again."""
    del moment
    assert operation.assignment is not None
    moved = replace(
        operation,
        lease_expires_at=_later(operation.lease_expires_at, event.lease_expires_at),
        progress=_forward(operation.progress, event),
    )
    return Transition(moved, (CancelWorker(operation.operation_id, operation.assignment),))


def _refuse(operation: Operation, event: Refused, moment: _Moment) -> Transition:
    why = f"attempt {operation.attempt}: refused by {operation.worker_id} ({event.reason})"
    return _again(operation, moment, why, not_before=event.not_before)


def _unreachable(operation: Operation, event: Unreachable, moment: _Moment) -> Transition:
    text = (
        f"attempt {operation.attempt}: no answer from {operation.worker_id} ({event.reason}); outcome unknown"
    )
    return Transition(replace(operation, story=tell(operation.story, moment.now, text)))


def _finish(operation: Operation, event: Finished, moment: _Moment) -> Transition:
    outcome = event.outcome
    why = f"attempt {operation.attempt}: {operation.worker_id} delivered {outcome.status}"
    if outcome.status is COMPLETED:
        return _end(
            operation,
            moment,
            COMPLETED,
            why,
            summary=dict(outcome.summary),
            artifacts=dict(outcome.artifacts),
            progress=_complete(operation.progress),
            started_at=operation.started_at or moment.now,
            error=None,
        )
    if outcome.status is CANCELLED:  # somebody cancelled it at the worker itself
        return _end(operation, moment, CANCELLED, why, artifacts=dict(outcome.artifacts))
    error = (outcome.error or "The job failed and its worker gave no reason.")[:_ERROR_LENGTH]
    return _end(operation, moment, FAILED, why, artifacts=dict(outcome.artifacts), error=error)


def _release(operation: Operation, event: Released, moment: _Moment) -> Transition:
    why = f"attempt {operation.attempt}: released by {operation.worker_id}"
    checkpoint = event.checkpoint_digest or operation.checkpoint_digest
    return _again(operation, moment, why, checkpoint_digest=checkpoint)


def _late_checkpoint(operation: Operation, event: Released, moment: _Moment) -> Transition:
    """The attempt was given up before its worker could hand in the checkpoint; the checkpoint still helps."""
    if event.checkpoint_digest is None:
        return _ignore(operation, event, moment.now)
    text = f"attempt {operation.attempt}: late checkpoint from {operation.worker_id}"
    story = tell(operation.story, moment.now, text)
    return Transition(replace(operation, checkpoint_digest=event.checkpoint_digest, story=story))


def _expire(operation: Operation, event: LeaseExpired, moment: _Moment) -> Transition:
    if operation.lease_expires_at is not None and moment.now < operation.lease_expires_at:
        return _ignore(operation, event, moment.now)  # renewed while the expiry was on its way
    if operation.status is CANCELLING:
        return _cancelled(operation, event, moment)
    return _lose(operation, moment, "lease expired", may_still_run=True)


def _worker_lost(operation: Operation, event: WorkerLost, moment: _Moment) -> Transition:
    return _lose(operation, moment, f"worker lost ({event.reason})", may_still_run=True)


def _not_mine(operation: Operation, event: NotMine, moment: _Moment) -> Transition:
    del event
    return _lose(operation, moment, "the worker does not know it", may_still_run=False)


def _lose(operation: Operation, moment: _Moment, reason: str, *, may_still_run: bool) -> Transition:
    """The attempt is given up and counts as a failure."""
    failures = operation.failures + 1
    why = f"attempt {operation.attempt} on {operation.worker_id}: {reason}"
    if failures < moment.max_failures:
        return _again(operation, moment, why, failures=failures)
    assert operation.assignment is not None
    stray = (StopStray(operation.operation_id, operation.assignment),) if may_still_run else ()
    error = f"Given up after {failures} lost attempts; the last one: {reason} ({operation.worker_id})."
    return _end(operation, moment, FAILED, why, stray, failures=failures, error=error[:_ERROR_LENGTH])


def _child_died(operation: Operation, event: ChildDied, moment: _Moment) -> Transition:
    failures, deaths = operation.failures + 1, operation.child_deaths + 1
    why = f"attempt {operation.attempt} on {operation.worker_id}: the job's process died ({event.detail})"
    if not event.out_of_memory and deaths < _CHILD_DEATHS and failures < moment.max_failures:
        return _again(operation, moment, why, failures=failures, child_deaths=deaths)
    cause = "ran out of memory" if event.out_of_memory else "was killed"
    error = f"The job's process {cause}: {event.detail}"[:_ERROR_LENGTH]
    return _end(operation, moment, FAILED, why, failures=failures, child_deaths=deaths, error=error)


def _cancel_pending(operation: Operation, event: CancelRequested, moment: _Moment) -> Transition:
    """Nobody should be running it; a worker that lost its lease might."""
    stray = (StopStray(operation.operation_id, operation.assignment),) if operation.assignment else ()
    return _end(operation, moment, CANCELLED, event.reason, stray, cancel_requested_at=moment.now)


def _cancel(operation: Operation, event: CancelRequested, moment: _Moment) -> Transition:
    assert operation.assignment is not None
    moved = replace(
        operation,
        status=CANCELLING,
        cancel_requested_at=moment.now,
        story=tell(operation.story, moment.now, f"{event.reason}; cancelling"),
    )
    return Transition(moved, (CancelWorker(operation.operation_id, operation.assignment),))


def _cancel_again(operation: Operation, event: CancelRequested, moment: _Moment) -> Transition:
    assert operation.assignment is not None
    command = CancelWorker(operation.operation_id, operation.assignment)
    return _ignore(operation, event, moment.now, (command,))


def _cancelled(operation: Operation, event: Event, moment: _Moment) -> Transition:
    """Cancel was acknowledged, so the operation ends cancelled, whatever the worker delivers; its log is kept."""
    kept: dict[str, str] = {}
    if isinstance(event, Finished):
        kept = {
            name: event.outcome.artifacts[name]
            for name in ("log", "metrics")
            if name in event.outcome.artifacts
        }
    stray: tuple[Command, ...] = ()
    if isinstance(event, LeaseExpired | WorkerLost):
        stray = (StopStray(operation.operation_id, event.assignment),)
    return _end(operation, moment, CANCELLED, _describe(event), stray, artifacts=kept)


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _forward(old: Progress | None, event: Accepted | Progressed) -> Progress | None:
    """Progress never goes back within an attempt: a message that was overtaken changes nothing."""
    new = event.progress if isinstance(event, Progressed) else None
    if new is None:
        return old
    if old is not None and (new.percentage, new.items_done) < (old.percentage, old.items_done):
        return old
    return new


def _complete(progress: Progress | None) -> Progress:
    if progress is None:
        return Progress(1, 1, "completed")
    total = max(progress.items_total, progress.items_done, 1)
    return replace(progress, items_done=total, items_total=total)


# --- the table ----------------------------------------------------------------------------------------------------


def _go(handler: Handler, *to: OperationStatus) -> Rule:
    return Rule("go", to, handler)


_IGNORED = Rule("ignore")
_REFUSED = Rule("refuse")
_ENDS = (COMPLETED, FAILED, CANCELLED)
_LOST = (PENDING, FAILED)
_ALL_CANCELLED = _go(_cancelled, CANCELLED)
_HELD: Mapping[type, Rule] = {  # what assigned and running have in common
    Assigned: _REFUSED,
    Accepted: _go(_run, RUNNING),
    Progressed: _go(_run, RUNNING),
    Finished: _go(_finish, *_ENDS),
    Released: _go(_release, PENDING),
    LeaseExpired: _go(_expire, *_LOST),
    WorkerLost: _go(_worker_lost, *_LOST),
    NotMine: _go(_not_mine, *_LOST),
    ChildDied: _go(_child_died, *_LOST),
    CancelRequested: _go(_cancel, CANCELLING),
}
_ROWS: Mapping[OperationStatus, Mapping[type, Rule]] = {
    PENDING: {
        Assigned: _go(_assign, ASSIGNED),
        Accepted: _go(_run, RUNNING),
        Progressed: _go(_run, RUNNING),
        Refused: _IGNORED,
        Unreachable: _IGNORED,
        Finished: _go(_finish, *_ENDS),
        Released: _go(_late_checkpoint, PENDING),
        LeaseExpired: _IGNORED,
        WorkerLost: _IGNORED,
        NotMine: _IGNORED,
        ChildDied: _IGNORED,
        CancelRequested: _go(_cancel_pending, CANCELLED),
    },
    ASSIGNED: {**_HELD, Refused: _go(_refuse, PENDING), Unreachable: _go(_unreachable, ASSIGNED)},
    RUNNING: {**_HELD, Refused: _IGNORED, Unreachable: _IGNORED},
    CANCELLING: {
        Assigned: _REFUSED,
        Accepted: _go(_vouch_cancelling, CANCELLING),
        Progressed: _go(_vouch_cancelling, CANCELLING),
        Refused: _ALL_CANCELLED,
        Unreachable: _IGNORED,
        Finished: _ALL_CANCELLED,
        Released: _ALL_CANCELLED,
        LeaseExpired: _go(_expire, CANCELLED),
        WorkerLost: _ALL_CANCELLED,
        NotMine: _ALL_CANCELLED,
        ChildDied: _ALL_CANCELLED,
        CancelRequested: _go(_cancel_again, CANCELLING),
    },
    **{status: dict.fromkeys(EVENTS, _IGNORED) for status in _ENDS},
}
TABLE: Mapping[tuple[OperationStatus, type], Rule] = MappingProxyType(
    {(status, event): rule for status, row in _ROWS.items() for event, rule in row.items()}
)
"""Every status x event pair, for an event of the newest assignment; a stale event is ignored in every status."""
