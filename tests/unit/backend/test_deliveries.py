"""What workers deliver: once, late, twice, from an older attempt, without its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.operations.model import OperationType
from ktrdr.operations.sql.ledger import SqlStore
from support.control_plane import ControlPlane, calm


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


@pytest.mark.parametrize("lost", ["child", "worker"])
async def test_what_a_worker_lost_goes_to_another_although_it_is_the_first_ones_turn(
    plane: ControlPlane, lost: str
) -> None:
    first, second = await plane.join("w1"), await plane.join("w2")
    name, other = await plane.submit(), await plane.submit()
    for operation in (name, other):
        await plane.until(operation, "running")
    assert (await plane.store.get(name)).worker_id == "w1"
    await plane.deliver(second, other)  # so w2 was chosen later than w1, and both will be free
    if lost == "child":
        await plane.deliver(first, name, "child_died", error="signal 9")
    else:
        first.restart()
        plane.plug(first)
        await plane.api("POST", "/workers/register", first.registration())
    await calm()
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.attempt, operation.failures) == ("w2", 2, 1)
