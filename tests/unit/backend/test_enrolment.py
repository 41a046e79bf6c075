"""Registration, reports, deliveries, draining."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from ktrdr.backend.config import LOOPBACK
from ktrdr.backend.endpoints import check_endpoint
from ktrdr.errors import InvalidInput, Unavailable
from ktrdr.operations.memory import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationType, WorkerRecord, WorkerType
from ktrdr.operations.sql import SqlStore
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


async def test_a_new_incarnation_delivers_what_the_old_one_finished(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    digest = plane.put(b"{}")
    delivery = worker.delivery(name, artifacts={"result": digest}, summary={"total_return": 0.1})
    worker.restart()
    answer = await plane.api("POST", "/workers/register", worker.registration(outbox=[delivery]))
    assert answer["acknowledged"] == [f"{name}:1"]
    operation = await plane.store.get(name)
    assert (str(operation.status), operation.attempt) == ("completed", 1)
    assert operation.summary == {"total_return": 0.1}
    assert operation.artifacts == {"result": digest}


async def test_an_outbox_entry_without_its_files_is_not_acknowledged(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    delivery = worker.delivery(name, artifacts={"result": "b" * 64})
    worker.jobs[name].status = "running"
    answer = await plane.api("POST", "/workers/register", worker.registration(outbox=[delivery]))
    assert answer["acknowledged"] == []
    assert str(await plane.status(name)) == "running"


async def test_a_report_whose_files_are_missing_is_to_be_repeated(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    body = worker.report(name, artifacts={"result": "b" * 64})
    answer = await plane.ask("POST", "/api/v1/workers/w1/report", body)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert str(await plane.status(name)) == "running"


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


async def test_a_delivery_frees_the_slot_at_once(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    first = await plane.submit()
    second = await plane.submit()
    await plane.until(first, "running")
    await plane.deliver(worker, first)
    await plane.until(second, "running")
    assert worker.probes == 1  # that of the registration: nobody waited for a probe


async def test_a_delivery_twice_is_acknowledged_twice_and_counts_once(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    assert (await plane.deliver(worker, name, summary={"x": 1}))["acknowledged"]
    assert (await plane.deliver(worker, name, summary={"x": 2}))["acknowledged"]
    assert (await plane.store.get(name)).summary == {"x": 1}


async def test_a_delivery_after_the_cancel_leaves_it_cancelled(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    view = await plane.api("DELETE", f"/operations/{name}/cancel")
    assert view["status"] == "cancelling"
    await calm()
    assert worker.cancels == [(name, 1)]
    await plane.deliver(worker, name, "completed")
    assert str(await plane.status(name)) == "cancelled"
    again = await plane.api("POST", f"/operations/{name}/cancel")
    assert again["status"] == "cancelled"


async def test_a_delivery_of_an_older_attempt_is_accepted_and_changes_nothing(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.restart()
    await plane.api("POST", "/workers/register", worker.registration())
    await plane.until(name, "running")
    body = worker.report()
    body["delivery"] = {"operation_id": name, "attempt": 1, "status": "completed"}
    assert (await plane.api("POST", "/workers/w1/report", body))["acknowledged"]
    assert str(await plane.status(name)) == "running"


async def test_a_delivery_of_an_unknown_operation_is_accepted(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    assert (await plane.deliver(worker, "by-hand"))["acknowledged"]


async def test_an_unknown_worker_is_told_to_register(plane: ControlPlane) -> None:
    worker = plane.machine("w1")
    answer = await plane.ask("POST", "/api/v1/workers/w1/report", worker.report("op"))
    assert answer.status == 404


async def test_a_released_operation_goes_to_another_worker_without_a_failure(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    other = await plane.join("w2")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.draining = True
    await plane.deliver(worker, name, "released")
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.attempt, operation.failures) == ("w2", 2, 0)
    assert other.running == name


async def test_a_killed_job_is_tried_once_more_on_another_worker(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    other = await plane.join("w2")
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.deliver(worker, name, "child_died", error="signal 9")
    await plane.until(name, "running")
    assert other.running == name
    await plane.deliver(other, name, "child_died", error="signal 9")
    operation = await plane.store.get(name)
    assert str(operation.status) == "failed"
    assert "signal 9" in (operation.error or "")


async def test_out_of_memory_fails_at_once(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.deliver(worker, name, "child_died", error="peak 3 GB", out_of_memory=True)
    operation = await plane.store.get(name)
    assert str(operation.status) == "failed"
    assert "out of memory" in (operation.error or "")


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
        await asyncio.gather(registering, draining)
        assert (await plane.api("GET", "/workers/w1"))["status"] == "draining"
        assert (await store.workers())[0].draining


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


async def test_an_end_that_could_not_be_read_again_is_refused_and_spoils_no_list(tmp_path: Path) -> None:
    store = SqlStore(tmp_path / "ledger.db")
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")
        deep: list = []
        for _ in range(300):
            deep = [deep]
        body = worker.report(name, summary={"x": deep})
        assert (await plane.ask("POST", "/api/v1/workers/w1/report", body)).status == 422
        odd = {"x": "\ud800", "\udfff": float("nan"), "n": 10**4000}
        last = {"message": "\ud800", "context": odd}
        await plane.deliver(worker, name, "failed", summary=odd, error="\ud800", progress=last)
        view = await plane.api("GET", f"/operations/{name}")
        assert (view["status"], view["error"], view["progress"]["message"]) == ("failed", "?", "?")
        assert (await plane.api("GET", "/operations"))["total"] == 1


async def test_a_worker_of_another_version_registers_and_gets_no_work(plane: ControlPlane) -> None:
    old = plane.machine("w1", version="7.0.0")
    answer = await plane.api("POST", "/workers/register", old.registration())
    assert "version 7.0.0" in answer["message"]
    name = await plane.submit()
    await calm()
    assert str(await plane.status(name)) == "pending"
    assert "version 7.0.0" in (await plane.api("GET", "/workers/w1"))["reason"]


async def test_a_finished_training_gives_a_model(plane: ControlPlane) -> None:
    worker = await plane.join("t1", "training")
    name = await plane.submit(OperationType.TRAINING)
    await plane.until(name, "running")
    bundle = plane.put(b"bundle")
    await plane.deliver(worker, name, artifacts={"model": bundle}, summary={"val_loss": 0.5})
    (model,) = (await plane.api("GET", "/models"))["items"]
    assert model["model_id"] == f"s-{bundle[:12]}"
    assert (model["operation_id"], model["metrics"]) == (name, {"val_loss": 0.5})
    assert (await plane.store.get(name)).summary == {"val_loss": 0.5, "model_id": model["model_id"]}
    assert (model["symbols"], model["timeframes"], model["bundle"]) == (["X"], ["1d"], bundle)


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
    assert metrics["by_status"] == {"busy": 1, "available": 1}
    assert metrics["by_type"] == {"backtesting": 1, "training": 1}
    assert metrics["workers"][0] == {
        "id": "b1",
        "type": "backtesting",
        "status": "busy",
        "current_operation": name,
        "health_failures": 0,
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


# --- endpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://127.0.0.1", "not an http"),
        ("http://", "not an http"),
        ("http://user:secret@127.0.0.1:5003", "user name or password"),
        ("http://127.0.0.1:5003/path", "must end after host and port"),
        ("http://127.0.0.1:5003?x=1", "must end after host and port"),
        ("http://127.0.0.1:99999", "is not a URL"),
        ("http://169.254.169.254", "outside the networks"),
        ("http://10.0.0.1:5003", "KTRDR_ALLOWED_WORKER_NETWORKS"),
        ("http://no-such-host.invalid:5003", "has no address"),
        ("http://[::ffff:10.0.0.1]:5003", "outside the networks"),
        ("http://2130706433.evil..:1", "neither a name nor an IP address"),
    ],
)
async def test_endpoints_that_are_refused(url: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        await check_endpoint(url, LOOPBACK)
    assert "secret" not in str(caught.value)


async def test_endpoints_that_are_accepted() -> None:
    assert await check_endpoint(" http://127.0.0.1:5003/ ", LOOPBACK) == "http://127.0.0.1:5003"
    assert await check_endpoint("https://localhost", LOOPBACK) == "https://localhost"
    assert await check_endpoint("http://[::1]:80", LOOPBACK) == "http://[::1]:80"
    ten = (ipaddress.ip_network("10.0.0.0/8"),)
    assert await check_endpoint("http://10.1.2.3:5003", ten) == "http://10.1.2.3:5003"


async def test_the_ledger_remembers_workers(plane: ControlPlane, tmp_path: Path) -> None:
    await plane.join("w1")
    (record,) = await plane.store.workers()
    assert (record.worker_id, record.instance_id) == ("w1", "w1-1")


# --- the ledger is away ---------------------------------------------------------------------------------------------


class Fallible(MemoryStore):
    """Refuses what is named in ``broken``."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()

    def _try(self, name: str) -> None:
        if name in self.broken:
            raise Unavailable("The ledger is away.")

    async def save_worker(self, worker: WorkerRecord) -> None:
        self._try("save_worker")
        await super().save_worker(worker)

    async def delete_worker(self, worker_id: str) -> None:
        self._try("delete_worker")
        await super().delete_worker(worker_id)

    async def live(self) -> Sequence[Operation]:
        self._try("live")
        return await super().live()


@pytest_asyncio.fixture
async def fallible(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, store=Fallible()).running() as running:
        yield running


async def test_a_drain_that_could_not_be_recorded_did_not_happen(fallible: ControlPlane) -> None:
    assert isinstance(fallible.store, Fallible)
    await fallible.join("w1")
    for route, status in (("drain", "available"), ("undrain", "draining")):
        fallible.store.broken = {"save_worker"}
        assert (await fallible.ask("POST", f"/api/v1/workers/w1/{route}")).status == 503
        assert (await fallible.api("GET", "/workers/w1"))["status"] == status
        fallible.store.broken = set()
        await fallible.api("POST", f"/workers/w1/{route}")


async def test_a_worker_that_could_not_be_forgotten_is_still_known(fallible: ControlPlane) -> None:
    assert isinstance(fallible.store, Fallible)
    await fallible.join("w1")
    fallible.store.broken = {"delete_worker"}
    assert (await fallible.ask("DELETE", "/api/v1/workers/w1")).status == 503
    assert (await fallible.api("GET", "/workers"))["total"] == 1
    fallible.store.broken = set()
    await fallible.api("DELETE", "/workers/w1")
    assert (await fallible.api("GET", "/workers"))["total"] == 0


async def test_a_restart_that_was_recorded_half_is_completed_by_the_next_registration(
    fallible: ControlPlane,
) -> None:
    assert isinstance(fallible.store, Fallible)
    worker = await fallible.join("w1")
    name = await fallible.submit()
    await fallible.until(name, "running")
    worker.restart()
    fallible.store.broken = {"live"}
    assert (await fallible.ask("POST", "/api/v1/workers/register", worker.registration())).status == 503
    fallible.store.broken = set()
    await fallible.api("POST", "/workers/register", worker.registration())
    await fallible.until(name, "running")
    operation = await fallible.store.get(name)
    assert (operation.attempt, operation.failures) == (2, 1), "at once, not when the lease ends"


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
