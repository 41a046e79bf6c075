"""When a follower looks at the ledger for its workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from ktrdr.backend.fleet import Fleet
from ktrdr.backend.mirror import Mirror
from ktrdr.backend.progress import ProgressReader
from ktrdr.backend.registry import WorkerRegistry
from ktrdr.errors import Unavailable
from ktrdr.operations.fence import Fence
from ktrdr.operations.memory import MemoryStore
from ktrdr.operations.model import Operation, WorkerRecord
from ktrdr.operations.progress import Progress
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.memory_election import MemoryBoard, MemoryElection
from ktrdr.testing.operations import a_worker
from support.control_plane import STILL


class _Slow(MemoryStore):
    """The first look at its workers lasts ten minutes by the clock; the ledger ``fails`` then, or does not."""

    def __init__(self, clock: FakeClock, *, fails: bool) -> None:
        super().__init__()
        self._clock, self._fails, self._slow = clock, fails, True

    async def workers(self) -> Sequence[WorkerRecord]:
        if self._slow:
            self._slow = False
            self._clock.advance(600)
            if self._fails:
                raise Unavailable("The ledger does not answer.")
            return ()
        return await super().workers()


async def _as_it_is(operation: Operation, progress: Progress) -> Operation:
    return operation


@pytest.mark.parametrize("fails", [True, False])
async def test_after_a_look_that_hung_the_next_one_comes_soon(fails: bool) -> None:
    clock = FakeClock()
    store, registry = _Slow(clock, fails=fails), WorkerRegistry(clock, STILL, "0")
    await store.save_worker(a_worker())
    progress = ProgressReader(registry, Fleet(AsgiTransport({}), None, 1.0, 1.0), clock, 1.0, _as_it_is)
    mirror = Mirror(store, MemoryBoard(MemoryElection(), Fence(), {}), registry, clock, progress)
    mirror.active = True
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
