"""How long each lease has gone without renewal, by this process's own monotonic clock."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from ktrdr.clock import Clock
from ktrdr.operations.model import Assignment, Operation

__all__ = ["Leases"]

_Renewal = tuple[Assignment | None, datetime | None]


class Leases:
    """Watches leases change.

    The end that the ledger holds is a wall time, and wall clocks are set, drift, and differ between machines. So it
    is taken only as a mark that changes with each renewal: a lease has ended when ``lease_s`` passed here since its
    mark was first seen. What this process has never seen gets a full period, and so does everything after
    :meth:`honour_all`.
    """

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._clock, self._lease_s = clock, lease_s
        self._seen: dict[str, tuple[_Renewal, float]] = {}

    def __len__(self) -> int:
        """How many leases are watched."""
        return len(self._seen)

    def seen(self, operation: Operation) -> None:
        """The ledger holds this of an operation now."""
        if operation.lease_expires_at is None:
            self._seen.pop(operation.operation_id, None)
            return
        renewal = (operation.assignment, operation.lease_expires_at)
        known = self._seen.get(operation.operation_id)
        if known is None or known[0] != renewal:
            self._seen[operation.operation_id] = (renewal, self._clock.monotonic())

    def honour_all(self) -> None:
        """Nobody could renew a lease for a while: each gets a full period from its next sight on."""
        self._seen.clear()

    def ended(self, live: Iterable[Operation]) -> list[Operation]:
        """Which of all live operations, as the ledger holds them now, nobody vouched for in a whole lease."""
        live = list(live)
        for operation in live:
            self.seen(operation)
        names = {operation.operation_id for operation in live}
        self._seen = {name: mark for name, mark in self._seen.items() if name in names}
        now = self._clock.monotonic()
        watched = (operation for operation in live if operation.operation_id in self._seen)
        return [o for o in watched if now - self._seen[o.operation_id][1] >= self._lease_s]
