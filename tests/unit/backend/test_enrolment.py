"""Registration, reports, deliveries, draining."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, OperationType, WorkerRecord, WorkerType
from support.control_plane import ControlPlane, calm, spec_of


async def test_registering_twice_changes_nothing(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    first = await plane.api("GET", "/workers/w1")
    plane.clock.advance(5.0)
    answer = await plane.api("POST", "/workers/register", worker.registration())
    assert (answer["worker_id"], answer["status"], answer["stop"]) == ("w1", "available", [])
    second = await plane.api("GET", "/workers/w1")
    assert second["registered_at"] == first["registered_at"]
    assert (await plane.api("GET", "/workers"))["total"] == 1


@pytest.mark.parametrize("alias", ["gpu_host", "cpu_training", "training"])
async def test_aliases_of_training(plane: ControlPlane, alias: str) -> None:
    worker = plane.machine("t1", "training")
    answer = await plane.api("POST", "/workers/register", worker.registration(worker_type=alias))
    assert answer["worker_type"] == "training"


async def test_an_unreachable_endpoint_is_refused_with_what_to_do(plane: ControlPlane) -> None:
    worker = plane.machine("w1")
    plane.unplug(worker)
    answer = await plane.ask("POST", "/api/v1/workers/register", worker.registration())
    problem = answer.json()
    assert answer.status == 422
    assert "cannot reach the worker at" in problem["detail"]
    assert "WORKER_ENDPOINT_URL" in problem["detail"]
    assert problem["errors"][0]["pointer"] == "/endpoint_url"
    assert (await plane.api("GET", "/workers"))["total"] == 0


async def test_an_endpoint_where_another_worker_answers_is_refused(plane: ControlPlane) -> None:
    worker = plane.machine("w1")
    answer = await plane.ask("POST", "/api/v1/workers/register", worker.registration(worker_id="w2"))
    assert answer.status == 422
    assert "answers worker 'w1'" in answer.json()["detail"]


async def test_a_second_live_worker_of_one_id_is_refused(plane: ControlPlane) -> None:
    await plane.join("w1")
    double = plane.machine("other")
    double.worker_id, double.instance_id = "w1", "w1-77"
    answer = await plane.ask("POST", "/api/v1/workers/register", double.registration())
    assert answer.status == 409
    assert "WORKER_ID" in answer.json()["detail"]


async def test_a_worker_may_move_to_another_address(plane: ControlPlane) -> None:
    first = await plane.join("w1")
    plane.unplug(first)
    moved = plane.machine("moved")
    moved.worker_id, moved.instance_id = "w1", "w1-2"
    await plane.api("POST", "/workers/register", moved.registration())
    assert (await plane.api("GET", "/workers/w1"))["endpoint_url"] == moved.url


async def test_a_new_incarnation_loses_the_work_of_the_old_one(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.restart()
    await plane.api("POST", "/workers/register", worker.registration())
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.attempt, operation.failures, operation.instance_id) == (2, 1, "w1-2")


async def test_registration_claims_running_work_and_is_told_to_stop_what_no_longer_counts(
    plane: ControlPlane,
) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    answer = await plane.api("POST", "/workers/register", worker.registration())
    assert answer["stop"] == []
    assert (await plane.api("GET", "/workers/w1"))["current_operation_id"] == name
    await plane.api("POST", f"/operations/{name}/cancel")
    await plane.deliver(worker, name, "cancelled")
    worker.jobs[name].status = "running"
    answer = await plane.api("POST", "/workers/register", worker.registration())
    assert answer["stop"] == [name]


async def test_an_unknown_worker_is_told_to_register(plane: ControlPlane) -> None:
    await plane.join("worker-2")
    worker = plane.machine("worker-1")
    answer = await plane.ask("POST", "/api/v1/workers/worker-1/report", worker.report("op"))
    assert answer.status == 404
    assert "did you mean" not in answer.json()["detail"], "among ten thousand names the search takes 150 ms"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/drain"), ("POST", "/undrain")],
)
async def test_who_names_an_unknown_worker_is_told_where_the_names_are(
    plane: ControlPlane, method: str, path: str
) -> None:
    await plane.join("worker-2")
    answer = await plane.ask(method, f"/api/v1/workers/worker-1{path}")
    assert answer.status == 404
    told = (
        "No worker named 'worker-1'; did you mean 'worker-2'? 'ktrdr workers list' shows who is registered."
    )
    assert answer.json()["detail"] == told


async def test_a_draining_worker_finishes_and_gets_no_more(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    first = await plane.submit()
    await plane.until(first, "running")
    assert (await plane.api("POST", "/workers/w1/drain"))["status"] == "draining"
    second = await plane.submit()
    await plane.deliver(worker, first)
    await calm()
    assert str(await plane.status(second)) == "pending"
    assert (await plane.store.workers())[0].draining
    await plane.api("POST", "/workers/register", worker.registration())
    assert (await plane.api("GET", "/workers/w1"))["status"] == "draining"
    assert (await plane.api("POST", "/workers/w1/undrain"))["status"] in ("available", "busy")
    await plane.until(second, "running")


async def test_a_drain_with_release_moves_the_operation_without_a_failure(plane: ControlPlane) -> None:
    w1 = await plane.join("w1")
    assert (await plane.api("POST", "/workers/w1/drain?release=true"))["current_operation_id"] is None
    assert w1.releases == []
    await plane.api("POST", "/workers/w1/undrain")
    name = await plane.submit()
    await plane.until(name, "running")
    w2 = await plane.join("w2")
    drained = await plane.api("POST", "/workers/w1/drain?release=true")
    assert (drained["status"], drained["current_operation_id"]) == ("draining", name)
    assert w1.releases == [(name, 1)]
    await plane.deliver(w1, name, "released")
    await plane.until(name, "running")
    view = await plane.api("GET", f"/operations/{name}")
    assert (view["worker_id"], view["attempt"], view["failures"]) == ("w2", 2, 0)
    assert [job.task_id for job in w2.starts] == [name]


async def test_a_worker_that_cannot_be_told_to_release_drains_all_the_same(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    del worker.jobs[name]  # its end is on the way
    assert (await plane.api("POST", "/workers/w1/drain?release=true"))["status"] == "draining"
    await plane.api("POST", "/workers/w1/undrain")
    plane.unplug(worker)
    answer = await plane.ask("POST", "/api/v1/workers/w1/drain?release=true")
    assert answer.status == 503
    assert f"Worker w1 drains, but was not told to give {name} back" in answer.json()["detail"]
    assert (await plane.store.workers())[0].draining


class _SlowToRegister(MemoryStore):
    """Writing a worker's record waits for ``gate``."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def save_worker(self, worker: WorkerRecord) -> None:
        await self.gate.wait()
        await super().save_worker(worker)


async def test_a_drain_while_the_worker_registers_again_is_kept(tmp_path: Path) -> None:
    store = _SlowToRegister()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        store.gate.clear()
        registering = asyncio.create_task(plane.api("POST", "/workers/register", worker.registration()))
        await calm()
        draining = asyncio.create_task(plane.api("POST", "/workers/w1/drain"))
        await calm()
        store.gate.set()
        await registering
        assert (await plane.api("GET", "/workers/w1"))["status"] == "draining", (
            "from the moment on it was asked"
        )
        await draining
        assert (await plane.api("GET", "/workers/w1"))["status"] == "draining"
        assert (await store.workers())[0].draining


async def test_a_drain_does_not_write_the_incarnation_before_over_a_registration(tmp_path: Path) -> None:
    """A backend that starts later would know that one alone, whom nobody tells to register."""
    store = _SlowToRegister()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        store.gate.clear()
        worker.restart()
        registering = asyncio.create_task(plane.api("POST", "/workers/register", worker.registration()))
        await calm()
        draining = asyncio.create_task(plane.api("POST", "/workers/w1/drain"))
        await calm()
        store.gate.set()
        await asyncio.gather(registering, draining)
        (record,) = await store.workers()
        assert (record.instance_id, record.draining) == ("w1-2", True)
        assert len(plane.backend.registry.writing) == 0


async def test_a_drain_does_not_bring_back_a_forgotten_worker(tmp_path: Path) -> None:
    store = _SlowToRegister()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await plane.join("w1")
        store.gate.clear()
        draining = asyncio.create_task(plane.ask("POST", "/api/v1/workers/w1/drain"))
        await calm()
        forgetting = asyncio.create_task(plane.ask("DELETE", "/api/v1/workers/w1"))
        await calm()
        store.gate.set()
        await draining
        assert (await forgetting).status == 204
        assert await store.workers() == ()


async def test_forgetting_a_worker(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    answer = await plane.ask("DELETE", "/api/v1/workers/w1")
    assert answer.status == 409
    assert name in answer.json()["detail"]
    await plane.deliver(worker, name)
    assert (await plane.ask("DELETE", "/api/v1/workers/w1")).status == 204
    assert (await plane.ask("DELETE", "/api/v1/workers/w1")).status == 404


@pytest.mark.parametrize("version", ["\u00b2", "1.\u0663", "9" * 60, "..", "v1"])
async def test_a_version_that_is_none_is_no_failure(plane: ControlPlane, version: str) -> None:
    machine = plane.machine("w1", version=version)
    await plane.api("POST", "/workers/register", machine.registration())
    assert [w["worker_id"] for w in (await plane.api("GET", "/workers"))["workers"]] == ["w1"]


async def test_a_worker_of_another_version_registers_and_gets_no_work(plane: ControlPlane) -> None:
    old = plane.machine("w1", version="7.0.0")
    answer = await plane.api("POST", "/workers/register", old.registration())
    assert "version 7.0.0" in answer["message"]
    name = await plane.submit()
    await calm()
    assert str(await plane.status(name)) == "pending"
    assert "version 7.0.0" in (await plane.api("GET", "/workers/w1"))["reason"]


async def test_lists_filter_by_type_and_status(plane: ControlPlane) -> None:
    await plane.join("b1")
    await plane.join("t1", "training")
    name = await plane.submit()
    await plane.until(name, "running")
    training = await plane.api("GET", "/workers?worker_type=training")
    assert [w["worker_id"] for w in training["workers"]] == ["t1"]
    busy = await plane.api("GET", "/workers?status=busy")
    assert [w["worker_id"] for w in busy["workers"]] == ["b1"]
    metrics = await plane.api("GET", "/metrics/workers")
    assert metrics["total_workers"] == 2
    assert metrics["backend_disk_free"] > 0
    assert metrics["by_status"] == {"busy": 1, "available": 1}
    assert metrics["by_type"] == {"backtesting": 1, "training": 1}
    assert metrics["workers"][0] == {
        "id": "b1",
        "type": "backtesting",
        "status": "busy",
        "current_operation": name,
        "health_failures": 0,
        "seen": True,
    }


async def test_deleted_operations_are_forgotten_by_their_workers_too(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    new = NewOperation(
        operation_id="op", operation_type=OperationType.BACKTESTING, spec=spec_of(OperationType.BACKTESTING)
    )
    await plane.store.submit(new, plane.clock.now())
    plane.backend.dispatcher.wake()
    await plane.until("op", "running")
    assert (await plane.ask("DELETE", "/api/v1/operations/op")).status == 409
    await plane.deliver(worker, "op")
    assert (await plane.ask("DELETE", "/api/v1/operations/op")).status == 204
    assert (await plane.deliver(worker, "op"))["acknowledged"]


async def test_the_ledger_remembers_workers(plane: ControlPlane, tmp_path: Path) -> None:
    await plane.join("w1")
    (record,) = await plane.store.workers()
    assert (record.worker_id, record.instance_id) == ("w1", "w1-1")


async def test_a_large_fleet_is_listed_whole_and_others_are_served_meanwhile(plane: ControlPlane) -> None:
    registry = plane.backend.registry
    for number in range(2_050):
        record = WorkerRecord(
            worker_id=f"w{number:04d}",
            worker_type=WorkerType.TRAINING if number % 2 else WorkerType.BACKTESTING,
            endpoint_url="http://127.0.0.1:9",
            instance_id="1",
            capabilities={},
            registered_at=plane.clock.now(),
        )
        registry.put(record)
    served = 0

    async def others() -> None:
        nonlocal served
        while True:
            await asyncio.sleep(0)
            served += 1

    meanwhile = asyncio.create_task(others())
    listed = await plane.api("GET", "/workers")
    training = await plane.api("GET", "/workers?worker_type=training&status=available")
    meanwhile.cancel()
    assert [worker["worker_id"] for worker in listed["workers"]] == [f"w{n:04d}" for n in range(2_050)]
    assert (listed["total"], training["total"]) == (2_050, 1_025)
    assert served >= 20, "two lists, each in steps of 200 workers"
    counted = await plane.api("GET", "/metrics/workers")
    assert (counted["total_workers"], counted["by_type"]) == (
        2_050,
        {"backtesting": 1_025, "training": 1_025},
    )


async def test_the_room_for_a_home_that_was_not_made_yet_is_told(tmp_path: Path) -> None:
    """As where the ledger is a file elsewhere."""
    plane = ControlPlane(tmp_path / "not" / "made")
    async with plane.running():
        assert (await plane.api("GET", "/metrics/workers"))["backend_disk_free"] > 0
        (tmp_path / "file").touch()
    plane.config = dataclasses.replace(plane.config, home=tmp_path / "file" / "below")
    async with plane.running():
        assert (await plane.api("GET", "/metrics/workers"))["backend_disk_free"] is None
