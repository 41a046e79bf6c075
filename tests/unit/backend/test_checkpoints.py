"""Checkpoints at the backend: verified, recorded, handed to the next attempt, and removed when nobody needs them."""

from __future__ import annotations

from typing import Any

import pytest

from ktrdr.artifacts import sha256_of
from ktrdr.backend.operations.checkpoints import CheckpointFiles
from ktrdr.jobs.checkpoint import Checkpoint, checkpoint_owner
from ktrdr.operations.model import OperationType
from ktrdr.snapshot import Snapshot, pack
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import ControlPlane, settle

TRAINING = OperationType.TRAINING


def made(name: str, label: bytes, done: int = 1) -> bytes:
    """A checkpoint that a job of the operation ``name`` wrote."""
    return Checkpoint(
        format="training/1",
        spec_digest="0" * 64,
        operation_id=name,
        attempt=1,
        done=done,
        total=9,
        unit="epochs",
        metrics=(),
        snapshot=Snapshot({"label": label.decode()}),
    ).to_bytes()


def sha(name: str, label: bytes) -> str:
    return sha256_of(made(name, label))


async def tell(plane: ControlPlane, worker: FakeWorker, name: str, content: bytes | None, **more: Any) -> Any:
    """The worker uploads a checkpoint and tells of it; the answer."""
    operation = await plane.store.get(name)
    news: dict[str, Any] = {"operation_id": name, "attempt": operation.attempt, **more}
    if content is not None:
        news["digest"] = plane.put(made(name, content))
    body = worker.report() | {"worker_status": "busy", "checkpoint": news}
    return await plane.api("POST", f"/workers/{worker.worker_id}/report", body)


async def running(plane: ControlPlane, **more: Any) -> tuple[FakeWorker, str]:
    worker = await plane.join("t1", "training")
    name = await plane.submit(TRAINING, **more)
    await plane.until(name, "running")
    return worker, name


async def here(plane: ControlPlane, name: str, *labels: bytes) -> list[bool]:
    return [plane.backend.artifacts.has(sha(name, label)) for label in labels]


async def test_the_next_attempt_is_given_the_two_newest(plane: ControlPlane) -> None:
    worker, name = await running(plane)
    assert worker.starts[0].checkpoints is None
    for content in (b"one", b"two", b"three"):
        assert (await tell(plane, worker, name, content))["acknowledged"]
    view = await plane.api("GET", f"/operations/{name}")
    assert (view["status"], view["checkpoint_digest"]) == ("running", sha(name, b"three"))
    await settle(
        lambda: here(plane, name, b"one", b"two", b"three"), lambda found: found == [False, True, True]
    )
    await plane.deliver(worker, name, "released", checkpoint_digest=plane.put(made(name, b"four")))
    await plane.until(name, "running")
    assert worker.starts[1].checkpoints == [sha(name, b"four"), sha(name, b"three")]


async def test_news_that_overtake_each_other_cost_no_work(plane: ControlPlane) -> None:
    """A report that got no answer in time may be heard after the next one."""
    worker, name = await running(plane)
    late, newest = (plane.put(made(name, b"", done)) for done in (2, 7))
    for digest in (newest, late):
        news = {"operation_id": name, "attempt": 1, "digest": digest}
        body = worker.report() | {"worker_status": "busy", "checkpoint": news}
        await plane.api("POST", "/workers/t1/report", body)
    await plane.deliver(worker, name, "released")
    await plane.until(name, "running")
    assert worker.starts[1].checkpoints == [newest, late]


@pytest.mark.parametrize("damage", ["missing", "torn"])
async def test_one_whose_file_is_not_whole_is_not_recorded(plane: ControlPlane, damage: str) -> None:
    worker, name = await running(plane)
    digest = plane.put(b"whole")
    if damage == "torn":
        plane.backend.artifacts.location(digest).write_bytes(b"who")
    else:
        plane.backend.artifacts.delete(digest)
    for body in (
        {"checkpoint": {"operation_id": name, "attempt": 1, "digest": digest}},
        {"delivery": worker.delivery(name, "released", checkpoint_digest=digest)},
    ):
        answer = await plane.ask("POST", "/api/v1/workers/t1/report", worker.report() | body)
        assert answer.status == 503
        assert b"is not here" in answer.body
    view = await plane.api("GET", f"/operations/{name}")
    assert (view["status"], view["checkpoint_digest"]) == ("running", None)


async def test_notes_are_in_the_story_and_refused_ones_are_struck_out(plane: ControlPlane) -> None:
    worker, name = await running(plane)
    await tell(plane, worker, name, b"bad")
    bad = sha(name, b"bad")
    await tell(
        plane, worker, name, None, refused=[bad], notes=["checkpoint skipped: torn", "goes on after 2"]
    )
    view = await plane.api("GET", f"/operations/{name}")
    assert view["checkpoint_digest"] is None
    assert [line.partition(" ")[2] for line in view["story"][-2:]] == [
        "attempt 1: checkpoint skipped: torn",
        "attempt 1: goes on after 2",
    ]
    await settle(lambda: here(plane, name, b"bad"), lambda found: found == [False])


async def test_an_outdated_attempt_is_told_to_stop_and_its_file_goes(plane: ControlPlane) -> None:
    worker, name = await running(plane)
    answer = await tell(plane, worker, name, b"old", attempt=7)
    assert answer["stop"] == [name]
    assert (await plane.store.get(name)).checkpoints == ()
    await settle(lambda: here(plane, name, b"old"), lambda found: found == [False])


async def test_an_operation_that_nobody_knows_is_to_stop(plane: ControlPlane) -> None:
    worker, name = await running(plane)
    body = worker.report() | {"checkpoint": {"operation_id": "gone", "attempt": 1, "notes": ["x"]}}
    assert (await plane.api("POST", "/workers/t1/report", body))["stop"] == ["gone"]
    assert (await plane.store.get(name)).status == "running"


@pytest.mark.parametrize(("status", "kept"), [("completed", False), ("failed", True), ("cancelled", True)])
async def test_files_go_with_completion_and_stay_otherwise(
    plane: ControlPlane, status: str, kept: bool
) -> None:
    worker, name = await running(plane)
    await tell(plane, worker, name, b"one")
    await tell(plane, worker, name, b"two")
    await plane.deliver(worker, name, status)
    await settle(lambda: here(plane, name, b"one", b"two"), lambda found: found == [kept, kept])
    assert len((await plane.store.get(name)).checkpoints) == (2 if kept else 0)


async def test_what_the_parent_needs_stays(plane: ControlPlane) -> None:
    """A resumed operation begins with its parent's checkpoints; they are still the parent's afterwards."""
    worker, parent = await running(plane)
    await tell(plane, worker, parent, b"shared")
    await plane.deliver(worker, parent, "cancelled")
    shared = sha(parent, b"shared")
    name = await plane.submit(TRAINING, parent_operation_id=parent, checkpoints=(shared,))
    await plane.until(name, "running")
    assert worker.starts[-1].checkpoints == [shared]
    await tell(plane, worker, name, b"own")
    await plane.deliver(worker, name)
    await settle(lambda: here(plane, name, b"own"), lambda found: found == [False])
    assert await here(plane, parent, b"shared") == [True]


async def test_nothing_but_own_checkpoints_is_removed(plane: ControlPlane) -> None:
    """Whatever a worker calls a checkpoint: a model, another operation's checkpoint, a file that is none."""
    worker, name = await running(plane)
    alien = [
        plane.put(made("another", b"x")),
        plane.put(b"a model"),
        plane.put(pack(Snapshot({"checkpoint": [1]}))),
    ]
    for attempt in (1, 7):
        for digest in alien:
            news = {"operation_id": name, "attempt": attempt, "digest": digest}
            await plane.api("POST", "/workers/t1/report", worker.report() | {"checkpoint": news})
    await tell(plane, worker, name, b"own")
    await plane.deliver(worker, name)
    await settle(lambda: here(plane, name, b"own"), lambda found: found == [False])
    files = CheckpointFiles(plane.store, plane.backend.artifacts)
    await files.drop(name, [*alien, "f" * 64])
    await files.drop("deleted", alien)
    assert [plane.backend.artifacts.has(digest) for digest in alien] == [True, True, True]
    owners = [checkpoint_owner(plane.backend.artifacts.location(digest)) for digest in alien]
    assert owners == ["another", None, None]


# --- resume -----------------------------------------------------------------------------------------------------------


async def ended(plane: ControlPlane, status: str, *contents: bytes) -> tuple[FakeWorker, str]:
    """A training of the real submit path that ended like this, having stored checkpoints."""
    worker = plane.workers["t1"]
    name = (await plane.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await plane.until(name, "running")
    for content in contents:
        await tell(plane, worker, name, content)
    await plane.deliver(worker, name, status)
    return worker, name


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_a_resumed_operation_is_a_new_one_that_goes_on(stocked: ControlPlane, status: str) -> None:
    worker, first = await ended(stocked, status, b"one", b"two")
    answer = await stocked.api("POST", f"/operations/{first}/resume")
    name = answer["operation_id"]
    assert (answer["parent_operation_id"], name == first) == (first, False)
    await stocked.until(name, "running")
    start = worker.starts[-1]
    assert (start.task_id, start.attempt) == (name, 1)
    assert start.checkpoints == [sha(first, b"two"), sha(first, b"one")]
    assert start.spec == worker.starts[0].spec
    await stocked.deliver(worker, name)
    view = await stocked.api("GET", f"/operations/{first}")
    assert (view["status"], view["checkpoint_digest"]) == (status, sha(first, b"two"))
    assert await here(stocked, first, b"one", b"two") == [True, True]


async def test_a_cancel_brings_the_checkpoint_to_resume_from(stocked: ControlPlane) -> None:
    worker = stocked.workers["t1"]
    name = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await stocked.until(name, "running")
    await stocked.api("POST", f"/operations/{name}/cancel")
    await stocked.deliver(worker, name, "cancelled", checkpoint_digest=stocked.put(b"at the end"))
    again = (await stocked.api("POST", f"/operations/{name}/resume"))["operation_id"]
    await stocked.until(again, "running")
    assert worker.starts[-1].checkpoints == [sha256_of(b"at the end")]


async def test_only_what_is_whole_is_handed_on(stocked: ControlPlane) -> None:
    worker, first = await ended(stocked, "failed", b"one", b"two")
    stocked.backend.artifacts.location(sha(first, b"two")).write_bytes(b"tw")
    name = (await stocked.api("POST", f"/operations/{first}/resume"))["operation_id"]
    await stocked.until(name, "running")
    assert worker.starts[-1].checkpoints == [sha(first, b"one")]
    stocked.backend.artifacts.delete(sha(first, b"one"))
    answer = await stocked.ask("POST", f"/api/v1/operations/{first}/resume")
    assert answer.status == 409
    assert answer.json()["detail"] == (
        f"The checkpoints of operation {first} are damaged or gone. Run it from its start: ktrdr operations retry {first}"
    )


async def test_a_resume_that_is_repeated_is_what_it_became_though_its_checkpoints_are_gone(
    stocked: ControlPlane,
) -> None:
    _, first = await ended(stocked, "failed", b"one")
    path = f"/api/v1/operations/{first}/resume"
    name = (await stocked.ask("POST", path, Idempotency_Key="resume-1")).json()["operation_id"]
    stocked.backend.artifacts.delete(sha(first, b"one"))
    again = await stocked.ask("POST", path, Idempotency_Key="resume-1")
    assert (again.status, again.json().get("operation_id")) == (202, name)
    other = await stocked.ask("POST", path, Idempotency_Key="resume-2")
    assert other.status == 409


async def test_without_a_checkpoint_it_says_to_retry(stocked: ControlPlane) -> None:
    _, name = await ended(stocked, "failed")
    answer = await stocked.ask("POST", f"/api/v1/operations/{name}/resume")
    assert answer.status == 409
    assert answer.json()["detail"] == (
        f"Operation {name} has no checkpoint: it ended before one was written. "
        f"Run it from its start: ktrdr operations retry {name}"
    )


async def test_what_runs_or_is_completed_cannot_be_resumed(stocked: ControlPlane) -> None:
    worker = stocked.workers["t1"]
    name = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await stocked.until(name, "running")
    await tell(stocked, worker, name, b"one")
    for status in ("running", "completed"):
        if status == "completed":
            await stocked.deliver(worker, name)
        answer = await stocked.ask("POST", f"/api/v1/operations/{name}/resume")
        assert answer.status == 409
        assert answer.json()["detail"] == (
            f"Operation {name} is {status}; only a failed or cancelled one can be resumed."
        )


async def test_a_resume_that_is_repeated_under_its_key_is_one_operation(stocked: ControlPlane) -> None:
    _, first = await ended(stocked, "cancelled", b"one")
    path = f"/api/v1/operations/{first}/resume"
    answers = [await stocked.ask("POST", path, idempotency_key="k") for _ in range(2)]
    assert len({answer.json()["operation_id"] for answer in answers}) == 1


async def test_news_of_a_checkpoint_do_not_renew_the_lease(stocked: ControlPlane) -> None:
    """The backend hears the worker and does not reach it, so it could not tell it to stop."""
    worker = stocked.workers["t1"]
    name = (await stocked.api("POST", "/trainings/start", {"strategy_name": "sp500_trend"}))["operation_id"]
    await stocked.until(name, "running")
    stocked.clock.advance(50.0)
    assert (await tell(stocked, worker, name, b"one"))["stop"] == []
    stocked.clock.advance(11.0)
    stocked.unplug(worker)
    await stocked.backend.health.sweep()
    assert str(await stocked.status(name)) == "pending"
    assert (await stocked.store.get(name)).checkpoints == (sha(name, b"one"),)
