"""What can happen to an operation, and what the machine asks the backend to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ktrdr.operations.model import Assignment, JobOutcome
from ktrdr.operations.progress import Progress

__all__ = [
    "Accepted",
    "Assigned",
    "CancelRequested",
    "CancelWorker",
    "Checkpointed",
    "ChildDied",
    "Command",
    "DropCheckpoints",
    "Event",
    "Finished",
    "LeaseExpired",
    "NotMine",
    "Progressed",
    "Refused",
    "Released",
    "Reported",
    "StopStray",
    "Unreachable",
    "Wake",
    "WorkerLost",
]


@dataclass(frozen=True, slots=True)
class Assigned:
    """The dispatcher reserved a worker; recorded before the worker is told."""

    worker_id: str
    instance_id: str
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Accepted:
    """The worker answered 202, or a probe of it names this attempt."""

    assignment: Assignment
    lease_expires_at: datetime


@dataclass(frozen=True, slots=True)
class Progressed:
    """A probe or registration names this attempt; renews the lease. ``progress`` may be None."""

    assignment: Assignment
    lease_expires_at: datetime
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """A client asked how far this attempt is, and its worker said so; recorded before the client is told.

    It says nothing of the lease, and changes nothing but the progress.
    """

    assignment: Assignment
    progress: Progress


@dataclass(frozen=True, slots=True)
class Refused:
    """503 busy, or the request never left: nothing runs there. Never counts as a failure."""

    assignment: Assignment
    reason: str
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The start request was written and no answer came: the outcome is unknown."""

    assignment: Assignment
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The worker delivered the end of this attempt; ``progress`` is the last that its job said, None if not told."""

    assignment: Assignment
    outcome: JobOutcome
    progress: Progress | None = None
    checkpoint_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The worker gave the attempt back (SIGTERM, drain), with a checkpoint if it had one."""

    assignment: Assignment
    checkpoint_digest: str | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """Nobody vouched for this attempt for a whole lease.

    ``lease_expires_at`` is that of the operation which was looked at: if it changed, the lease was renewed meanwhile.
    """

    assignment: Assignment
    lease_expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker came back as another incarnation, or was removed."""

    assignment: Assignment
    reason: str


@dataclass(frozen=True, slots=True)
class NotMine:
    """The worker is healthy and says that it does not run this attempt."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class ChildDied:
    """The job's process was killed. ``out_of_memory`` ends the operation; another signal is retried once."""

    assignment: Assignment
    detail: str
    out_of_memory: bool = False
    progress: Progress | None = None
    checkpoint_digest: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """News of the checkpoints of this attempt, whose file the backend has.

    ``digest`` is the newest, ``refused`` are those of earlier attempts that proved unusable, ``notes`` are lines for
    the story: from where the attempt went on, and what was wrong with the refused ones.
    """

    assignment: Assignment
    digest: str | None = None
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """A user asked for the operation to end."""

    reason: str = "cancelled by the user"


Event = (
    Assigned
    | Accepted
    | Progressed
    | Reported
    | Refused
    | Unreachable
    | Finished
    | Released
    | LeaseExpired
    | WorkerLost
    | NotMine
    | ChildDied
    | Checkpointed
    | CancelRequested
)


@dataclass(frozen=True, slots=True)
class CancelWorker:
    """Tell this worker to cancel the attempt."""

    operation_id: str
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class StopStray:
    """This worker runs or ran an attempt that no longer counts: tell it to stop."""

    operation_id: str
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Wake:
    """The operation is pending again or a slot is free: let the dispatcher look."""

    operation_id: str


@dataclass(frozen=True, slots=True)
class DropCheckpoints:
    """The operation needs these files no more; another operation may still do."""

    operation_id: str
    digests: tuple[str, ...]


Command = CancelWorker | DropCheckpoints | StopStray | Wake
