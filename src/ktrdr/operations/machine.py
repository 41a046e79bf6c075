"""The operation's state machine: one pure function over one table; no clock, no I/O, no randomness.

The backend is a shell around :func:`step`: it turns what happens on the wire into events, lets the ledger apply
them one after the other, and carries out the commands that come back. ``TABLE`` holds every pair of status and
event; docs/explanation/operations.md shows it and a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

from ktrdr.artifacts import sha256_of
from ktrdr.errors import InvalidInput, InvalidTransition
from ktrdr.operations import moves
from ktrdr.operations.events import (
    Accepted,
    Assigned,
    CancelRequested,
    Checkpointed,
    ChildDied,
    Command,
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
    WorkerLost,
)
from ktrdr.operations.model import NewOperation, Operation, OperationStatus
from ktrdr.operations.moves import Moment, Transition
from ktrdr.operations.story import tell

__all__ = ["EVENTS", "TABLE", "Rule", "Transition", "new_operation", "step"]

PENDING, ASSIGNED, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED = OperationStatus
EVENTS: tuple[type, ...] = get_args(Event)
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")  # as ktrdr.protocol.messages.Identifier


Handler = Callable[[Operation, Any, Moment], Transition]


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
    newest, older = (*new.checkpoints, None, None)[:2]
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
        request_digest=new.request_digest,
        checkpoint_digest=newest,
        older_checkpoint_digest=older,
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
        return moves.ignore(operation, event, now)
    return rule.handler(operation, event, Moment(now, max_failures))


def _is_stale(operation: Operation, event: Event) -> bool:
    return not isinstance(event, Assigned | CancelRequested) and event.assignment != operation.assignment


def _ignore_stray(operation: Operation, event: Event, now: datetime) -> Transition:
    """The event's attempt no longer counts, or the operation has ended."""
    commands: tuple[Command, ...] = ()
    if isinstance(event, Accepted | Progressed | Unreachable | Checkpointed):
        commands = (StopStray(operation.operation_id, event.assignment),)
    return moves.ignore(operation, event, now, commands)


# --- the table ----------------------------------------------------------------------------------------------------


def _go(handler: Handler, *to: OperationStatus) -> Rule:
    return Rule("go", to, handler)


_IGNORED = Rule("ignore")
_REFUSED = Rule("refuse")
_ENDS = (COMPLETED, FAILED, CANCELLED)
_LOST = (PENDING, FAILED)
_ALL_CANCELLED = _go(moves.cancelled, CANCELLED)
_HELD: Mapping[type, Rule] = {  # what assigned and running have in common
    Assigned: _REFUSED,
    Accepted: _go(moves.run, RUNNING),
    Progressed: _go(moves.run, RUNNING),
    Finished: _go(moves.finish, *_ENDS),
    Released: _go(moves.release, PENDING),
    LeaseExpired: _go(moves.expire, *_LOST),
    WorkerLost: _go(moves.worker_lost, *_LOST),
    NotMine: _go(moves.not_mine, *_LOST),
    ChildDied: _go(moves.child_died, *_LOST),
    CancelRequested: _go(moves.cancel, CANCELLING),
}
_ROWS: Mapping[OperationStatus, Mapping[type, Rule]] = {
    PENDING: {
        Assigned: _go(moves.assign, ASSIGNED),
        Accepted: _go(moves.run, RUNNING),
        Progressed: _go(moves.run, RUNNING),
        Reported: _IGNORED,
        Refused: _IGNORED,
        Unreachable: _IGNORED,
        Finished: _go(moves.late_finish, COMPLETED, FAILED, PENDING),
        Released: _go(moves.late_end, PENDING),
        LeaseExpired: _IGNORED,
        WorkerLost: _IGNORED,
        NotMine: _IGNORED,
        ChildDied: _go(moves.late_end, PENDING),
        Checkpointed: _go(moves.checkpointed, PENDING),
        CancelRequested: _go(moves.cancel_pending, CANCELLED),
    },
    ASSIGNED: {
        **_HELD,
        Reported: _IGNORED,
        Refused: _go(moves.refuse, PENDING),
        Unreachable: _go(moves.unreachable, ASSIGNED),
        Checkpointed: _go(moves.checkpointed, ASSIGNED),
    },
    RUNNING: {
        **_HELD,
        Reported: _go(moves.report, RUNNING),
        Refused: _IGNORED,
        Unreachable: _IGNORED,
        Checkpointed: _go(moves.checkpointed, RUNNING),
    },
    CANCELLING: {
        Assigned: _REFUSED,
        Accepted: _go(moves.vouch_cancelling, CANCELLING),
        Progressed: _go(moves.vouch_cancelling, CANCELLING),
        Reported: _IGNORED,
        Refused: _ALL_CANCELLED,
        Unreachable: _IGNORED,
        Finished: _ALL_CANCELLED,
        Released: _ALL_CANCELLED,
        LeaseExpired: _go(moves.expire, CANCELLED),
        WorkerLost: _ALL_CANCELLED,
        NotMine: _ALL_CANCELLED,
        ChildDied: _ALL_CANCELLED,
        Checkpointed: _go(moves.checkpointed, CANCELLING),
        CancelRequested: _go(moves.cancel_again, CANCELLING),
    },
    **{status: dict.fromkeys(EVENTS, _IGNORED) for status in _ENDS},
}
TABLE: Mapping[tuple[OperationStatus, type], Rule] = MappingProxyType(
    {(status, event): rule for status, row in _ROWS.items() for event, rule in row.items()}
)
"""Every status x event pair, for an event of the newest assignment; a stale event is ignored in every status."""
