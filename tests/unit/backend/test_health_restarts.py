"""What a restarted backend does with the work and the workers that its ledger names."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ktrdr.errors import NotFound, Unavailable
from ktrdr.operations.events import Assigned, Event, Reported
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import ModelRecord, NewOperation, OperationType
from support.control_plane import ControlPlane, calm, spec_of

BACKTEST = OperationType.BACKTESTING


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


async def test_a_worker_that_did_not_answer_yet_is_listed_so(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        workers = [await plane.join(name) for name in ("alive", "dead")]
        assert [w["seen"] for w in (await plane.api("GET", "/workers"))["workers"]] == [True, True]
    for worker in workers:  # before the first probes
        plane.unplug(worker)
    async with plane.running():
        assert [w["seen"] for w in (await plane.api("GET", "/workers"))["workers"]] == [False, False]
        await calm()
        plane.plug(workers[0])
        await plane.probe()
        assert [w["seen"] for w in (await plane.api("GET", "/workers"))["workers"]] == [True, False]


async def test_a_worker_that_the_ledger_had_lost_is_not_free_while_it_has_an_attempt(tmp_path: Path) -> None:
    """As where a backend was killed between an assignment and telling the worker, while its record was being saved."""
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
    instance, backend = worker.instance_id, plane.backend
    new = NewOperation(operation_id="op-lost", operation_type=BACKTEST, spec=spec_of(BACKTEST))
    await plane.store.submit(new, plane.clock.now())
    lease_end = plane.clock.now() + timedelta(seconds=60)
    await plane.store.apply("op-lost", Assigned("w1", instance, lease_end), plane.clock.now())
    await plane.store.delete_worker("w1")
    async with plane.running():
        assert backend is not plane.backend
        assert len(plane.backend.registry) == 0
        await plane.store.submit(replace(new, operation_id="op-next"), plane.clock.now())
        await plane.api("POST", "/workers/register", worker.registration())
        await plane.until("op-lost", "running")
        operation = await plane.store.get("op-lost")
        assert (operation.attempt, operation.failures) == (2, 1)
        assert [str(await plane.status(name)) for name in ("op-lost", "op-next")] == ["running", "pending"]


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
        await plane.until_its_lease_ends(name)


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


async def _shown(plane: ControlPlane, name: str) -> list[float]:
    """What a poll, a list and the ledger say of the operation's progress."""
    polled = await plane.api("GET", f"/operations/{name}")
    [listed] = (await plane.api("GET", "/operations"))["operations"]
    recorded = (await plane.store.get(name)).progress
    return [view["progress"]["percentage"] for view in (polled, listed)] + [
        recorded.percentage if recorded else 0.0
    ]


@pytest.mark.parametrize("seen", ["polled", "listed"])
async def test_progress_that_was_shown_is_shown_after_a_restart(tmp_path: Path, seen: str) -> None:
    plane = ControlPlane(tmp_path)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        for done in (1, 3, 6):
            worker.jobs[name].progress = {"items_done": done, "items_total": 10, "percentage": 10.0 * done}
            plane.clock.advance(2.0)
            await plane.probe()
            if seen == "listed":
                [view] = (await plane.api("GET", "/operations"))["operations"]
            else:
                view = await plane.api("GET", f"/operations/{name}")
            assert view["progress"]["percentage"] == 10.0 * done
    plane.unplug(worker)
    async with plane.running():
        assert await _shown(plane, name) == [60.0] * 3
        plane.plug(worker)
        worker.jobs[name].progress = {"items_done": 5, "items_total": 10, "percentage": 50.0}
        plane.clock.advance(2.0)
        await plane.probe()
        assert await _shown(plane, name) == [60.0] * 3


async def test_progress_that_cannot_be_recorded_is_not_shown(tmp_path: Path) -> None:
    store = ForgetfulLedger(max_failures=3)
    plane = ControlPlane(tmp_path, store=store)
    async with plane.running():
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        worker.jobs[name].progress = {"items_done": 4, "items_total": 10, "percentage": 40.0}
        store.full = True
        plane.clock.advance(2.0)
        await plane.probe()
        assert await _shown(plane, name) == [0.0] * 3
        store.full = False
        plane.clock.advance(2.0)
        assert await _shown(plane, name) == [40.0] * 3


class ForgetfulLedger(MemoryStore):
    """A ledger that cannot take a report while its disk is full."""

    full = False

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        if self.full and isinstance(event, Reported):
            raise Unavailable("The ledger's disk is full.")
        return await super().apply(operation_id, event, now, model=model)
