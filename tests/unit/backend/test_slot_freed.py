"""An attempt ended in the ledger while the backend was told that nothing was written: the worker must become free again."""

from __future__ import annotations

import pytest

from ktrdr.operations.events import ChildDied
from support.control_plane import ControlPlane, calm


async def _ended_behind_its_back(plane: ControlPlane) -> tuple[str, str, str]:
    """Attempt 1 ended by a commit of unknown outcome, attempt 2 runs elsewhere; the operation and both workers."""
    for worker_id in ("w1", "w2"):
        await plane.join(worker_id)
    name = await plane.submit()
    await plane.until(name, "running")
    first = await plane.store.get(name)
    assert first.assignment is not None
    await plane.store.apply(name, ChildDied(first.assignment, "killed"), plane.clock.now())
    plane.backend.dispatcher.wake()
    await plane.until(name, "running")
    second = await plane.store.get(name)
    assert second.attempt == 2
    return name, str(first.worker_id), str(second.worker_id)


async def _status(plane: ControlPlane, worker_id: str) -> str:
    return str((await plane.api("GET", f"/workers/{worker_id}"))["status"])


async def test_by_the_repeated_delivery(plane: ControlPlane) -> None:
    name, former, present = await _ended_behind_its_back(plane)
    assert await _status(plane, former) == "busy"
    await plane.deliver(plane.workers[former], name, "child_died", error="killed")
    assert await _status(plane, former) == "available"
    assert await _status(plane, present) == "busy", "the attempt that counts keeps its worker"


@pytest.mark.parametrize("ended", [False, True])
async def test_by_a_probe_that_finds_it_idle(plane: ControlPlane, ended: bool) -> None:
    """Its delivery was acknowledged long ago, so that nothing but a probe will tell."""
    name, former, present = await _ended_behind_its_back(plane)
    plane.workers[former].jobs[name].status = "failed"
    if ended:
        await plane.deliver(plane.workers[present], name)
    await plane.probe()
    await calm()
    assert await _status(plane, former) == "available"
    assert await _status(plane, present) == ("available" if ended else "busy")
