"""Draining and letting work again, several at once, with a ledger that takes some of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path

import pytest_asyncio

from ktrdr.backend.dispatch.drains import Drains
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.errors import Unavailable
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import WorkerRecord
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.operations import a_worker
from support.control_plane import STILL, ControlPlane, calm


class Fickle(MemoryStore):
    """Takes or refuses the writing of a worker's record, each as ``answers`` says next; by default it takes them."""

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers: Iterator[bool] = iter(answers)
        self.gate = asyncio.Event()
        self.gate.set()

    async def save_worker(self, worker: WorkerRecord) -> None:
        await self.gate.wait()
        if not next(self.answers, True):
            raise Unavailable("The ledger is away.")
        await super().save_worker(worker)


async def _all_at_once(before: bool, wishes: tuple[tuple[bool, bool], ...]) -> None:
    """Each wish: whether to drain, and whether the ledger takes it."""
    store, registry = Fickle(), WorkerRegistry(FakeClock(), STILL, "0")
    record = a_worker(draining=before)
    await store.save_worker(record)
    registry.put(record)
    store.answers = iter([taken for _, taken in wishes])
    drains = Drains(store, registry)
    store.gate.clear()
    under_way = []
    for draining, _ in wishes:
        under_way.append(asyncio.create_task(drains.set(record.worker_id, draining)))
        await asyncio.sleep(0)
        assert registry.get(record.worker_id).record.draining is draining, "at once"
    store.gate.set()
    ends = await asyncio.gather(*under_way, return_exceptions=True)
    assert [end is None for end in ends] == [taken for _, taken in wishes]
    expected = [before, *(draining for draining, taken in wishes if taken)][-1]
    (held,) = await store.workers()
    shown = registry.get(record.worker_id).record
    assert (held.draining, shown.draining) == (expected, expected), (before, wishes)
    assert drains.held(record.worker_id) is expected


async def test_the_last_wish_that_the_ledger_took_counts() -> None:
    some = list(product([False, True], repeat=2))
    for count in (1, 2, 3):
        for before, wishes in product([False, True], product(some, repeat=count)):
            await _all_at_once(before, wishes)


async def test_a_wish_that_is_broken_off_undoes_no_other() -> None:
    store, registry = Fickle(), WorkerRegistry(FakeClock(), STILL, "0")
    record = a_worker()
    registry.put(record)
    drains = Drains(store, registry)
    store.gate.clear()
    kept = asyncio.create_task(drains.set(record.worker_id, True))
    broken_off = asyncio.create_task(drains.set(record.worker_id, False))
    await asyncio.sleep(0)
    broken_off.cancel()
    await asyncio.gather(broken_off, return_exceptions=True)
    assert registry.get(record.worker_id).record.draining, "the drain is under way still"
    store.gate.set()
    await kept
    assert (registry.get(record.worker_id).record.draining, drains.held(record.worker_id)) == (True, True)


@pytest_asyncio.fixture
async def fickle(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, store=Fickle()).running() as running:
        yield running


async def test_a_registration_does_not_write_down_a_drain_that_fails(fickle: ControlPlane) -> None:
    store = fickle.store
    assert isinstance(store, Fickle)
    worker = await fickle.join("w1")
    store.gate.clear()
    first = asyncio.create_task(fickle.ask("POST", "/api/v1/workers/w1/drain"))
    await calm()
    registering = asyncio.create_task(fickle.api("POST", "/workers/register", worker.registration()))
    await calm()
    second = asyncio.create_task(fickle.ask("POST", "/api/v1/workers/w1/drain"))
    await calm()
    store.answers = iter([False, True, False])
    store.gate.set()
    assert [(await first).status, (await second).status] == [503, 503]
    await registering
    assert (await fickle.api("GET", "/workers/w1"))["status"] == "available"
    assert not (await store.workers())[0].draining
