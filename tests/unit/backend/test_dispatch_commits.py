"""Which commits a dispatch takes, and what happens when one fails or its end is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from ktrdr.errors import Unavailable
from ktrdr.operations.events import Assigned, CancelRequested, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, Operation, OperationType
from ktrdr.operations.store import Claim
from ktrdr.testing.operations import a_worker
from support.control_plane import ControlPlane, calm, settle, spec_of


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


async def test_what_was_assigned_to_an_incarnation_that_is_gone_is_not_sent_to_the_next(
    tmp_path: Path,
) -> None:
    """What it does would not count: it would be told to stop, and the operation would end as cancelled."""
    store = SlowAssignments()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await store.writing.wait()
        worker.restart()
        await plane.api("POST", "/workers/register", worker.registration())
        store.gate.set()
        await plane.until(name, "running")
        operation = await store.get(name)
        assert (operation.attempt, operation.failures, operation.instance_id) == (2, 0, "w1-2")
        assert [start.attempt for start in worker.starts] == [2]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_start_that_meets_the_next_incarnation_before_it_has_registered_is_refused_by_it(
    tmp_path: Path, begun: bool
) -> None:
    """What it did would not count, it would be told to stop, and the operation would end as cancelled. If the one
    before may have begun it, it may be what killed it, and counts as a failure."""
    store = SlowAssignments()
    async with ControlPlane(tmp_path, store=store).running() as plane:
        worker = await plane.join("w1")
        name = await plane.submit()
        await store.writing.wait()
        if begun:
            worker.script.append("crash")  # an answer that leaves open whether it took the job
        else:
            worker.restart()
        store.gate.set()
        if begun:
            await settle(lambda: store.get(name), lambda _: bool(worker.starts))
            worker.restart()
        await settle(lambda: store.get(name), lambda operation: operation.status == "pending")
        assert worker.running is None
        await plane.api("POST", "/workers/register", worker.registration())
        await plane.until(name, "running")
        operation = await store.get(name)
        assert (operation.failures, operation.instance_id) == (int(begun), "w1-2")
        assert not [line for line in operation.story if "cancel" in str(line)]


async def test_a_worker_that_does_not_know_the_credential_costs_nobody_an_operation(tmp_path: Path) -> None:
    """It was made for the incarnation before."""
    async with ControlPlane(tmp_path).running() as plane:
        worker = await plane.join("w1")
        worker.script.append("stranger")
        name = await plane.submit()
        await plane.until(name, "running")
        operation = await plane.api("GET", f"/operations/{name}")
        assert (operation["attempt"], operation["failures"]) == (2, 0)


async def test_an_operation_that_was_deleted_since_the_queue_was_read_frees_its_reservation(
    tmp_path: Path,
) -> None:
    class Forgetful(MemoryStore):
        async def pending(self, now, *question):
            found = await super().pending(now, *question)
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
