"""Many watchers of one operation: read once, sent to all, and nobody is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.operations.feeds import Feeds, frame_of
from ktrdr.backend.operations.hub import Hub
from ktrdr.errors import NotFound
from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.messages import OperationView
from ktrdr.protocol.transports import AsgiTransport
from support.eventually import until
from support.virtual import in_virtual_time

NAME = "op-1"


class Scripted:
    """Views that a test changes; counts how often they are read."""

    def __init__(self) -> None:
        self.reads = 0
        self.takes_s = 0.0
        self.attempt = 1
        self.status = OperationStatus.RUNNING
        self.failure: Exception | None = None

    async def view(self, operation_id: str) -> OperationView:
        self.reads += 1
        await asyncio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        return OperationView(
            operation_id=operation_id,
            operation_type=OperationType.TRAINING,
            status=self.status,
            attempt=self.attempt,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
        )


class Place:
    def __init__(self, fleet: Fleet) -> None:
        self.views, self.hub, self.fleet = Scripted(), Hub(), fleet
        self.feeds = Feeds(self.views, self.hub, fleet, 3600.0)

    def change(self, attempt: int, status: OperationStatus = OperationStatus.RUNNING) -> None:
        self.views.attempt, self.views.status = attempt, status
        self.hub.changed(NAME)


@asynccontextmanager
async def _placed(interval_s: float = 3600.0) -> AsyncIterator[Place]:
    fleet = Fleet(AsgiTransport({}), None, 1.0, 1.0)
    made = Place(fleet)
    made.feeds = Feeds(made.views, made.hub, fleet, interval_s)
    yield made
    await fleet.close()


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    async with _placed() as made:
        yield made


async def _watch(place: Place, seen: list[int]) -> None:
    etag = None
    with place.feeds.watch(NAME) as feed:
        while (frame := await feed.beyond(etag, 60.0)) is not None:
            seen.append(frame.view.attempt)
            etag = frame.etag


async def test_two_hundred_watchers_cost_one_read_for_each_change(place: Place) -> None:
    seen: list[list[int]] = [[] for _ in range(200)]
    watchers = [asyncio.create_task(_watch(place, each)) for each in seen]
    await until(lambda: all(seen))
    for attempt in (2, 3):
        place.change(attempt)
        await until(lambda wanted=attempt: all(each[-1] == wanted for each in seen))
    place.change(4, OperationStatus.COMPLETED)
    await asyncio.gather(*watchers)
    assert seen == [[1, 2, 3, 4]] * 200
    assert place.views.reads == 4
    assert len(place.feeds) == 0


async def test_who_is_slow_gets_the_newest_and_holds_up_nobody(place: Place) -> None:
    fast: list[int] = []
    with place.feeds.watch(NAME) as feed:
        first = await feed.beyond(None, 60.0)
        assert first is not None
        watcher = asyncio.create_task(_watch(place, fast))
        for attempt in range(2, 20):
            place.change(attempt)
            await until(lambda wanted=attempt: bool(fast) and fast[-1] == wanted)
        newest = await feed.beyond(first.etag, 60.0)
        assert newest is not None
        assert newest.view.attempt == 19
        place.change(20, OperationStatus.COMPLETED)
        await watcher
    assert fast[-3:] == [18, 19, 20]


async def test_nothing_new_in_time_is_none(place: Place) -> None:
    with place.feeds.watch(NAME) as feed:
        first = await feed.beyond(None, 60.0)
        assert first is not None
        assert await feed.beyond(first.etag, 0.01) is None
        assert not feed.over


async def test_a_reading_that_fails_fails_each_watching_and_the_next_begins_anew(place: Place) -> None:
    place.views.failure = NotFound("operation", NAME)
    results = await asyncio.gather(*(_watch(place, []) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [NotFound] * 3
    place.views.failure = None
    with place.feeds.watch(NAME) as feed:
        assert await feed.beyond(None, 60.0) is not None
    assert len(place.feeds) == 0


async def test_watching_ends_when_the_backend_stops(place: Place) -> None:
    seen: list[int] = []
    watcher = asyncio.create_task(_watch(place, seen))
    await until(lambda: bool(seen))
    place.hub.close()
    await asyncio.wait_for(watcher, 30)
    assert seen == [1]


@pytest.mark.parametrize("terminal", [OperationStatus.FAILED, OperationStatus.CANCELLED])
async def test_who_knows_the_end_already_is_told_that_it_is_over(
    place: Place, terminal: OperationStatus
) -> None:
    place.views.status = terminal
    known = frame_of(await place.views.view(NAME))
    with place.feeds.watch(NAME) as feed:
        assert await feed.beyond(known.etag, 60.0) is None
        assert feed.over


async def _reads_in(place: Place, seconds: float) -> int:
    with place.feeds.watch(NAME) as feed:
        assert await feed.beyond(None, 60.0) is not None
        before = place.views.reads
        await asyncio.sleep(seconds)
        return place.views.reads - before


@in_virtual_time
async def test_what_waits_is_read_less_often_than_what_runs() -> None:
    async with _placed(0.01) as place:
        running = await _reads_in(place, 0.5)
        place.views.status = OperationStatus.PENDING
        waiting = await _reads_in(place, 0.5)
        assert 0 < waiting < running / 2


@in_virtual_time
async def test_a_ledger_that_answers_slowly_is_asked_less_often() -> None:
    async with _placed(0.001) as place:
        place.views.takes_s = 0.05
        assert 0 < await _reads_in(place, 1.0) <= 6, "a fifth of the time at most"
