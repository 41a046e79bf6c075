"""The ways an operation can move: each takes an operation and an event of its newest assignment to a Transition.

Pure functions without a look at the table; :mod:`ktrdr.operations.machine` decides which one applies when.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from ktrdr.operations.events import (
    Accepted,
    Assigned,
    CancelRequested,
    CancelWorker,
    Checkpointed,
    ChildDied,
    Command,
    DropCheckpoints,
    Event,
    Finished,
    LeaseExpired,
    NotMine,
    Progressed,
    Refused,
    Released,
    Reported,
    StopStray,
    Unreachable,
    Wake,
    WorkerLost,
)
from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.operations.progress import Progress
from ktrdr.operations.story import tell

__all__ = [
    "Moment",
    "Transition",
    "assign",
    "cancel",
    "cancel_again",
    "cancel_pending",
    "cancelled",
    "checkpointed",
    "child_died",
    "expire",
    "finish",
    "ignore",
    "late_end",
    "not_mine",
    "refuse",
    "release",
    "report",
    "run",
    "unreachable",
    "vouch_cancelling",
    "worker_lost",
]

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
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
class Moment:
    """What a move may know besides operation and event."""

    now: datetime
    max_failures: int


def ignore(
    operation: Operation, event: Event, now: datetime, commands: tuple[Command, ...] = ()
) -> Transition:
    text = f"ignored: {describe(event)} while {operation.status}"
    return Transition(replace(operation, story=tell(operation.story, now, text)), commands, "ignored")


def describe(event: Event) -> str:
    name = type(event).__name__
    if isinstance(event, Assigned):
        return f"{name} to {event.worker_id}"
    if isinstance(event, CancelRequested):
        return f"{name} ({event.reason})"
    return f"{name} from {event.assignment.worker_id}, attempt {event.assignment.attempt}"


def again(
    operation: Operation, moment: Moment, why: str, commands: tuple[Command, ...] = (), **changes: Any
) -> Transition:
    """Back to the queue. The assignment stays on record: if its worker reappears first, it is adopted.

    Where the worker itself told the end of the attempt, ``instance_id=None`` closes it: a probe that was answered
    before that end and comes after it must not adopt what nobody runs.
    """
    moved = replace(
        operation,
        status=PENDING,
        lease_expires_at=None,
        story=tell(operation.story, moment.now, f"{why}; pending again"),
        **changes,
    )
    return Transition(moved, (*commands, Wake(operation.operation_id)))


def end(
    operation: Operation,
    moment: Moment,
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


def assign(operation: Operation, event: Assigned, moment: Moment) -> Transition:
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


def run(operation: Operation, event: Accepted | Progressed, moment: Moment) -> Transition:
    """A worker vouches for the newest attempt: first sign of life, adoption, or one more renewal of the lease."""
    story = operation.story
    if operation.status is not RUNNING:
        verb = "adopted, running" if operation.status is PENDING else "running"
        story = tell(story, moment.now, f"attempt {operation.attempt}: {verb} on {operation.worker_id}")
    moved = replace(
        operation,
        status=RUNNING,
        started_at=operation.started_at or moment.now,
        lease_expires_at=event.lease_expires_at,
        not_before=None,
        progress=_forward(operation.progress, event),
        story=story,
    )
    return Transition(moved)


def vouch_cancelling(operation: Operation, event: Accepted | Progressed, moment: Moment) -> Transition:
    """Still alive although it was told to stop: perhaps it was not heard, so it is told again."""
    del moment
    assert operation.assignment is not None
    moved = replace(
        operation,
        lease_expires_at=event.lease_expires_at,
        progress=_forward(operation.progress, event),
    )
    return Transition(moved, (CancelWorker(operation.operation_id, operation.assignment),))


def report(operation: Operation, event: Reported, moment: Moment) -> Transition:
    """How far the attempt is, and nothing else."""
    del moment
    return Transition(replace(operation, progress=_forward(operation.progress, event)))


def refuse(operation: Operation, event: Refused, moment: Moment) -> Transition:
    why = f"attempt {operation.attempt}: refused by {operation.worker_id} ({event.reason})"
    return again(operation, moment, why, not_before=event.not_before)


def unreachable(operation: Operation, event: Unreachable, moment: Moment) -> Transition:
    text = (
        f"attempt {operation.attempt}: no answer from {operation.worker_id} ({event.reason}); outcome unknown"
    )
    return Transition(replace(operation, story=tell(operation.story, moment.now, text)))


def finish(operation: Operation, event: Finished, moment: Moment) -> Transition:
    outcome, progress = event.outcome, _forward(operation.progress, event)
    why = f"attempt {operation.attempt}: {operation.worker_id} delivered {outcome.status}"
    if outcome.status is COMPLETED:
        return end(
            operation,
            moment,
            COMPLETED,
            why,
            _drop(operation, operation.checkpoints),
            checkpoint_digest=None,
            older_checkpoint_digest=None,
            summary=dict(outcome.summary),
            artifacts=dict(outcome.artifacts),
            progress=_complete(progress, exact=event.progress is not None),
            started_at=operation.started_at or moment.now,
            error=None,
        )
    kept, drop = _newer(operation, event.checkpoint_digest)
    kept |= {"artifacts": dict(outcome.artifacts), "progress": progress}
    if outcome.status is CANCELLED:  # somebody cancelled it at the worker itself
        return end(operation, moment, CANCELLED, why, drop, **kept)
    error = (outcome.error or "The job failed and its worker gave no reason.")[:_ERROR_LENGTH]
    return end(operation, moment, FAILED, why, drop, error=error, **kept)


def release(operation: Operation, event: Released, moment: Moment) -> Transition:
    why = f"attempt {operation.attempt}: released by {operation.worker_id}"
    kept, drop = _newer(operation, event.checkpoint_digest)
    kept["progress"] = _forward(operation.progress, event)
    return again(operation, moment, why, drop, instance_id=None, **kept)


def late_finish(operation: Operation, event: Finished, moment: Moment) -> Transition:
    """The result of an attempt that was given up counts all the same. That it was cancelled does not: whoever is given
    up is told to stop."""
    if event.outcome.status is CANCELLED:
        return late_end(operation, event, moment)
    return finish(operation, event, moment)


def late_end(operation: Operation, event: Finished | Released | ChildDied, moment: Moment) -> Transition:
    """The attempt was given up before its worker could tell that it has ended. It can be adopted no more; a
    checkpoint still helps."""
    kept, drop = _newer(operation, event.checkpoint_digest)
    what = "end" if event.checkpoint_digest is None else "checkpoint"
    text = f"attempt {operation.attempt}: late {what} from {operation.worker_id}"
    kept |= {
        "progress": _forward(operation.progress, event),
        "story": tell(operation.story, moment.now, text),
    }
    return Transition(replace(operation, instance_id=None, **kept), drop)


def checkpointed(operation: Operation, event: Checkpointed, moment: Moment) -> Transition:
    """The status stays; the newest checkpoint is recorded, those that proved unusable are struck out."""
    left = [digest for digest in operation.checkpoints if digest not in event.refused]
    refused = tuple(digest for digest in operation.checkpoints if digest in event.refused)
    newest, older = (*left, None, None)[:2]
    trimmed = replace(operation, checkpoint_digest=newest, older_checkpoint_digest=older)
    kept, drop = _newer(trimmed, event.digest)
    story = operation.story
    for note in event.notes:
        story = tell(story, moment.now, f"attempt {operation.attempt}: {note}")
    if event.digest is not None and event.digest not in operation.checkpoints:
        story = tell(story, moment.now, f"attempt {operation.attempt}: checkpoint stored")
    return Transition(replace(trimmed, story=story, **kept), (*_drop(operation, refused), *drop))


def _newer(operation: Operation, digest: str | None) -> tuple[dict[str, Any], tuple[Command, ...]]:
    """What to change for a checkpoint that came; two are kept, the third is dropped."""
    if digest is None or digest in operation.checkpoints:
        return {}, ()
    gone = operation.older_checkpoint_digest
    changes = {"checkpoint_digest": digest, "older_checkpoint_digest": operation.checkpoint_digest}
    return changes, _drop(operation, () if gone is None else (gone,))


def _drop(operation: Operation, digests: tuple[str, ...]) -> tuple[Command, ...]:
    return (DropCheckpoints(operation.operation_id, digests),) if digests else ()


def expire(operation: Operation, event: LeaseExpired, moment: Moment) -> Transition:
    if operation.lease_expires_at != event.lease_expires_at:
        return ignore(operation, event, moment.now)  # renewed while the expiry was on its way
    if operation.status is CANCELLING:
        return cancelled(operation, event, moment)
    return _lose(operation, moment, "lease expired", may_still_run=True)


def worker_lost(operation: Operation, event: WorkerLost, moment: Moment) -> Transition:
    return _lose(operation, moment, f"worker lost ({event.reason})", may_still_run=True)


def not_mine(operation: Operation, event: NotMine, moment: Moment) -> Transition:
    del event
    return _lose(operation, moment, "the worker does not know it", may_still_run=False)


def _lose(operation: Operation, moment: Moment, reason: str, *, may_still_run: bool) -> Transition:
    """The attempt is given up and counts as a failure.

    An attempt that is adopted and lost again counts again: a worker that comes and goes must not hold an operation
    for ever.
    """
    failures = operation.failures + 1
    why = f"attempt {operation.attempt} on {operation.worker_id}: {reason}"
    if failures < moment.max_failures:
        return again(operation, moment, why, failures=failures)
    assert operation.assignment is not None
    stray = (StopStray(operation.operation_id, operation.assignment),) if may_still_run else ()
    error = f"Given up after {failures} losses; the last one: {reason} ({operation.worker_id})."
    return end(operation, moment, FAILED, why, stray, failures=failures, error=error[:_ERROR_LENGTH])


def child_died(operation: Operation, event: ChildDied, moment: Moment) -> Transition:
    failures, deaths = operation.failures + 1, operation.child_deaths + 1
    counts: dict[str, Any] = {"failures": failures, "child_deaths": deaths}
    counts["progress"] = _forward(operation.progress, event)
    kept, drop = _newer(operation, event.checkpoint_digest)
    counts |= kept
    why = f"attempt {operation.attempt} on {operation.worker_id}: the job's process died ({event.detail})"
    if not event.out_of_memory and deaths < _CHILD_DEATHS and failures < moment.max_failures:
        return again(operation, moment, why, drop, instance_id=None, **counts)
    cause = "ran out of memory" if event.out_of_memory else "died"
    error = f"The job's process {cause}: {event.detail}"[:_ERROR_LENGTH]
    return end(operation, moment, FAILED, why, drop, error=error, **counts)


def cancel_pending(operation: Operation, event: CancelRequested, moment: Moment) -> Transition:
    """Nobody should be running it; a worker that lost its lease might."""
    stray = (StopStray(operation.operation_id, operation.assignment),) if operation.assignment else ()
    return end(operation, moment, CANCELLED, event.reason, stray, cancel_requested_at=moment.now)


def cancel(operation: Operation, event: CancelRequested, moment: Moment) -> Transition:
    assert operation.assignment is not None
    moved = replace(
        operation,
        status=CANCELLING,
        cancel_requested_at=moment.now,
        story=tell(operation.story, moment.now, f"{event.reason}; cancelling"),
    )
    return Transition(moved, (CancelWorker(operation.operation_id, operation.assignment),))


def cancel_again(operation: Operation, event: CancelRequested, moment: Moment) -> Transition:
    assert operation.assignment is not None
    command = CancelWorker(operation.operation_id, operation.assignment)
    return ignore(operation, event, moment.now, (command,))


def cancelled(operation: Operation, event: Event, moment: Moment) -> Transition:
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
    changes: dict[str, Any] = {"artifacts": kept}
    drop: tuple[Command, ...] = ()
    if isinstance(event, Finished | Released | ChildDied):
        changes["progress"] = _forward(operation.progress, event)
        newer, drop = _newer(operation, event.checkpoint_digest)
        changes |= newer
    return end(operation, moment, CANCELLED, describe(event), (*stray, *drop), **changes)


def _forward(
    old: Progress | None, event: Accepted | Progressed | Reported | Finished | Released | ChildDied
) -> Progress | None:
    """Progress never goes back within an attempt: a message that was overtaken changes nothing."""
    new = None if isinstance(event, Accepted) else event.progress
    if new is None:
        return old
    if old is not None and (new.percentage, new.items_done) < (old.percentage, old.items_done):
        return old
    return new


def _complete(progress: Progress | None, *, exact: bool) -> Progress:
    """100 %. ``exact``: the count is the job's last, so a training that stopped early after 20 epochs did 20 of 20."""
    if progress is None:
        return Progress(1, 1, "completed")
    total = max(progress.items_total, progress.items_done, 1)
    if exact and progress.items_done > 0:
        total = progress.items_done
    return replace(progress, items_done=total, items_total=total)
