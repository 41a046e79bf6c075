"""Every error ktrdr raises on purpose, in one tree.

::

    KtrdrError
    ├── InvalidInput            the request, document or file is wrong; carries ``errors``
    │   ├── InvalidStrategy     a strategy document, with line numbers
    │   ├── InvalidBars         market data that cannot be true, with rows
    │   ├── TooFewBars          not enough history for the warm-up or the split
    │   ├── InvalidModel        a bundle that is not one, or does not fit the strategy
    │   ├── UnusableCheckpoint  a checkpoint that is damaged, of another job or of another version
    │   ├── InvalidSetting      an environment variable, flag or option
    │   └── MissingExtra        an optional dependency is not installed
    ├── NotFound                carries ``kind``, ``name`` and the nearest valid names
    ├── NotAuthorised           the credential is missing or unknown
    │   └── Forbidden           the credential is known and does not allow this
    ├── Conflict                the thing exists but is in the wrong state for the request
    │   ├── AnotherIncarnation  the worker has restarted since; this was meant for the process before
    │   └── InvalidTransition   an operation event that its status does not admit
    ├── Unavailable             try again later
    │   ├── NotLeader           another backend of this ledger dispatches and hears workers
    │   ├── Overloaded          more is asked for than can be done in a moment
    │   ├── NoWorkers           nobody of the needed type can take work
    │   ├── WorkerBusy          this worker holds another operation
    │   └── ServerUnreachable   nothing answers at the URL
    │       └── NoAnswer        the request was sent, its outcome is unknown
    ├── CorruptArtifact         stored bytes do not match their digest
    ├── OperationFailed         the operation ended ``failed``
    └── Cancelled               the operation ended ``cancelled``

The message of an error names the offending value, what is accepted and what to do next. HTTP statuses and
exit codes are not known here: each has one table, in ``ktrdr.backend.problems`` and ``ktrdr.cli.exits``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = [
    "AnotherIncarnation",
    "Cancelled",
    "Conflict",
    "CorruptArtifact",
    "FieldError",
    "Forbidden",
    "InvalidBars",
    "InvalidInput",
    "InvalidModel",
    "InvalidSetting",
    "InvalidStrategy",
    "InvalidTransition",
    "KtrdrError",
    "MissingExtra",
    "NoAnswer",
    "NoWorkers",
    "NotAuthorised",
    "NotFound",
    "NotLeader",
    "OperationFailed",
    "Overloaded",
    "ServerUnreachable",
    "TooFewBars",
    "Unavailable",
    "UnusableCheckpoint",
    "WorkerBusy",
    "nearest",
]


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a misspelt name: ``"; did you mean 'x'?"`` or the empty string."""
    found = get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault inside a larger input.

    ``pointer`` is a JSON pointer (``/indicators/rsi_14/period``) or, for files, ``row 17, column high``.
    ``line`` and ``column`` count from 1 and are None where the input has no lines.
    """

    pointer: str
    message: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}, column {self.column}: " if self.line is not None else ""
        return f"{where}{self.pointer}: {self.message}" if self.pointer else f"{where}{self.message}"


class KtrdrError(Exception):
    """Root of the tree. ``slug`` names the kind on the wire and never changes."""

    slug = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidInput(KtrdrError):
    """The input is wrong and nothing was recorded; ``errors`` lists every fault found, not just the first."""

    slug = "invalid-input"

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  {error}" for error in self.errors)])


class InvalidStrategy(InvalidInput):
    """The strategy document has faults; ``errors`` carry path, line and column."""

    slug = "invalid-strategy"


class InvalidBars(InvalidInput):
    """The market data breaks a rule of :class:`ktrdr.bars.Bars` or of the importer."""

    slug = "invalid-bars"


class TooFewBars(InvalidInput):
    """There are fewer bars than the warm-up or the split needs; the message gives both numbers."""

    slug = "too-few-bars"


class InvalidModel(InvalidInput):
    """The model bundle cannot be used, or not with this strategy."""

    slug = "invalid-model"


class UnusableCheckpoint(InvalidInput):
    """A checkpoint from which this job cannot go on; an older one or the start can serve instead."""

    slug = "unusable-checkpoint"


class InvalidSetting(InvalidInput):
    """A setting has a value that cannot be used."""

    slug = "invalid-setting"


class MissingExtra(InvalidInput):
    """An optional dependency is needed and not installed."""

    slug = "missing-extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency. Install it: pip install 'ktrdr[{extra}]'")
        self.extra = extra


class NotFound(KtrdrError):
    """Nothing of this ``kind`` is called ``name``."""

    slug = "not-found"

    def __init__(self, kind: str, name: str, *, valid: Iterable[str] = (), hint: str = "") -> None:
        self.kind, self.name = kind, name
        message = f"No {kind} named '{name}'{nearest(name, valid) or '.'}"
        end = "" if hint.endswith((".", "?")) or not hint else "."
        super().__init__(f"{message} {hint}".rstrip() + end)


class NotAuthorised(KtrdrError):
    """The credential is missing, unknown or no longer valid."""

    slug = "not-authorised"


class Forbidden(NotAuthorised):
    """Who asks is known, and may not do this."""

    slug = "forbidden"


class Conflict(KtrdrError):
    """The thing exists, but its present state does not allow the request."""

    slug = "conflict"


class AnotherIncarnation(Conflict):
    """The worker has restarted: what was asked of the process before is not for this one."""

    slug = "another-incarnation"

    def __init__(self, meant: str, own: str) -> None:
        super().__init__(
            f"This is {own}; the start was meant for {meant}, which is gone. Wait for the registration."
        )


class InvalidTransition(Conflict):
    """An event reached an operation in a status that does not admit it; carries the operation's story."""

    slug = "invalid-transition"

    def __init__(self, operation_id: str, status: str, event: str, story: Sequence[str]) -> None:
        told = "".join(f"\n  {line}" for line in story)
        super().__init__(
            f"Operation {operation_id} is {status}; '{event}' is not possible there. Its story:{told}"
        )
        self.operation_id, self.status, self.event, self.story = operation_id, status, event, tuple(story)


class Unavailable(KtrdrError):
    """It cannot be done now; it may be possible later. ``retry_after_s`` says when to try."""

    slug = "unavailable"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotLeader(Unavailable):
    """Only the leader of several backends does this; the next address may be the leader's."""

    slug = "not-leader"


class Overloaded(Unavailable):
    """More is asked for than can be done in a moment; nothing of the request was recorded."""

    slug = "overloaded"


class NoWorkers(Unavailable):
    """No worker of the needed type is registered, or none of them is usable."""

    slug = "no-workers"


class WorkerBusy(Unavailable):
    """The worker runs another operation; it does one at a time."""

    slug = "worker-busy"


class ServerUnreachable(Unavailable):
    """Nothing answers at the URL; the request did not leave."""

    slug = "server-unreachable"


class NoAnswer(ServerUnreachable):
    """The request was (or may have been) sent and no answer came: its outcome is unknown."""

    slug = "no-answer"


class CorruptArtifact(KtrdrError):
    """Stored bytes do not match their digest; they are never used."""

    slug = "corrupt-artifact"


class OperationFailed(KtrdrError):
    """The operation reached ``failed``; the message is the operation's error."""

    slug = "operation-failed"


class Cancelled(KtrdrError):
    """The operation reached ``cancelled``."""

    slug = "cancelled"
