"""Probes, leases, lost and returning workers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from ktrdr.backend.dispatch.health import probe_groups
from ktrdr.operations.events import Progressed
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import OperationType
from support.control_plane import STILL, ControlPlane, calm, settle, spec_of
from support.virtual import in_virtual_time


async def _worker(plane: ControlPlane, name: str) -> dict:
    return await plane.api("GET", f"/workers/{name}")


async def test_three_failed_probes_make_a_worker_unavailable_and_a_good_one_brings_it_back(
    plane: ControlPlane,
) -> None:
    worker = await plane.join("w1")
    first = (await _worker(plane, "w1"))["last_healthy_at"]
    plane.unplug(worker)
    for failures in (1, 2):
        plane.clock.advance(10.0)
        await plane.probe()
        shown = await _worker(plane, "w1")
        assert (shown["status"], shown["health_check_failures"]) == ("available", failures)
        assert shown["last_healthy_at"] == first < shown["last_health_check"]
    await plane.probe()
    shown = await _worker(plane, "w1")
    assert shown["status"] == "temporarily_unavailable"
    assert "Cannot connect" in shown["reason"]
    plane.plug(worker)
    await plane.probe()
    shown = await _worker(plane, "w1")
    assert (shown["status"], shown["health_check_failures"], shown["reason"]) == ("available", 0, None)
    assert shown["last_healthy_at"] == shown["last_health_check"]


async def test_a_worker_that_was_unavailable_gets_waiting_work_when_it_comes_back(
    plane: ControlPlane,
) -> None:
    worker = await plane.join("w1")
    plane.unplug(worker)
    for _ in range(3):
        await plane.probe()
    name = await plane.submit()
    await calm()
    assert str(await plane.status(name)) == "pending"
    plane.plug(worker)
    await plane.probe()
    await plane.until(name, "running")


async def test_an_unavailable_worker_is_removed_in_the_end_and_its_work_goes_on_elsewhere(
    plane: ControlPlane,
) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    plane.unplug(worker)
    for _ in range(3):
        await plane.probe()
    plane.clock.advance(301.0)
    await plane.backend.health.round()
    assert (await plane.ask("GET", "/api/v1/workers/w1")).status == 404
    assert not await plane.store.workers()
    assert str(await plane.status(name)) == "pending"
    other = await plane.join("w2")
    await plane.until(name, "running")
    assert [s.attempt for s in other.starts] == [2]


async def test_a_probe_brings_progress_into_the_ledger(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.jobs[name].progress = {"percentage": 40.0, "items_done": 4, "items_total": 10, "message": "on it"}
    plane.clock.advance(31.0)  # renewals are written twice in a lease
    await plane.probe()
    progress = (await plane.store.get(name)).progress
    assert progress is not None
    assert (progress.items_done, progress.message) == (4, "on it")


async def test_a_worker_that_forgot_its_work_loses_it_at_the_next_probe(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.jobs.clear()
    await plane.probe()
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.attempt, operation.failures) == (2, 1)


async def test_a_worker_that_has_finished_and_not_delivered_yet_keeps_its_work(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.jobs[name].status = "completed"
    await plane.probe()
    assert str(await plane.status(name)) == "running"
    assert (await plane.store.get(name)).failures == 0


async def test_an_idle_answer_from_before_the_start_takes_nothing_away(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.health_gate.clear()
    probing = asyncio.create_task(plane.backend.health.round())
    await calm()
    name = await plane.submit()
    await plane.until(name, "running")
    worker.health_gate.set()
    await probing
    assert (await plane.store.get(name)).attempt == 1
    assert (await _worker(plane, "w1"))["status"] == "busy"


async def test_a_busy_answer_from_before_the_delivery_does_not_block_the_slot(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.health_gate.clear()
    probing = asyncio.create_task(plane.backend.health.round())
    await calm()
    await plane.deliver(worker, name)
    worker.health_gate.set()
    await probing
    assert (await _worker(plane, "w1"))["status"] == "available"


async def test_work_started_by_hand_makes_a_worker_busy_and_is_left_alone(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    await plane.transport.request(
        "POST", f"{worker.url}/backtests/start", json={"spec": json.loads(spec_of(OperationType.BACKTESTING))}
    )
    await plane.probe()
    shown = await _worker(plane, "w1")
    assert (shown["status"], shown["current_operation_id"]) == ("busy", "by-hand")
    assert not worker.cancels
    name = await plane.submit()
    await calm()
    assert str(await plane.status(name)) == "pending"
    worker.jobs.clear()
    await plane.probe()
    await plane.until(name, "running")


async def test_a_stray_is_told_to_stop_by_the_probe_that_finds_it(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    other = await plane.join("w2")
    plane.unplug(worker)
    plane.clock.advance(61.0)
    await plane.backend.health.sweep()
    await plane.until(name, "running")
    plane.plug(worker)
    await plane.probe()
    assert worker.cancels == [(name, 1)]
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.attempt) == ("w2", 2)
    assert other.running == name


async def test_a_worker_that_reappears_before_the_next_assignment_is_adopted(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    plane.unplug(worker)
    plane.clock.advance(61.0)
    for _ in range(3):
        await plane.backend.health.round()
    await plane.backend.health.sweep()
    assert str(await plane.status(name)) == "pending"
    plane.plug(worker)
    await plane.backend.health.probe("w1")
    operation = await plane.store.get(name)
    assert (str(operation.status), operation.attempt) == ("running", 1)
    assert (await _worker(plane, "w1"))["current_operation_id"] == name


async def test_another_worker_at_the_endpoint_counts_as_a_failed_probe(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.instance_id = "w1-99"
    await plane.probe()
    shown = await _worker(plane, "w1")
    assert shown["health_check_failures"] == 1
    assert "new incarnation" in shown["reason"]
    worker.worker_id = "w9"
    await plane.probe()
    assert "another worker" in (await _worker(plane, "w1"))["reason"]


async def test_a_planted_exception_does_not_end_the_loops(tmp_path: Path) -> None:
    class Stumbling(MemoryStore):
        planted = False
        probes_spoilt = 0
        sweeps_spoilt = 0

        async def apply(self, operation_id, event, now, **saved):
            if self.planted and isinstance(event, Progressed) and self.probes_spoilt < 3:
                self.probes_spoilt += 1
                raise RuntimeError("planted")
            return await super().apply(operation_id, event, now, **saved)

        async def live(self):
            # A sweep that succeeds after the clock's jump makes every lease a new one, of which no renewal is due: it
            # must not come before the third probe, whichever loop is faster.
            if self.planted and (self.sweeps_spoilt < 3 or self.probes_spoilt < 3):
                self.sweeps_spoilt += 1
                raise RuntimeError("planted")
            return await super().live()

    store = Stumbling()
    plane = ControlPlane(tmp_path, replace(STILL, health_interval_s=0.01), store)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        store.planted = True
        plane.clock.advance(31.0)  # a renewal is due for the ledger, and no lease ends
        await settle(
            _value(lambda: min(store.probes_spoilt, store.sweeps_spoilt)), lambda fewest: fewest >= 3
        )
        seen = worker.probes
        await settle(_value(lambda: worker.probes), lambda count: count > seen + 1)
        assert str(await plane.status(name)) in ("running", "pending", "assigned")


def _value(read):
    async def value():
        return read()

    return value


async def test_probes_run_at_the_same_time(plane: ControlPlane) -> None:
    workers = [await plane.join(f"w{n}") for n in range(20)]
    for worker in workers:
        worker.health_gate.clear()
        worker.probes = 0
    probing = asyncio.create_task(plane.backend.health.round())
    await calm()
    assert [worker.probes for worker in workers] == [1] * 20
    for worker in workers:
        worker.health_gate.set()
    await probing


@in_virtual_time
async def test_a_silent_worker_costs_a_time_out_and_nothing_else(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, replace(STILL, health_timeout_s=0.05))
    async with plane.running():
        worker = await plane.join("w1")
        worker.health_gate.clear()
        await plane.backend.health.probe("w1")
        assert "did not answer within 0.05 s" in (await _worker(plane, "w1"))["reason"]
        worker.health_gate.set()


@pytest.mark.parametrize(
    ("workers", "interval_s", "largest"),
    [(0, 10.0, 0), (32, 10.0, 32), (1_000, 10.0, 32), (40_000, 10.0, 100)],
)
def test_probes_of_a_large_fleet_are_spread_over_the_interval(
    workers: int, interval_s: float, largest: int
) -> None:
    names = [str(number) for number in range(workers)]
    groups, pause_s = probe_groups(names, interval_s)
    assert [name for group in groups for name in group] == names
    assert max((len(group) for group in groups), default=0) == largest
    assert (len(groups) - 1) * pause_s <= 0.8 * interval_s


async def test_an_idle_fleet_wakes_the_dispatcher_once_a_round(plane: ControlPlane) -> None:
    for number in range(5):
        await plane.join(f"w{number}")
    woken: list[None] = []
    plane.backend.operations.wake = lambda: woken.append(None)
    await plane.probe()
    assert len(woken) == 1
