"""The queue's switch: while a type of operation is paused nothing of it is dispatched; all else goes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from ktrdr.clock import Clock
from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.operations.store import OperationStore
from ktrdr.protocol.queueing import PausedType, QueueView

__all__ = ["Pauses"]


class Pauses:
    """Reads and sets what is paused; the ledger is the truth, ``known`` what it last said.

    Laws
    ----
    - Once a pause is acknowledged nothing of that type is dispatched until it is lifted, also after a restart.
    - What runs goes on, and what is submitted is accepted and waits.
    """

    def __init__(self, store: OperationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.known: Mapping[OperationType, datetime] = {}
        self._changes = 0  # an answer that was read before one of them is not believed

    async def read(self) -> Mapping[OperationType, datetime]:
        """The paused types, with the moment since when."""
        changes = self._changes
        found = await self._store.paused()
        if changes == self._changes:
            self.known = found
        return self.known

    async def pause(self, types: Collection[OperationType]) -> None:
        """Pause; what is paused already stays so."""
        before, now = self.known, self._clock.now()
        # at once, so that nothing is dispatched while the ledger writes
        self._know(dict.fromkeys(types, now) | dict(before))
        try:
            self._know(await self._store.set_paused(types, now))
        except BaseException:
            self._know(before)
            raise

    async def lift(self, types: Collection[OperationType]) -> None:
        """Dispatch again; what is not paused stays so."""
        self._know(await self._store.set_paused(types, None))

    def _know(self, paused: Mapping[OperationType, datetime]) -> None:
        self._changes += 1
        self.known = paused

    async def view(self) -> QueueView:
        """The queue as clients see it."""
        paused = await self.read()
        operations: dict[OperationType, dict[OperationStatus, int]] = {kind: {} for kind in OperationType}
        for (kind, status), count in (await self._store.counts()).items():
            operations[kind][status] = count
        return QueueView(
            paused=[PausedType(operation_type=kind, since=since) for kind, since in sorted(paused.items())],
            operations=operations,
        )
