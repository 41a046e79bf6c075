"""Removing a worker, which takes the ledger a moment in which much may happen."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ktrdr.operations.memory.ledger import MemoryStore
from support.control_plane import STILL, ControlPlane, calm


class SlowToForget(MemoryStore):
    """Takes its time to delete a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def delete_worker(self, worker_id: str) -> None:
        await self.gate.wait()
        await super().delete_worker(worker_id)


async def test_a_worker_that_is_given_work_while_it_is_removed_stays(tmp_path: Path) -> None:
    """Else its next registration would be that of a free worker, and it would be given a second attempt."""
    store = SlowToForget()
    async with ControlPlane(tmp_path, STILL, store).running() as plane:
        await plane.join("w1")
        removing = asyncio.create_task(plane.ask("DELETE", "/api/v1/workers/w1"))
        await calm()
        name = await plane.submit()
        await plane.until(name, "running")
        store.gate.set()
        assert (await removing).status == 204
        assert (await plane.ask("GET", "/api/v1/workers/w1")).status == 200
        assert [worker.worker_id for worker in await store.workers()] == ["w1"]
        assert await plane.status(name) == "running"


async def test_a_free_worker_is_removed(tmp_path: Path) -> None:
    store = SlowToForget()
    store.gate.set()
    async with ControlPlane(tmp_path, STILL, store).running() as plane:
        await plane.join("w1")
        assert (await plane.ask("DELETE", "/api/v1/workers/w1")).status == 204
        assert (await plane.ask("GET", "/api/v1/workers/w1")).status == 404
        assert await store.workers() == ()
