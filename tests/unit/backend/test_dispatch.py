"""From pending to running: reservation, refusals, doubt, queueing, GPU first."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, OperationType
from support.control_plane import ControlPlane, calm, spec_of

TRAINING = OperationType.TRAINING


async def test_a_free_worker_gets_the_operation_and_it_runs(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    (start,) = worker.starts
    assert (start.task_id, start.attempt, start.lease_s) == (name, 1, 60.0)
    shown = await plane.api("GET", "/workers/w1")
    assert (shown["status"], shown["current_operation_id"]) == ("busy", name)
    assert shown["recent_operations"] == [name]
    assert shown["metadata"]["last_selected"] is not None


async def test_the_assignment_is_in_the_ledger_before_the_worker_hears_of_it(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.script = ["hang"]
    name = await plane.submit()
    await plane.until(name, "assigned")
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.instance_id, operation.attempt) == ("w1", "w1-1", 1)


async def test_five_operations_on_three_workers_all_complete(plane: ControlPlane) -> None:
    workers = [await plane.join(f"w{n}") for n in range(3)]
    names = [await plane.submit() for _ in range(5)]
    for _ in range(5):
        await calm()
        busy = next(w for w in workers if w.running)
        await plane.deliver(busy, busy.running or "")
    assert {str(await plane.status(name)) for name in names} == {"completed"}
    assert sum(len(w.starts) for w in workers) == 5
    assert all(w.starts for w in workers)


async def test_the_least_recently_selected_worker_is_next(plane: ControlPlane) -> None:
    workers = [await plane.join(f"w{n}") for n in range(3)]
    order = []
    for _ in range(6):
        name = await plane.submit()
        await plane.until(name, "running")
        worker = next(w for w in workers if w.running)
        order.append(worker.worker_id)
        await plane.deliver(worker, name)
    assert order == ["w0", "w1", "w2", "w0", "w1", "w2"]


async def test_gpu_workers_first_then_cpu_and_gpus_rotate(plane: ControlPlane) -> None:
    await plane.join("cpu", "training")
    gpus = [await plane.join(f"gpu{n}", "training", gpu=True) for n in range(2)]
    names = [await plane.submit(TRAINING, requirements={"prefer_gpu": True}) for _ in range(3)]
    for name in names:
        await plane.until(name, "running")
    assert [(await plane.store.get(name)).worker_id for name in names] == ["gpu0", "gpu1", "cpu"]
    assert [len(g.starts) for g in gpus] == [1, 1]


async def test_require_gpu_waits_for_a_gpu_though_a_cpu_is_free(plane: ControlPlane) -> None:
    cpu = await plane.join("cpu", "training")
    name = await plane.submit(TRAINING, requirements={"require_gpu": True})
    await calm()
    assert not cpu.starts
    shown = await plane.api("GET", f"/operations/{name}")
    assert (shown["status"], shown["queue_position"]) == ("pending", 1)
    assert shown["waiting_for"] == "no training worker with a GPU is registered and healthy"
    await plane.join("gpu", "training", gpu=True)
    await plane.until(name, "running")


async def test_a_busy_fleet_says_why_an_operation_waits(plane: ControlPlane) -> None:
    await plane.join("w1")
    await plane.until(await plane.submit(), "running")
    second, third = await plane.submit(), await plane.submit()
    await calm()
    shown = [await plane.api("GET", f"/operations/{name}") for name in (second, third)]
    assert [s["queue_position"] for s in shown] == [1, 2]
    assert {s["waiting_for"] for s in shown} == {"every backtesting worker is busy"}


async def test_what_the_dispatcher_has_not_seen_yet_waits_for_nobody(plane: ControlPlane) -> None:
    await plane.join("w1")
    new = NewOperation(
        operation_id="op-new",
        operation_type=OperationType.BACKTESTING,
        spec=spec_of(OperationType.BACKTESTING),
    )
    await plane.store.submit(new, plane.clock.now())
    shown = await plane.api("GET", "/operations/op-new")
    assert (shown["status"], shown["queue_position"], shown["waiting_for"]) == ("pending", 1, None)


async def test_what_a_worker_ran_outlives_restarts_and_the_worker(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    names = []
    for _ in range(12):
        names.insert(0, await plane.submit())
        await plane.until(names[0], "running")
        await plane.deliver(worker, names[0])
    assert (await plane.api("GET", "/workers/w1"))["recent_operations"] == names[:10]
    async with plane.running():
        shown = await plane.api("GET", "/workers/w1")
        assert shown["recent_operations"] == names[:10]
        await plane.api("DELETE", "/workers/w1")
        gone = await plane.ask("GET", "/api/v1/workers/w1")
        assert gone.status == 404
        where = "/operations?worker_id=w1"
        assert f"it was removed; what it ran: GET /api/v1{where}" in gone.json()["detail"]
        listed = await plane.api("GET", where)
        assert [o["operation_id"] for o in listed["operations"]] == names
        assert "removed" not in (await plane.ask("GET", "/api/v1/workers/w2")).json()["detail"]


async def test_workers_that_did_not_answer_are_not_called_busy(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    plane.unplug(worker)
    await plane.probe()
    shown = await plane.api("GET", f"/operations/{await plane.submit()}")
    assert shown["waiting_for"] == "no free backtesting worker has answered its last probe"


async def test_higher_priority_goes_first(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    first = await plane.submit()
    await plane.until(first, "running")
    await plane.submit()
    urgent = await plane.submit(priority=5)
    await plane.deliver(worker, first)
    await plane.until(urgent, "running")


async def test_a_spec_that_cannot_be_read_fails_the_operation(plane: ControlPlane) -> None:
    await plane.join("w1")
    new = NewOperation(operation_id="odd", operation_type=OperationType.BACKTESTING, spec=b'{"kind":"x"}')
    await plane.store.submit(new, plane.clock.now())
    plane.backend.dispatcher.wake()
    await plane.until("odd", "failed")


async def test_work_far_back_in_the_queue_is_found_for_a_free_worker_of_its_kind(plane: ControlPlane) -> None:
    for _ in range(70):
        await plane.submit()
    late = await plane.submit(TRAINING)
    await plane.join("t1", "training")
    await plane.until(late, "running")


async def test_of_work_that_no_free_worker_does_nothing_is_read(tmp_path: Path) -> None:
    """Else each pass would read a backlog of backtests from its beginning, to find a training behind it."""

    class Counting(MemoryStore):
        read = 0

        async def pending(self, *question):
            found = await super().pending(*question)
            self.read += len(found)
            return found

    store = Counting()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        for _ in range(70):
            await plane.submit()
        for _ in range(70):
            await plane.submit(TRAINING, requirements={"require_gpu": True})
        await plane.join("t1", "training")
        late = await plane.submit(TRAINING)
        await plane.until(late, "running")
        assert store.read <= 1


async def test_a_failing_pass_does_not_end_the_dispatcher(plane: ControlPlane) -> None:
    class Stumbling(MemoryStore):
        stumbles = 1

        async def pending(self, *question):
            if self.stumbles:
                self.stumbles -= 1
                raise RuntimeError("planted")
            return await super().pending(*question)

    other = ControlPlane(plane.config.home / "other", store=Stumbling())
    async with other.running():
        await other.join("w1")
        name = await other.submit()
        await other.until(name, "running")
    assert other.store.stumbles == 0


async def test_cancel_before_the_worker_hears_of_it(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.script = ["hang"]
    name = await plane.submit()
    await plane.until(name, "assigned")
    await asyncio.sleep(0)
    view = await plane.api("DELETE", f"/operations/{name}/cancel")
    assert view["status"] in ("cancelling", "cancelled")
    assert worker.cancels in ([], [(name, 1)])
