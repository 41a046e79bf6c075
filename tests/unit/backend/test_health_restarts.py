"""What a restarted backend does with the work and the workers that its ledger names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.errors import NotFound
from support.control_plane import ControlPlane, calm


async def test_a_restarted_backend_adopts_running_work(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
    plane.clock.advance(600.0)  # the backend was away for longer than a lease
    async with plane.running():
        await calm()
        assert (await plane.api("GET", "/workers/w1"))["current_operation_id"] == name
        await plane.backend.health.sweep()
        operation = await plane.store.get(name)
        assert (str(operation.status), operation.attempt, operation.failures) == ("running", 1, 0)
        await plane.deliver(worker, name)
        assert str(await plane.status(name)) == "completed"
    assert len(worker.starts) == 1


async def test_after_a_restart_a_lease_lasts_one_full_period_and_no_longer(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
    plane.unplug(worker)
    plane.clock.advance(600.0)
    async with plane.running():
        await calm()
        plane.clock.advance(59.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "running"
        plane.clock.advance(2.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "pending"


async def test_after_a_restart_a_start_in_doubt_is_repeated(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
        worker.script = ["hang"]
        name = await plane.submit()
        await plane.until(name, "assigned")
    async with plane.running():
        await plane.until(name, "running")
    assert (await plane.store.get(name)).attempt == 1
    assert {s.attempt for s in worker.starts} == {1}


async def test_after_a_restart_a_worker_is_not_chosen_before_it_answered(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
    worker.health_gate.clear()
    async with plane.running():
        name = await plane.submit()
        await calm()
        assert not worker.starts
        assert (await plane.api("GET", "/workers/w1"))[
            "reason"
        ] == "It was not probed since the backend started."
        worker.health_gate.set()
        await plane.until(name, "running")


async def test_pending_work_survives_a_restart(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        name = await plane.submit()
    async with plane.running():
        await plane.join("w1")
        await plane.until(name, "running")


async def test_work_on_a_worker_that_is_gone_for_good_is_done_again_after_a_restart(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        await plane.store.delete_worker("w1")
    async with plane.running():
        with pytest.raises(NotFound):
            plane.backend.registry.get("w1")
        plane.clock.advance(61.0)
        await plane.backend.health.sweep()
        assert str(await plane.status(name)) == "pending"
