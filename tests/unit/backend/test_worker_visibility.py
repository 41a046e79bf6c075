"""Worker A cannot speak for worker B, with whatever it can know: B's id, instance id, endpoint, operation, attempt."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ktrdr.protocol.transports import Answer
from ktrdr.protocol.worker_key import HEADER, bind, call_credential, fingerprint_of, proves
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import ControlPlane

A, B = {HEADER: "a" * 64}, {HEADER: "b" * 64}


@pytest_asyncio.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    plane.config = dataclasses.replace(
        plane.config, api_token="bootstrap-word", worker_token="enrolment-word", loopback_only=False
    )
    async with plane.running():
        yield plane


async def ask(plane: ControlPlane, path: str, body: Any, key: dict[str, str]) -> Answer:
    headers = {"authorization": "Bearer enrolment-word", **key}
    return await plane.transport.request(
        "POST", f"http://127.0.0.1:8000/api/v1{path}", json=body, headers=headers
    )


async def join(plane: ControlPlane, worker: FakeWorker, key: dict[str, str], **changes: Any) -> Answer:
    return await ask(plane, "/workers/register", worker.registration(**changes), key)


def bound(plane: ControlPlane, worker_id: str, key: dict[str, str]) -> FakeWorker:
    worker = plane.machine(worker_id)
    worker.instance_id = bind(f"{worker_id}-1", key[HEADER])
    return worker


@pytest_asyncio.fixture
async def busy(plane: ControlPlane) -> tuple[FakeWorker, str]:
    """B, which runs an operation."""
    worker = bound(plane, "b", B)
    assert (await join(plane, worker, B)).status == 200
    name = await plane.submit()
    await plane.until(name, "running")
    return worker, name


@pytest.mark.parametrize("key", [A, {}, {HEADER: ""}, {HEADER: "B" * 64}])
async def test_a_cannot_report_as_b(
    plane: ControlPlane, busy: tuple[FakeWorker, str], key: dict[str, str]
) -> None:
    worker, name = busy
    report = worker.report(name, "completed")
    answer = await ask(plane, "/workers/b/report", report, key)
    assert answer.status == 403
    assert "not worker 'b'" in json.loads(answer.body)["detail"]
    assert await plane.status(name) == "running"
    assert (await ask(plane, "/workers/b/report", report, B)).status == 200
    assert await plane.status(name) == "completed"


async def test_a_cannot_finish_bs_operation_under_its_own_name(
    plane: ControlPlane, busy: tuple[FakeWorker, str]
) -> None:
    worker, name = busy
    mine = bound(plane, "a", A)
    assert (await join(plane, mine, A)).status == 200
    for status in ("completed", "failed", "cancelled", "released", "child_died"):
        digest = plane.put(b"what A would like to have said\n")
        delivery = worker.delivery(name, status, artifacts={"log": digest})
        worker.jobs[name].status = "running"
        report = {"instance_id": mine.instance_id, "worker_status": "idle", "delivery": delivery}
        assert (await ask(plane, "/workers/a/report", report, A)).status == 200  # taken note of, and ignored
        assert (await join(plane, mine, A, outbox=[delivery])).status == 200
        assert await plane.status(name) == "running"
        assert not list((plane.config.home / "job-logs").glob(f"{name}/*"))  # nor puts words into its log


async def test_a_cannot_register_as_b(plane: ControlPlane, busy: tuple[FakeWorker, str]) -> None:
    worker, name = busy
    there = plane.machine("b")  # another machine that says it is B
    there.instance_id = worker.instance_id
    assert (await join(plane, there, A)).status == 403
    assert (await join(plane, there, {})).status == 403
    there.instance_id = bind("b-2", A[HEADER])
    answer = await join(plane, there, A)
    assert answer.status == 409
    assert "in use by a live worker" in json.loads(answer.body)["detail"]
    there.instance_id = "b-3"  # bound to no key at all
    assert (await join(plane, there, {})).status == 409
    view = await plane.api("GET", "/workers/b", authorization="Bearer bootstrap-word")
    assert view["endpoint_url"] == worker.url
    assert await plane.status(name) == "running"


async def test_a_gets_the_id_of_a_worker_that_is_gone_and_none_of_its_results(
    plane: ControlPlane, busy: tuple[FakeWorker, str]
) -> None:
    worker, name = busy
    plane.unplug(worker)
    there = plane.machine("b")
    there.instance_id = bind("b-2", A[HEADER])
    answer = await join(plane, there, A)  # B may be back in a moment
    assert answer.status == 409
    assert "ktrdr workers forget b" in json.loads(answer.body)["detail"]
    for _ in range(plane.config.control.health_failures):
        await plane.probe()
    delivery = worker.delivery(name, "completed")
    worker.jobs[name].status = "running"
    assert (await join(plane, there, A, outbox=[delivery])).status == 200
    assert await plane.status(name) != "completed"
    plane.plug(worker)
    assert (await ask(plane, "/workers/b/report", worker.report(name, "completed"), B)).status == 403


async def test_b_itself_comes_back_as_another_incarnation_with_its_results(
    plane: ControlPlane, busy: tuple[FakeWorker, str]
) -> None:
    worker, name = busy
    delivery = worker.delivery(name, "completed")
    worker.instance_id = bind("b-2", B[HEADER])
    worker.jobs.clear()
    assert (await join(plane, worker, B, outbox=[delivery])).status == 200
    assert await plane.status(name) == "completed"


async def test_a_worker_token_reads_nothing_of_operations(
    plane: ControlPlane, busy: tuple[FakeWorker, str]
) -> None:
    _, name = busy
    for path in ("", "/spec", "/results", "/logs", "/metrics", "/events", "/results/trades"):
        answer = await plane.ask(
            "GET", f"/api/v1/operations/{name}{path}", authorization="Bearer enrolment-word", **A
        )
        assert answer.status == 403, path
    for method, path in (("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("POST", "/resume")):
        answer = await plane.ask(
            method, f"/api/v1/operations/{name}{path}", authorization="Bearer enrolment-word", **B
        )
        assert answer.status == 403, path


async def test_each_incarnation_is_shown_a_credential_of_its_own(plane: ControlPlane) -> None:
    seen = []
    for worker_id, key in (("a", A), ("b", B)):
        worker = bound(plane, worker_id, key)
        answer = json.loads((await join(plane, worker, key)).body)
        record = plane.backend.registry.get(worker_id).record
        assert answer["credential"] == plane.backend.fleet.credential(record)
        assert answer["credential"] not in ("bootstrap-word", "enrolment-word")
        seen.append(answer["credential"])
    assert seen[0] != seen[1]
    assert call_credential("s", "a", "1") != call_credential("s", "a", "2") != call_credential("t", "a", "2")


async def test_without_tokens_workers_are_told_no_credential(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path).running() as plane:
        worker = plane.machine("w")
        assert (await plane.api("POST", "/workers/register", worker.registration()))["credential"] is None


def test_an_instance_id_is_bound_to_its_key() -> None:
    instance = bind("1-2", "k")
    assert proves("k", instance)
    assert not proves("K", instance)
    assert not proves(None, instance)
    assert proves(None, "1-2")
    assert fingerprint_of("1-2") is None
    assert len(instance) <= 128
