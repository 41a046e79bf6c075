"""What the backend remembers of running operations does not grow without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.progress import ProgressReader
from ktrdr.operations.events import Event, Reported
from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.operations.progress import Progress
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.settings import ControlSettings
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.fake_worker import FakeWorker
from ktrdr.testing.operations import operation_in
from support.control_plane import ControlPlane, settle


async def keep(operation: Operation, progress: Progress) -> Operation:
    return replace(operation, progress=progress)


async def test_operations_that_ended_during_a_poll_are_forgotten_at_last() -> None:
    clock = FakeClock()
    registry = WorkerRegistry(clock, ControlSettings(), "0")
    fleet = Fleet(AsgiTransport({}), None, 1.0, 1.0)
    reader = ProgressReader(registry, fleet, clock, 1.0, keep, remembered=3)
    running = operation_in(OperationStatus.RUNNING)
    for number in range(10):
        reader.forget(f"op_{number}")  # its end comes first, then the poll that had read it before
        await reader.known([replace(running, operation_id=f"op_{number}", progress=Progress(number, 10))])
    assert len(reader) == 3
    newest = replace(running, operation_id="op_9", progress=None)
    assert [view.items_done for view in await reader.known([newest])] == [9]


async def test_only_what_runs_is_remembered() -> None:
    clock = FakeClock()
    registry = WorkerRegistry(clock, ControlSettings(), "0")
    reader = ProgressReader(registry, Fleet(AsgiTransport({}), None, 1.0, 1.0), clock, 1.0, keep)
    running = [replace(operation_in(OperationStatus.RUNNING), operation_id=f"op_{n}") for n in range(4)]
    await reader.known([replace(operation, progress=Progress(5, 10)) for operation in running])
    reader.retain(running[2:])
    assert len(reader) == 2
    forgotten = [replace(operation, progress=None) for operation in running]
    assert [view.items_done for view in await reader.known(forgotten)] == [0, 0, 5, 5]


async def test_a_question_that_was_cancelled_before_it_was_asked_is_asked_again(plane: ControlPlane) -> None:
    """As when the lead changes hands in that moment."""
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.jobs[name].progress = {"items_done": 1, "items_total": 10, "percentage": 10.0}
    plane.clock.advance(2.0)
    polling = asyncio.create_task(plane.backend.operations.progress.read(await plane.store.get(name)))
    await asyncio.sleep(0)  # so that it has put the question, which has not begun
    await plane.backend.fleet.rest()
    assert (await polling).items_done == 0
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 1


async def test_however_many_poll_progress_is_recorded_once_in_a_period_and_unwatched_never(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    recorded: list[Event] = []
    apply = plane.store.apply

    async def counting(operation_id: str, event: Event, now: datetime, **more: Any) -> Any:
        recorded.append(event)
        return await apply(operation_id, event, now, **more)

    monkeypatch.setattr(plane.store, "apply", counting)
    for done in (10, 20, 30):
        plane.clock.advance(1.0)
        for further in (0, 5):  # the job goes on within the period
            reached = done + further
            worker.jobs[name].progress = {
                "items_done": reached,
                "items_total": 100,
                "percentage": float(reached),
            }
            views = await asyncio.gather(*(plane.api("GET", f"/operations/{name}") for _ in range(50)))
            assert {view["progress"]["items_done"] for view in views} == {done}
    assert [type(event) for event in recorded] == [Reported] * 3
    for _ in range(3):
        plane.clock.advance(1.0)
        await plane.probe()
    assert len(recorded) == 3


async def test_a_list_waits_for_no_worker(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    worker.gate.clear()
    plane.clock.advance(2.0)
    polling = asyncio.create_task(plane.api("GET", f"/operations/{name}"))
    await settle(_reads(worker), lambda reads: reads == 1)
    await plane.api("GET", "/operations")
    assert not polling.done(), "the poll waits for the worker, the list did not"
    worker.gate.set()
    await polling


def _reads(worker: FakeWorker) -> Callable[[], Awaitable[int]]:
    async def reads() -> int:
        return worker.reads

    return reads
