"""Pausing the queue: nothing new is dispatched, all else goes on, and a restart does not end it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

import pytest

from ktrdr.backend.operations.pauses import Pauses
from ktrdr.errors import Unavailable
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import OperationType
from ktrdr.testing.clock import FakeClock
from support.control_plane import STILL, ControlPlane, calm

TRAINING = OperationType.TRAINING


async def test_nothing_new_is_dispatched_and_the_rest_goes_on(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    running = await plane.submit()
    await plane.until(running, "running")
    await plane.api("POST", "/queue/pause", {})
    waiting = await plane.submit()
    await plane.deliver(worker, running)
    await plane.probe()
    assert (await plane.status(running), await plane.status(waiting)) == ("completed", "pending")
    view = await plane.api("GET", f"/operations/{waiting}")
    assert "paused" in view["waiting_for"]
    assert "paused" in (await plane.api("GET", "/operations"))["operations"][0]["waiting_for"]
    await plane.api("POST", "/queue/unpause", {})
    await plane.until(waiting, "running")


async def test_work_of_a_lost_worker_waits_too(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.api("POST", "/queue/pause", {})
    await plane.deliver(worker, name, "released")
    await calm()
    assert await plane.status(name) == "pending"
    assert (await plane.store.get(name)).attempt == 1


async def test_one_type_is_paused_and_does_not_hide_the_other(plane: ControlPlane) -> None:
    await plane.join("b1")
    await plane.join("t1", "training")
    answer = await plane.api("POST", "/queue/pause", {"operation_type": "backtesting"})
    assert [p["operation_type"] for p in answer["paused"]] == ["backtesting"]
    held = [await plane.submit() for _ in range(70)]  # more than the first look at the queue
    training = await plane.submit(TRAINING)
    await plane.until(training, "running")
    assert {await plane.status(name) for name in held} == {"pending"}
    assert (await plane.api("GET", "/queue"))["operations"] == {
        "backtesting": {"pending": 70},
        "training": {"running": 1},
    }


async def test_it_outlives_the_backend(plane: ControlPlane, tmp_path: Path) -> None:
    since = (await plane.api("POST", "/queue/pause", {}))["paused"][0]["since"]
    plane.clock.advance(5.0)
    again = ControlPlane(tmp_path, store=plane.store)
    again.clock.advance(60.0)
    async with again.running():
        health = (await again.ask("GET", "/health")).json()
        assert health["paused"] == ["backtesting", "training"]
        await again.join("w1")
        name = await again.submit()
        await again.probe()
        assert await again.status(name) == "pending"
        view = await again.api("POST", "/queue/pause", {})
        assert view["paused"][0]["since"] == since
        await again.api("POST", "/queue/unpause", {})
        await again.until(name, "running")


async def test_who_does_not_want_to_wait_is_told(stocked: ControlPlane) -> None:
    await stocked.api("POST", "/queue/pause", {})
    body = {"strategy_name": "sp500_trend", "when_busy": "reject"}
    answer = await stocked.ask("POST", "/api/v1/trainings/start", body)
    assert (answer.status, "paused" in answer.json()["detail"]) == (503, True)
    accepted = await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"})
    assert accepted["operation_status"] == "pending"


async def test_the_numbers_say_so(plane: ControlPlane) -> None:
    await plane.api("POST", "/queue/pause", {"operation_type": "training"})
    lines = (await plane.ask("GET", "/metrics")).body.decode().splitlines()
    assert 'ktrdr_queue_paused{operation_type="training"} 1.0' in lines
    assert 'ktrdr_queue_paused{operation_type="backtesting"} 0.0' in lines


class Slow(MemoryStore):
    """Takes its time to record a pause, and may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.away = asyncio.Event(), False

    async def set_paused(
        self, types: Collection[OperationType], since: datetime | None
    ) -> Mapping[OperationType, datetime]:
        await self.gate.wait()
        if self.away:
            raise Unavailable("The ledger is away.")
        return await super().set_paused(types, since)


@pytest.mark.parametrize("away", [False, True])
async def test_nothing_slips_through_while_the_pause_is_recorded(tmp_path: Path, away: bool) -> None:
    store = Slow()
    store.away = away
    async with ControlPlane(tmp_path, STILL, store).running() as plane:
        await plane.join("w1")
        pausing = asyncio.create_task(plane.ask("POST", "/api/v1/queue/pause", {}))
        await calm()
        assert plane.backend.operations.pauses.known
        store.gate.set()
        assert (await pausing).status == (503 if away else 200)
        name = await plane.submit()
        if away:
            await plane.until(name, "running")
        else:
            await calm()
            assert await plane.status(name) == "pending"


class Late(MemoryStore):
    """Its answer to what is paused is old when it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def paused(self) -> Mapping[OperationType, datetime]:
        answer = await super().paused()
        await self.gate.wait()
        return answer


async def test_an_answer_older_than_a_pause_does_not_lift_it() -> None:
    store = Late()
    pauses = Pauses(store, FakeClock())
    reading = asyncio.create_task(pauses.read())
    await asyncio.sleep(0)
    pausing = asyncio.create_task(pauses.pause([OperationType.TRAINING]))
    store.gate.set()
    await pausing
    assert OperationType.TRAINING in await reading
    assert OperationType.TRAINING in pauses.known
