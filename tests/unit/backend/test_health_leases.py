"""Leases: what renews them, what ends them, and clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from ktrdr.operations.events import Event, Reported
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import ModelRecord, Operation
from support.control_plane import STILL, ControlPlane, calm
from support.virtual import in_virtual_time


async def test_failed_probes_alone_do_not_take_work_away(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    plane.unplug(worker)
    for _ in range(5):
        await plane.probe()
    assert str(await plane.status(name)) == "running"


async def test_a_lease_that_nobody_renews_ends_and_the_work_is_done_again(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    plane.unplug(worker)
    plane.clock.advance(61.0)
    await plane.backend.health.sweep()
    operation = await plane.store.get(name)
    assert (str(operation.status), operation.failures) == ("pending", 1)


async def test_a_worker_that_let_a_lease_end_gets_nothing_until_it_answers(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.health_gate.clear()  # it stands still: connections are taken, nothing is answered
    plane.clock.advance(61.0)
    await plane.backend.health.sweep()
    await calm()
    operation = await plane.store.get(name)
    assert (str(operation.status), operation.attempt) == ("pending", 1)
    worker.jobs.clear()
    worker.health_gate.set()
    await plane.backend.health.round()
    await plane.until(name, "running")
    assert (await plane.store.get(name)).attempt == 2


async def test_probes_renew_the_lease(plane: ControlPlane) -> None:
    await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    for _ in range(10):
        plane.clock.advance(50.0)
        await plane.probe()
    operation = await plane.store.get(name)
    assert (str(operation.status), operation.attempt, operation.failures) == ("running", 1, 0)


async def _time_passes(plane: ControlPlane, seconds: float) -> None:
    """In steps so small that the backend does not take itself for suspended."""
    for _ in range(int(seconds / 10)):
        plane.clock.advance(10.0)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
async def test_wall_clocks_that_jump_neither_end_a_lease_nor_keep_one(
    plane: ControlPlane, jump_s: float
) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    for _ in range(4):
        plane.clock.jump(jump_s)
        plane.clock.advance(40.0)
        await plane.probe()
    assert (await plane.store.get(name)).failures == 0
    plane.unplug(worker)
    plane.clock.jump(jump_s)
    await plane.until_its_lease_ends(name)


async def test_a_clock_set_back_while_the_backend_was_away_keeps_no_lease(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
    plane.unplug(worker)
    plane.clock.jump(-3600.0)
    async with plane.running():
        plane.clock.advance(61.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "pending"
        assert len(plane.backend.operations.leases) == 0


@in_virtual_time
async def test_a_backend_that_stood_still_gives_leases_a_full_period(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, replace(STILL, health_interval_s=0.01, worker_removal_s=1e6))
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        plane.unplug(worker)  # nothing renews the lease
        await asyncio.sleep(0.05)
        plane.clock.advance(3600.0)
        await _time_passes(plane, 50.0)
        assert str(await plane.status(name)) == "running"
        await _time_passes(plane, 30.0)
        operation = await plane.store.get(name)
        assert (str(operation.status), operation.failures) == ("pending", 1)


class _Counting(MemoryStore):
    """Counts the events that are written, but for progress that somebody is shown."""

    written = 0

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        self.written += not isinstance(event, Reported)
        return await super().apply(operation_id, event, now, model=model)


async def test_renewals_are_kept_in_memory_and_written_twice_in_a_lease(tmp_path: Path) -> None:
    store = _Counting()
    plane = ControlPlane(tmp_path, STILL, store)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        before = store.written
        for number in range(1, 13):  # two minutes of probes; the lease is one
            plane.clock.advance(10.0)
            worker.jobs[name].progress = {
                "percentage": float(number),
                "items_done": number,
                "items_total": 100,
            }
            await plane.probe()
            shown = (await plane.api("GET", "/operations"))["operations"][0]
            assert (shown["status"], shown["progress"]["items_done"]) == ("running", number)
        assert store.written - before == 4
        plane.unplug(worker)
        plane.clock.advance(59.0)
        await plane.probe()
        assert str(await plane.status(name)) == "running", (
            "a whole lease after the last probe, not the last write"
        )
        plane.clock.advance(2.0)
        await plane.probe()
        assert str(await plane.status(name)) == "pending"


class Slow(MemoryStore):
    """What it says of all live operations may be old when it arrives."""

    def __init__(self) -> None:
        super().__init__(max_failures=3)
        self.gate = asyncio.Event()
        self.gate.set()

    async def live(self) -> Sequence[Operation]:
        found = await super().live()
        await self.gate.wait()
        return found


async def test_what_ended_while_all_leases_were_read_has_none(tmp_path: Path) -> None:
    store = Slow()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        store.gate.clear()
        sweep = asyncio.create_task(plane.backend.health.sweep())
        await calm()
        await plane.deliver(worker, name)
        store.gate.set()
        await sweep
        await plane.backend.operations.vouch(
            "w1", worker.instance_id, name, 1, None
        )  # late: asked before the end
        assert plane.backend.registry.get("w1").reserved_for is None
        assert len(plane.backend.operations.leases) == 0


async def test_what_was_renewed_while_all_leases_were_read_keeps_its_period(tmp_path: Path) -> None:
    store = Slow()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        store.gate.clear()
        sweep = asyncio.create_task(plane.backend.health.sweep())
        await calm()
        name = await plane.submit()
        await plane.until(name, "running")
        store.gate.set()
        await sweep
        assert len(plane.backend.operations.leases) == 1
        vouched = await plane.backend.operations.vouch("w1", worker.instance_id, name, 1, None)
        assert vouched
