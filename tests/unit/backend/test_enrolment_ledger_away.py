"""Registering, draining and forgetting while the ledger fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest_asyncio

from ktrdr.errors import Unavailable
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import Operation, WorkerRecord
from support.control_plane import ControlPlane


class Fallible(MemoryStore):
    """Refuses what is named in ``broken``."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _try(self, name: str) -> None:
        if name in self.broken:
            raise Unavailable("The ledger is away.")

    async def save_worker(self, worker: WorkerRecord) -> None:
        self._try("save_worker")
        await super().save_worker(worker)

    async def delete_worker(self, worker_id: str) -> None:
        self._try("delete_worker")
        await super().delete_worker(worker_id)

    async def held(self, worker_id: str) -> Sequence[Operation]:
        self._try("held")
        return await super().held(worker_id)


@pytest_asyncio.fixture
async def fallible(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, store=Fallible()).running() as running:
        yield running


async def test_a_drain_that_could_not_be_recorded_did_not_happen(fallible: ControlPlane) -> None:
    assert isinstance(fallible.store, Fallible)
    await fallible.join("w1")
    for route, status in (("drain", "available"), ("undrain", "draining")):
        fallible.store.broken = {"save_worker"}
        assert (await fallible.ask("POST", f"/api/v1/workers/w1/{route}")).status == 503
        assert (await fallible.api("GET", "/workers/w1"))["status"] == status
        fallible.store.broken = set()
        await fallible.api("POST", f"/workers/w1/{route}")


async def test_a_worker_that_could_not_be_forgotten_is_still_known(fallible: ControlPlane) -> None:
    assert isinstance(fallible.store, Fallible)
    await fallible.join("w1")
    fallible.store.broken = {"delete_worker"}
    assert (await fallible.ask("DELETE", "/api/v1/workers/w1")).status == 503
    assert (await fallible.api("GET", "/workers"))["total"] == 1
    fallible.store.broken = set()
    await fallible.api("DELETE", "/workers/w1")
    assert (await fallible.api("GET", "/workers"))["total"] == 0


async def test_a_restart_that_was_recorded_half_is_completed_by_the_next_registration(
    fallible: ControlPlane,
) -> None:
    assert isinstance(fallible.store, Fallible)
    worker = await fallible.join("w1")
    name = await fallible.submit()
    await fallible.until(name, "running")
    worker.restart()
    fallible.store.broken = {"held"}
    assert (await fallible.ask("POST", "/api/v1/workers/register", worker.registration())).status == 503
    fallible.store.broken = set()
    await fallible.api("POST", "/workers/register", worker.registration())
    await fallible.until(name, "running")
    operation = await fallible.store.get(name)
    assert (operation.attempt, operation.failures) == (2, 1), "at once, not when the lease ends"
