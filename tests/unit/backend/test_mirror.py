"""When a follower looks at the ledger for its workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from ktrdr.backend.cluster.mirror import Mirror, Poster
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.progress import ProgressReader
from ktrdr.errors import Unavailable
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import Operation, WorkerRecord
from ktrdr.operations.progress import Progress
from ktrdr.operations.sql.fence import Fence
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.memory_election import MemoryBoard, MemoryElection
from ktrdr.testing.operations import a_worker
from support.control_plane import STILL


class _Slow(MemoryStore):
    """The first look at its workers lasts ten minutes by the clock; then it ``fails``, or does not."""

    def __init__(self, clock: FakeClock, *, fails: Exception | None) -> None:
        super().__init__()
        self._clock, self._fails, self._slow = clock, fails, True

    async def workers(self) -> Sequence[WorkerRecord]:
        if self._slow:
            self._slow = False
            self._clock.advance(600)
            if self._fails is not None:
                raise self._fails
            return ()
        return await super().workers()


async def _as_it_is(operation: Operation, progress: Progress) -> Operation:
    return operation


def _mirror(store: MemoryStore, registry: WorkerRegistry, clock: FakeClock) -> Mirror:
    progress = ProgressReader(registry, Fleet(AsgiTransport({}), None, 1.0, 1.0), clock, 1.0, _as_it_is)
    mirror = Mirror(store, MemoryBoard(MemoryElection(), Fence(), {}), registry, clock, progress)
    mirror.active = True
    return mirror


async def test_news_at_the_moment_of_the_end_do_not_keep_it_going() -> None:
    clock = FakeClock()

    async def end_after(ticks: int) -> None:
        mirror = _mirror(MemoryStore(), WorkerRegistry(clock, STILL, "0"), clock)
        looking = asyncio.create_task(mirror.run())
        await asyncio.sleep(1.0)  # it has looked, rested, and waits for news
        mirror.stale()
        for _ in range(ticks):
            await asyncio.sleep(0)
        looking.cancel()
        done, _ = await asyncio.wait({looking}, timeout=10)
        looking.cancel()
        assert done, f"a cancel {ticks} ticks after the news was lost"

    await asyncio.gather(*(end_after(ticks) for ticks in range(6)))


@pytest.mark.parametrize(
    "fails", [None, Unavailable("The ledger does not answer."), ValueError("'quantum' is no type of worker")]
)
async def test_after_a_look_that_hung_the_next_one_comes_soon(fails: Exception | None) -> None:
    clock = FakeClock()
    store, registry = _Slow(clock, fails=fails), WorkerRegistry(clock, STILL, "0")
    await store.save_worker(a_worker())
    mirror = _mirror(store, registry, clock)
    looking = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(20):
            while not len(registry):
                await asyncio.sleep(0.05)
                mirror.stale()
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


async def test_a_follower_says_which_workers_the_leader_has_not_seen_yet() -> None:
    clock = FakeClock()
    store, election, fence = MemoryStore(), MemoryElection(), Fence()
    board, fence.epoch = MemoryBoard(election, fence, {}), election.epoch
    led, followed = (WorkerRegistry(clock, STILL, "0") for _ in range(2))
    for name in ("w1", "w2"):
        await store.save_worker(a_worker(name))
        led.put(a_worker(name), verified=False)
    progress = ProgressReader(followed, Fleet(AsgiTransport({}), None, 1.0, 1.0), clock, 1.0, _as_it_is)
    mirror = Mirror(store, board, followed, clock, progress)
    mirror.active = True
    poster = Poster(board, led, 3, lambda: None)

    async def shown() -> dict[str, bool]:
        await poster.post()
        await mirror.look()
        return {worker.worker_id: followed.view(worker).seen for worker in followed}

    assert await shown() == {"w1": False, "w2": False}
    led.put(a_worker("w1"))
    assert await shown() == {"w1": True, "w2": False}
    led.remove("w2")
    assert await shown() == {"w1": True, "w2": True}  # nobody says anything of it


class _Counting(MemoryStore):
    """Counts the looks at its workers, each of which lasts a moment."""

    looks = 0

    async def workers(self) -> Sequence[WorkerRecord]:
        self.looks += 1
        await asyncio.sleep(0)
        return await super().workers()


async def test_of_many_who_want_to_know_at_once_one_looks_for_all() -> None:
    clock = FakeClock()
    store, registry = _Counting(), WorkerRegistry(clock, STILL, "0")
    await store.save_worker(a_worker())
    mirror = _mirror(store, registry, clock)
    for round_ in (1, 2):
        await asyncio.gather(*(mirror.fresh() for _ in range(50)))
        assert (store.looks, len(registry)) == (round_, 1)
        clock.advance(0.6)
