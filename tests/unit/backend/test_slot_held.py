"""A worker that runs something is not free, not even while the ledger writes down that it does."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

from ktrdr.operations.events import Event, LeaseExpired, Progressed
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from support.control_plane import ControlPlane, calm, settle


class SlowAdoption(MemoryStore):
    """Takes its time to write that somebody vouches for an attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def apply(self, operation_id: str, event: Event, now: datetime, **saved: Any) -> Transition:
        if isinstance(event, Progressed):
            await self.gate.wait()
        return await super().apply(operation_id, event, now, **saved)


async def _found(plane: ControlPlane) -> bool:
    return plane.backend.registry.find("w1") is not None


async def test_a_busy_worker_that_registers_is_not_chosen_while_its_work_is_adopted(tmp_path: Path) -> None:
    store = SlowAdoption()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        running = await store.get(name)
        assert running.assignment is not None
        expired = LeaseExpired(running.assignment, running.lease_expires_at)
        await plane.backend.operations.apply(name, expired)
        plane.backend.registry.remove("w1")
        store.gate.clear()
        registering = asyncio.ensure_future(plane.api("POST", "/workers/register", worker.registration()))
        await settle(lambda: _found(plane), lambda found: found)
        other = await plane.submit()
        await calm()
        assert (await store.get(other)).worker_id is None
        store.gate.set()
        await registering
        assert (await store.get(name)).status == "running"
        assert len(worker.starts) == 1


async def test_who_vouches_for_what_runs_is_held_for_it(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    plane.backend.registry.release("w1", name, 1)  # it was held for something else for a while, say
    await plane.probe()
    found = plane.backend.registry.get(worker.worker_id)
    assert (found.reserved_for, found.accepted) == ((name, 1), True)
