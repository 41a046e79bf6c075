"""How long each lease has gone without renewal, by this process's own monotonic clock."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ktrdr.clock import Clock
from ktrdr.operations.model import Assignment, Operation, OperationStatus

__all__ = ["Leases"]

_Renewal = tuple[Assignment | None, datetime | None]
_WRITTEN_EVERY = 0.5  # of a lease: how often a renewal is written, if nothing else is


@dataclass(slots=True)
class _Mark:
    """A lease as the ledger holds it, when it was written, and when somebody vouched for it last."""

    renewal: _Renewal
    running: bool
    written_at: float
    vouched_at: float


class Leases:
    """Watches leases change.

    The end that the ledger holds is a wall time, and wall clocks are set, drift, and differ between machines. So it
    is taken only as a mark that changes with each renewal: a lease has ended when ``lease_s`` passed here since its
    mark was first seen. What this process has never seen gets a full period, and so does everything after
    :meth:`honour_all`.

    A thousand busy workers vouch for their work at every probe, and nearly always say nothing new. So a renewal is
    kept here and written at least twice in a lease, which is all that another process watching the ledger needs.

    Between the ledger's answer to "which are live?" and its arrival here operations end, and others begin: what was
    :meth:`seen` since a :meth:`look` began is newer than that answer.
    """

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock, self._lease_s = clock, lease_s
        self._seen: dict[str, _Mark] = {}
        self._news: set[str] | None = None  # seen since the look that is under way began

    def __len__(self) -> int:
        """How many leases are watched."""
        return len(self._seen)

    @contextlib.contextmanager
    def look(self) -> Iterator[None]:
        """Within this all live operations are read, and :meth:`ended` is told."""
        self._news = set()
        try:
            yield
        finally:
            self._news = None

    def seen(self, operation: Operation) -> None:
        """The ledger holds this of an operation now."""
        if self._news is not None:
            self._news.add(operation.operation_id)
        self._note(operation)

    def _note(self, operation: Operation) -> None:
        if operation.lease_expires_at is None:
            self._seen.pop(operation.operation_id, None)
            return
        renewal = (operation.assignment, operation.lease_expires_at)
        known = self._seen.get(operation.operation_id)
        running = operation.status is OperationStatus.RUNNING
        if known is None or known.renewal != renewal:
            now = self._clock.monotonic()
            self._seen[operation.operation_id] = _Mark(renewal, running, now, now)
        else:
            known.running = running

    def vouched(self, operation_id: str, assignment: Assignment) -> bool:
        """Whoever runs the operation says so again; False if that is to be written into the ledger, or is no news of
        the attempt that runs."""
        known = self._seen.get(operation_id)
        if known is None or not known.running or known.renewal[0] != assignment:
            return False
        now = self._clock.monotonic()
        if now - known.written_at >= _WRITTEN_EVERY * self._lease_s:
            return False
        known.vouched_at = now
        return True

    def honour_all(self) -> None:
        """Nobody could renew a lease for a while: each gets a full period from its next sight on."""
        self._seen.clear()

    def ended(self, live: Iterable[Operation]) -> list[Operation]:
        """Which of all live operations, as the ledger held them since the look began, nobody vouched for in a whole lease."""
        news = self._news or set()
        live = [operation for operation in live if operation.operation_id not in news]
        for operation in live:
            self._note(operation)
        names = {operation.operation_id for operation in live} | news
        self._seen = {name: mark for name, mark in self._seen.items() if name in names}
        now = self._clock.monotonic()
        watched = (operation for operation in live if operation.operation_id in self._seen)
        return [o for o in watched if now - self._seen[o.operation_id].vouched_at >= self._lease_s]
