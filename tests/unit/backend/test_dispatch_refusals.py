"""Workers that refuse, cannot be reached or do not answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from support.control_plane import STILL, ControlPlane, calm, settle
from support.virtual import in_virtual_time


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
@in_virtual_time
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


@in_virtual_time
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


@in_virtual_time
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
