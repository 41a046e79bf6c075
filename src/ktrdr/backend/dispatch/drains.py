"""Draining and letting work again: what is asked counts at once, what the ledger took stays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.operations.store import OperationStore

__all__ = ["Drains"]


@dataclass(slots=True, eq=False)
class _Wish:
    draining: bool


@dataclass(slots=True)
class _Asked:
    """Of one worker: what the ledger holds, and the wishes that it has not taken yet, oldest first."""

    held: bool
    wishes: list[_Wish] = field(default_factory=list)


class Drains:
    """Carries out wishes about one worker in the order in which they came, whichever of them fail.

    Laws
    ----
    - A worker is as the newest wish under way has it; where none is, as the ledger holds it. So nothing is dispatched to
      a worker from the moment on that somebody asks to drain it, and a wish that fails leaves no trace.
    - What fails undoes nothing that others asked for, before or after it.
    """

    def __init__(self, store: OperationStore, registry: WorkerRegistry) -> None:
        self._store, self._registry = store, registry
        self._asked: dict[str, _Asked] = {}

    def held(self, worker_id: str) -> bool:
        """What the ledger holds, or would if it knew the worker."""
        asked, worker = self._asked.get(worker_id), self._registry.find(worker_id)
        if asked is not None:
            return asked.held
        return worker is not None and worker.record.draining

    async def set(self, worker_id: str, draining: bool) -> None:
        """Let a worker finish and take no more, or take work again; raises NotFound, and what the ledger raises."""
        before = self._registry.get(worker_id).record.draining
        asked = self._asked.setdefault(worker_id, _Asked(before))
        wish = _Wish(draining)
        asked.wishes.append(wish)
        self._registry.set_draining(worker_id, draining)
        try:
            async with self._registry.writing.of(worker_id):
                record = replace(self._registry.get(worker_id).record, draining=draining)
                await self._store.save_worker(record)
                asked.held = draining
        finally:
            asked.wishes.remove(wish)
            if not asked.wishes:
                del self._asked[worker_id]
            if self._registry.find(worker_id) is not None:
                newest = asked.wishes[-1].draining if asked.wishes else asked.held
                self._registry.set_draining(worker_id, newest)
