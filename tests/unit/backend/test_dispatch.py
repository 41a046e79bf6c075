"""From pending to running: reservation, refusals, doubt, queueing, GPU first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from ktrdr.errors import Unavailable
from ktrdr.operations.events import Assigned, CancelRequested, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationType
from ktrdr.operations.store import Claim
from ktrdr.testing.operations import a_worker
from support.control_plane import STILL, ControlPlane, calm, settle, spec_of

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


class SlowAssignments(MemoryStore):
    """Takes its time to write an assignment down."""

    def __init__(self) -> None:
        super().__init__()
        self.writing, self.gate = asyncio.Event(), asyncio.Event()

    async def apply(self, operation_id: str, event: Event, now: datetime, **saved: Any) -> Transition:
        if isinstance(event, Assigned):
            self.writing.set()
            await self.gate.wait()
        return await super().apply(operation_id, event, now, **saved)


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


class Spy(MemoryStore):
    """Notes down what is asked of it; answers as told that it is away, though it may have done the work."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.away: Literal["no", "done", "not done"] = "no"

    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        self.calls.append("submit" if assign is None else "submit and assign")
        if self.away == "not done":
            raise Unavailable("away")
        operation = await super().submit(new, now, assign=assign)
        if self.away == "done":
            raise Unavailable("away")
        return operation

    async def claim(self, claims: Sequence[Claim], now: datetime) -> Sequence[Transition | None]:
        self.calls.append(f"claim {len(claims)}")
        return await super().claim(claims, now)


def a_backtest(name: str, **more: Any) -> NewOperation:
    kind = OperationType.BACKTESTING
    return NewOperation(operation_id=name, operation_type=kind, spec=spec_of(kind), **more)


async def test_what_finds_a_free_worker_is_recorded_and_assigned_in_one_commit(tmp_path: Path) -> None:
    store = Spy()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        await calm()
        submit = plane.backend.dispatcher.submit
        first = await submit(a_backtest("op-a", idempotency_key="k"))
        assert (first.status, first.worker_id) == ("assigned", "w1")
        assert (await submit(a_backtest("op-b"))).status == "pending"
        await plane.until("op-a", "running")
        await plane.deliver(worker, "op-a")
        await plane.until("op-b", "running")
        assert store.calls == ["submit and assign", "submit", "claim 1"]
        lines = (await plane.ask("GET", "/metrics")).body.decode().splitlines()
        assert 'ktrdr_operation_dispatch_seconds_count{operation_type="backtesting"} 2.0' in lines


async def test_a_repeated_submission_frees_the_worker(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path).running() as plane:
        worker = await plane.join("w1")
        submit = plane.backend.dispatcher.submit
        await submit(a_backtest("op-a", idempotency_key="k"))
        await plane.until("op-a", "running")
        await plane.deliver(worker, "op-a")
        await calm()
        assert (await submit(a_backtest("op-b", idempotency_key="k"))).operation_id == "op-a"
        assert (await plane.api("GET", "/workers/w1"))["status"] == "available"
        assert [start.task_id for start in worker.starts] == ["op-a"]


async def test_a_submission_does_not_pass_the_queue(plane: ControlPlane) -> None:
    """It comes before the dispatcher has looked at what waits."""
    await plane.submit()
    await plane.join("w1")
    plane.backend.dispatcher.wake()
    assert (await plane.backend.dispatcher.submit(a_backtest("op-late"))).status == "pending"
    await plane.until("op-1", "running")
    assert await plane.status("op-late") == "pending"


async def test_a_pass_assigns_all_that_it_can_in_one_commit(tmp_path: Path) -> None:
    store = Spy()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await asyncio.gather(*(plane.submit() for _ in range(5)))
        for number in range(3):
            worker = plane.machine(f"w{number}")
            plane.backend.registry.put(
                a_worker(worker.worker_id, endpoint_url=worker.url, instance_id=worker.instance_id)
            )
        await settle(store.live, lambda live: len(live) == 0)
        plane.backend.dispatcher.wake()
        for number in range(3):
            await plane.until(f"op-{number + 1}", "running")
        assert store.calls[5:] == ["claim 3"]


@pytest.mark.parametrize("away", ["done", "not done"])
async def test_an_assignment_that_the_ledger_may_have_taken_is_looked_up(
    tmp_path: Path, away: Literal["done", "not done"]
) -> None:
    """Before anything else is given to its worker; and if it is there the worker hears of it, not only its lease."""
    store = Spy()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        await calm()
        store.away = away
        with pytest.raises(Unavailable):
            await plane.backend.dispatcher.submit(a_backtest("op-a"))
        store.away = "no"
        assert (await plane.api("GET", "/workers/w1"))["current_operation_id"] == "op-a"
        if away == "done":
            await plane.until("op-a", "running")
            assert [start.attempt for start in worker.starts] == [1]
        else:
            await plane.submit()
            await plane.until("op-1", "running")


async def test_a_submission_that_nobody_waits_for_any_more_runs_if_it_was_recorded(tmp_path: Path) -> None:
    class Slow(MemoryStore):
        recorded = False

        async def submit(
            self, new: NewOperation, now: datetime, *, assign: Assigned | None = None
        ) -> Operation:
            operation = await super().submit(new, now, assign=assign)
            self.recorded = True
            await asyncio.sleep(60)
            return operation

    store = Slow()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await plane.join("w1")
        await calm()
        asked = asyncio.create_task(plane.backend.dispatcher.submit(a_backtest("op-a")))
        await calm()
        assert store.recorded
        asked.cancel()
        await plane.until("op-a", "running")


async def test_a_worker_that_is_held_for_it_is_not_called_busy(tmp_path: Path) -> None:
    store = SlowAssignments()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        await plane.join("w1")
        name = await plane.submit()
        await store.writing.wait()
        first = await plane.api("GET", f"/operations/{name}")
        behind = await plane.api("GET", f"/operations/{await plane.submit()}")
        assert (first["status"], first["waiting_for"]) == ("pending", None)
        assert behind["waiting_for"] == "every backtesting worker is busy"
        store.gate.set()
        await plane.until(name, "running")


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


async def test_a_busy_answer_sends_it_to_another_worker_and_counts_no_failure(plane: ControlPlane) -> None:
    first = await plane.join("w1")
    first.script = ["busy"]
    await plane.join("w2")
    name = await plane.submit()
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.attempt, operation.failures) == ("w2", 2, 0)


async def test_the_count_of_refusals_ends_with_the_operation(plane: ControlPlane) -> None:
    """Whoever is refused and then cancelled is never accepted; its count must not stay for ever."""
    worker = await plane.join("w1")
    worker.script = ["busy"] * 3
    name = await plane.submit()
    await settle(lambda: plane.store.get(name), lambda o: o.not_before is not None)
    dispatcher = plane.backend.dispatcher
    assert dispatcher.refusals_of(name) == 3
    await plane.api("POST", f"/operations/{name}/cancel")
    assert await plane.status(name) == "cancelled"
    assert dispatcher.refusals_of(name) == 0


async def test_after_three_refusals_it_waits_and_is_tried_again(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.script = ["busy"] * 3
    name = await plane.submit()
    await plane.until(name, "pending")
    while (await plane.store.get(name)).not_before is None:
        await calm()
    shown = await plane.api("GET", f"/operations/{name}")
    assert shown["waiting_for"] == "workers refused it; it is tried again shortly"
    assert len(worker.starts) == 3
    plane.clock.advance(1.0)
    plane.backend.dispatcher.wake()
    await plane.until(name, "running")
    assert (await plane.store.get(name)).failures == 0


async def test_an_unreachable_worker_is_refused_no_route_and_passed_over(plane: ControlPlane) -> None:
    first = await plane.join("w1")
    await plane.join("w2")
    plane.unplug(first)
    name = await plane.submit()
    await plane.until(name, "running")
    operation = await plane.store.get(name)
    assert (operation.worker_id, operation.failures) == ("w2", 0)
    assert (await plane.api("GET", "/workers/w1"))["health_check_failures"] >= 1


@pytest.mark.parametrize("word", ["crash", "hang"])
async def test_without_an_answer_the_same_attempt_goes_to_the_same_worker_again(
    tmp_path: Path, word: str
) -> None:
    plane = ControlPlane(tmp_path, replace(STILL, http_timeout_s=0.05))
    async with plane.running():
        worker = await plane.join("w1")
        await plane.join("w2")
        worker.script = [word]
        name = await plane.submit()
        await plane.until(name, "running")
        operation = await plane.store.get(name)
        assert (operation.worker_id, operation.attempt) == ("w1", 1)
        assert [s.attempt for s in worker.starts] == [1, 1]
        assert any("outcome unknown" in line for line in operation.story)


async def test_after_a_request_without_an_answer_no_route_proves_nothing(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, replace(STILL, http_timeout_s=0.05))
    async with plane.running():
        worker = await plane.join("w1")
        await plane.join("w2")
        worker.script = ["hang"]
        name = await plane.submit()
        await plane.until(name, "assigned")
        await settle(_length(worker.starts), lambda count: count == 1)
        plane.unplug(worker)
        await asyncio.sleep(0.5)  # time enough for several vain attempts
        operation = await plane.store.get(name)
        assert (str(operation.status), operation.worker_id, operation.attempt) == ("assigned", "w1", 1)
        plane.plug(worker)
        await plane.until(name, "running")
        assert (await plane.store.get(name)).attempt == 1


async def test_a_job_the_worker_calls_wrong_fails_with_its_words(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.script = ["bad"]
    name = await plane.submit()
    await plane.until(name, "failed")
    assert "scripted: bad" in ((await plane.store.get(name)).error or "")


async def test_a_worker_that_saw_a_later_attempt_gets_a_later_one(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    worker.script = ["older"]
    name = await plane.submit()
    await plane.until(name, "running")
    assert [s.attempt for s in worker.starts] == [1, 2]


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


async def test_a_failing_pass_does_not_end_the_dispatcher(plane: ControlPlane) -> None:
    class Stumbling(MemoryStore):
        stumbles = 1

        async def pending(self, now, limit):
            if self.stumbles:
                self.stumbles -= 1
                raise RuntimeError("planted")
            return await super().pending(now, limit)

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


async def test_an_operation_that_was_deleted_since_the_queue_was_read_frees_its_reservation(
    tmp_path: Path,
) -> None:
    class Forgetful(MemoryStore):
        async def pending(self, now, limit):
            found = await super().pending(now, limit)
            for operation in found:
                if operation.operation_id == "op-1":
                    await self.apply("op-1", CancelRequested(), now)
                    await self.delete("op-1")
            return found

    plane = ControlPlane(tmp_path, store=Forgetful())
    async with plane.running():
        await plane.submit()
        await plane.join("w1")
        await calm()
        assert (await plane.api("GET", "/workers/w1"))["status"] == "available"
        await plane.until(await plane.submit(), "running")


async def test_a_ledger_that_fails_in_the_middle_frees_the_reservation(tmp_path: Path) -> None:
    class Failing(MemoryStore):
        broken = True

        async def apply(self, operation_id, event, now, **saved):
            if self.broken and isinstance(event, Assigned):
                self.broken = False
                raise OSError("disk full")
            return await super().apply(operation_id, event, now, **saved)

    plane = ControlPlane(tmp_path, store=Failing())
    async with plane.running():
        await plane.join("w1")
        name = await plane.submit()
        await plane.until(name, "running")  # a second later it is tried again
        assert (await plane.store.get(name)).attempt == 1


async def test_a_start_in_doubt_ends_when_the_operation_is_cancelled(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path, replace(STILL, http_timeout_s=0.02))
    async with plane.running():
        worker = await plane.join("w1")
        worker.script = ["hang"] * 100
        name = await plane.submit()
        await plane.until(name, "assigned")
        await settle(_length(worker.starts), lambda count: count >= 2)
        await plane.deliver(worker, name, "cancelled")
        await plane.until(name, "cancelled")
        sent = len(worker.starts)
        await asyncio.sleep(0.5)
        assert len(worker.starts) <= sent + 1


def _length(items: list):
    async def length() -> int:
        return len(items)

    return length
