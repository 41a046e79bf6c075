"""Operations over HTTP: views, progress on demand, waiting, events, results, metrics, logs."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from ktrdr.operations.model import OperationType
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import BACKEND, ControlPlane, calm, settle


async def _running(plane: ControlPlane) -> tuple[FakeWorker, str]:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    return worker, name


def _at(done: int) -> dict[str, Any]:
    return {"percentage": float(done), "items_done": done, "items_total": 100, "message": f"at {done}"}


# --- progress -------------------------------------------------------------------------------------------------------


async def test_a_poll_pulls_progress_once_per_ttl(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].progress = _at(10)
    for _ in range(5):
        assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 10
    assert worker.reads == 1
    worker.jobs[name].progress = _at(20)
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 10
    plane.clock.advance(1.0)
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 20
    assert worker.reads == 2


async def test_however_many_clients_poll_one_request_is_under_way(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.gate.clear()
    polls = [asyncio.create_task(plane.api("GET", f"/operations/{name}")) for _ in range(20)]
    await calm()
    worker.jobs[name].progress = _at(33)
    worker.gate.set()
    answers = await asyncio.gather(*polls)
    assert worker.reads == 1
    assert {a["progress"]["items_done"] for a in answers} == {33}


async def test_progress_never_goes_back_within_an_attempt(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    seen = []
    for done in (10, 40, 30, 50):
        worker.jobs[name].progress = _at(done)
        plane.clock.advance(2.0)
        seen.append((await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"])
    assert seen == [10, 40, 40, 50]


async def test_an_unreachable_worker_leaves_the_last_known_progress(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].progress = _at(10)
    await plane.api("GET", f"/operations/{name}")
    plane.unplug(worker)
    plane.clock.advance(2.0)
    view = await plane.api("GET", f"/operations/{name}")
    assert (view["status"], view["progress"]["items_done"]) == ("running", 10)


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_the_end_brings_the_last_progress_though_no_probe_saw_it(
    plane: ControlPlane, status: str
) -> None:
    worker, name = await _running(plane)
    context = {"epoch": 20, "val_loss": 0.5}
    last = {
        "percentage": 20.0,
        "items_done": 20,
        "items_total": 100,
        "message": "epoch 20",
        "context": context,
    }
    await plane.deliver(worker, name, status, progress=last)
    view = await plane.api("GET", f"/operations/{name}")
    progress = view["progress"]
    complete = status == "completed"
    assert (view["status"], progress["context"], progress["message"]) == (status, context, "epoch 20")
    assert (progress["items_done"], progress["items_total"]) == (20, 20 if complete else 100)
    assert progress["percentage"] == (100.0 if complete else 20.0)


async def test_progress_that_a_client_saw_does_not_go_back_at_the_end(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].progress = _at(80)
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 80
    await plane.deliver(worker, name, "failed", error="x", progress=_at(81))
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 81


async def test_a_new_attempt_starts_from_zero(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].progress = _at(80)
    await plane.api("GET", f"/operations/{name}")
    worker.restart()
    await plane.api("POST", "/workers/register", worker.registration())
    await plane.until(name, "running")
    assert (await plane.api("GET", f"/operations/{name}"))["progress"]["items_done"] == 0


async def test_lists_show_known_progress_without_asking(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].progress = _at(10)
    await plane.api("GET", f"/operations/{name}")
    plane.clock.advance(5.0)
    (view,) = (await plane.api("GET", "/operations?status=running&status=pending"))["operations"]
    assert view["progress"]["items_done"] == 10
    assert worker.reads == 1


async def test_a_completed_operation_is_at_100(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    await plane.deliver(worker, name, summary={"total_return": 0.5})
    view = await plane.api("GET", f"/operations/{name}")
    assert (view["status"], view["progress"]["percentage"]) == ("completed", 100.0)
    assert view["result_summary"] == {"total_return": 0.5}
    assert view["completed_at"] is not None
    assert view["story"]


# --- lists, ETags ---------------------------------------------------------------------------------------------------


async def test_pages_by_cursor(plane: ControlPlane) -> None:
    names = [await plane.submit() for _ in range(5)] + [await plane.submit(OperationType.TRAINING)]
    seen, cursor = [], ""
    while True:
        page = await plane.api("GET", f"/operations?limit=4{cursor}")
        assert page["total"] == 6
        seen += [o["operation_id"] for o in page["operations"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == names[::-1]
    page = await plane.api("GET", "/operations?operation_type=training")
    assert [o["operation_id"] for o in page["operations"]] == [names[-1]]
    assert (await plane.api("GET", "/operations?worker_id=w9"))["total"] == 0


async def test_an_unchanged_poll_is_304(plane: ControlPlane) -> None:
    name = await plane.submit()
    path = f"/api/v1/operations/{name}"
    first = await plane.ask("GET", path)
    same = await plane.ask("GET", path, if_none_match=first.headers["etag"])
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", first.headers["etag"])
    weak = await plane.ask("GET", path, if_none_match=f'"x", W/{first.headers["etag"]}')
    assert weak.status == 304
    await plane.api("DELETE", f"/operations/{name}/cancel")
    assert (await plane.ask("GET", path, if_none_match=first.headers["etag"])).status == 200


async def test_an_unknown_operation_is_404_on_every_route(plane: ControlPlane) -> None:
    for tail in ("", "/results", "/results/trades", "/metrics", "/logs", "/spec", "/events"):
        answer = await plane.ask("GET", f"/api/v1/operations/nothing{tail}")
        assert answer.status == 404, tail
    changes = (
        ("POST", "/cancel"),
        ("DELETE", "/cancel"),
        ("POST", "/retry"),
        ("POST", "/resume"),
        ("DELETE", ""),
    )
    for method, tail in changes:
        assert (await plane.ask(method, f"/api/v1/operations/nothing{tail}")).status == 404


# --- waiting and events ---------------------------------------------------------------------------------------------


async def test_wait_answers_at_the_end(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    waiting = asyncio.create_task(plane.api("GET", f"/operations/{name}?wait=60"))
    await calm()
    assert not waiting.done()
    await plane.deliver(worker, name)
    assert (await waiting)["status"] == "completed"


async def test_wait_with_an_etag_answers_at_the_first_change(plane: ControlPlane) -> None:
    name = await plane.submit()
    first = await plane.ask("GET", f"/api/v1/operations/{name}")
    asking = plane.ask("GET", f"/api/v1/operations/{name}?wait=60", if_none_match=first.headers["etag"])
    waiting = asyncio.create_task(asking)
    await calm()
    assert not waiting.done()
    await plane.join("w1")
    assert (await waiting).json()["status"] in ("assigned", "running", "pending")


async def test_wait_is_over_when_its_time_is(plane: ControlPlane) -> None:
    name = await plane.submit()
    waiting = asyncio.create_task(plane.api("GET", f"/operations/{name}?wait=5"))
    await calm()
    plane.clock.advance(6.0)
    assert (await asyncio.wait_for(waiting, 30))["status"] == "pending"


async def _events(plane: ControlPlane, name: str, **headers: str) -> tuple[int, list[dict[str, str]]]:
    answer = await plane.transport.request(
        "GET", f"{BACKEND}/api/v1/operations/{name}/events", headers=headers, timeout_s=60
    )
    blocks = [b for b in answer.body.decode().split("\n\n") if b and not b.startswith(":")]
    return answer.status, [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


async def test_events_tell_every_change_and_end_with_the_operation(plane: ControlPlane) -> None:
    name = await plane.submit()
    listening = asyncio.create_task(_events(plane, name))
    await calm()
    worker = await plane.join("w1")
    await plane.until(name, "running")
    await calm()
    await plane.deliver(worker, name)
    status, events = await listening
    told = [json.loads(e["data"])["status"] for e in events]
    assert (status, told[0], told[-1]) == (200, "pending", "completed")
    assert "running" in told
    assert {e["event"] for e in events} == {"operation"}
    assert len({e["id"] for e in events}) == len(events)
    again, _ = await _events(plane, name, **{"last-event-id": events[-1]["id"]})
    assert again == 204
    _, missed = await _events(plane, name, **{"last-event-id": events[0]["id"]})
    assert [json.loads(e["data"])["status"] for e in missed] == ["completed"]


async def test_events_end_when_the_backend_stops(plane: ControlPlane) -> None:
    name = await plane.submit()
    listening = asyncio.create_task(_events(plane, name))
    await calm()
    plane.backend.hub.close()
    status, events = await asyncio.wait_for(listening, 30)
    assert (status, len(events)) == (200, 1)


@pytest.mark.timeout(120)
async def test_a_quiet_stream_has_a_heartbeat(plane: ControlPlane) -> None:
    plane.backend.feeds.heartbeat_s = 0.01
    for patience_s in (0.3, 3.0, 30.0):  # a busy machine may stand still for a moment
        name = await plane.submit()
        url = f"{BACKEND}/api/v1/operations/{name}/events"
        listening = asyncio.create_task(plane.transport.request("GET", url, timeout_s=60))
        await asyncio.sleep(patience_s)
        await plane.api("POST", f"/operations/{name}/cancel")  # which ends the stream
        if b"\n: still here\n" in (await listening).body:
            return
    raise AssertionError("a stream was silent for 30 s")


# --- results --------------------------------------------------------------------------------------------------------


def _parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def _trades(rows: int = 3) -> pl.DataFrame:
    times = [datetime(2020, 1, 1 + n % 28, tzinfo=UTC) for n in range(rows)]
    return pl.DataFrame(
        {"entry_time": times, "net": [1.5, float("nan"), -2.0][:rows] * 1, "side": ["long"] * rows}
    )


async def _completed(plane: ControlPlane, **artifacts: bytes) -> str:
    worker, name = await _running(plane)
    digests = {key: plane.put(content) for key, content in artifacts.items()}
    await plane.deliver(worker, name, artifacts=digests, summary={"total_return": 0.1})
    return name


async def test_results_and_links(plane: ControlPlane) -> None:
    name = await _completed(plane, result=b'{"kind": "backtesting", "x": null}', trades=_parquet(_trades()))
    view = await plane.api("GET", f"/operations/{name}/results")
    assert view["result"] == {"kind": "backtesting", "x": None}
    assert view["result_summary"] == {"total_return": 0.1}
    assert view["links"]["trades"] == f"/api/v1/operations/{name}/results/trades"
    assert "equity" not in view["links"]


async def test_results_before_the_end_say_where_it_is(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    problem = (await plane.ask("GET", f"/api/v1/operations/{name}/results")).json()
    assert (problem["status"], "it is running" in problem["detail"]) == (409, True)
    await plane.deliver(worker, name, "failed", error="too hot")
    problem = (await plane.ask("GET", f"/api/v1/operations/{name}/results")).json()
    assert "ended failed: too hot" in problem["detail"]


async def test_trades_as_json_pages(plane: ControlPlane) -> None:
    name = await _completed(plane, trades=_parquet(_trades()))
    first = await plane.api("GET", f"/operations/{name}/results/trades?limit=2")
    assert (first["total"], first["columns"], first["next_cursor"]) == (3, ["entry_time", "net", "side"], "2")
    assert first["items"][0] == {"entry_time": "2020-01-01T00:00:00Z", "net": 1.5, "side": "long"}
    assert first["items"][1]["net"] is None
    second = await plane.api("GET", f"/operations/{name}/results/trades?limit=2&cursor=2")
    assert ([i["net"] for i in second["items"]], second["next_cursor"]) == ([-2.0], None)
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/results/trades?cursor=x")
    assert answer.status == 422
    absent = await plane.ask("GET", f"/api/v1/operations/{name}/results/equity")
    assert absent.status == 409
    assert absent.json()["detail"].endswith("has no equity: a backtesting operation has trades")
    nobody = await plane.ask("GET", "/api/v1/operations/op_x/results/equity")
    assert "'ktrdr operations list' shows what there is" in nobody.json()["detail"]
    assert (await plane.ask("GET", f"/api/v1/operations/{name}/results/other")).status == 422


@pytest.mark.parametrize("query", ["?format=csv", ""])
async def test_trades_as_csv(plane: ControlPlane, query: str) -> None:
    name = await _completed(plane, trades=_parquet(_trades()))
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/results/trades{query}", accept="text/csv")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = answer.body.decode().splitlines()
    assert lines[:2] == ["entry_time,net,side", "2020-01-01T00:00:00Z,1.5,long"]
    assert len(lines) == 4


async def test_a_table_without_rows_has_a_header(plane: ControlPlane) -> None:
    name = await _completed(plane, trades=_parquet(_trades().head(0)))
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/results/trades?format=csv")
    assert answer.body == b"entry_time,net,side\n"
    assert (await plane.api("GET", f"/operations/{name}/results/trades"))["items"] == []


async def test_a_long_table_is_sent_in_pieces(plane: ControlPlane) -> None:
    frame = pl.DataFrame({"equity": pl.Series(range(120_001), dtype=pl.Float64)})
    name = await _completed(plane, equity=_parquet(frame))
    answer = await plane.transport.request(
        "GET", f"{BACKEND}/api/v1/operations/{name}/results/equity?format=csv", timeout_s=60
    )
    assert answer.body.count(b"\n") == 120_002
    assert answer.body.count(b"equity") == 1


async def test_metrics_of_a_running_and_of_a_finished_operation(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs[name].records = [{"bar": n} for n in range(3)]
    live = await plane.api("GET", f"/operations/{name}/metrics?cursor=1")
    assert (live["bars"], live["next_cursor"]) == ([{"bar": 1}, {"bar": 2}], 3)
    lines = b"".join(json.dumps({"bar": n}).encode() + b"\n" for n in range(4))
    await plane.deliver(worker, name, artifacts={"metrics": plane.put(lines)})
    kept = await plane.api("GET", f"/operations/{name}/metrics?cursor=3")
    assert (kept["bars"], kept["epochs"], kept["next_cursor"]) == ([{"bar": 3}], None, 4)
    after = await plane.api("GET", f"/operations/{name}/metrics?cursor=4")
    assert (after["bars"], after["next_cursor"]) == ([], 4)


async def test_metrics_between_the_end_of_the_job_and_its_delivery(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs.clear()
    assert (await plane.api("GET", f"/operations/{name}/metrics?cursor=2"))["next_cursor"] == 2


async def test_metrics_of_a_training_are_epochs(plane: ControlPlane) -> None:
    name = await plane.submit(OperationType.TRAINING)
    assert (await plane.api("GET", f"/operations/{name}/metrics"))["epochs"] == []


async def test_logs(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    path = f"/api/v1/operations/{name}/logs"
    assert (await plane.ask("GET", path)).body == f"log of {name}\n".encode()
    plane.unplug(worker)
    assert (await plane.ask("GET", path)).body == f"log of {name}\n".encode()
    plane.plug(worker)
    await plane.deliver(worker, name, artifacts={"log": plane.put(b"the end")})
    answer = await plane.ask("GET", path)
    assert (answer.body, answer.headers["content-type"]) == (b"the end", "text/plain; charset=utf-8")


async def test_a_damaged_result_is_a_problem_and_no_garbage(plane: ControlPlane) -> None:
    name = await _completed(plane, result=b"{}")
    digest = (await plane.api("GET", f"/operations/{name}"))["artifacts"]["result"]
    plane.backend.artifacts.location(digest).write_bytes(b"{x}")
    answer = await plane.ask("GET", f"/api/v1/operations/{name}/results")
    assert (answer.status, answer.json()["type"]) == (500, "urn:ktrdr:problem:corrupt-artifact")


# --- cancel ---------------------------------------------------------------------------------------------------------


async def test_cancelling_what_waits_ends_it_at_once(plane: ControlPlane) -> None:
    name = await plane.submit()
    answer = await plane.ask("POST", f"/api/v1/operations/{name}/cancel")
    assert (answer.status, answer.json()["status"]) == (202, "cancelled")


async def test_cancelling_tells_the_worker_and_ends_with_its_report(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    assert (await plane.api("DELETE", f"/operations/{name}/cancel"))["status"] == "cancelling"
    await settle(_of(worker), lambda cancels: cancels == [(name, 1)])
    await plane.deliver(worker, name, "cancelled")
    assert str(await plane.status(name)) == "cancelled"


async def test_cancelling_what_the_worker_does_not_know_ends_it(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    worker.jobs.clear()
    await plane.api("DELETE", f"/operations/{name}/cancel")
    await plane.until(name, "cancelled")
    assert (await plane.api("GET", "/workers"))["workers"][0]["status"] == "available"


async def test_a_cancel_that_did_not_get_through_is_repeated_by_the_next_probe(plane: ControlPlane) -> None:
    worker, name = await _running(plane)
    plane.unplug(worker)
    await plane.api("DELETE", f"/operations/{name}/cancel")
    await calm()
    assert worker.cancels == []
    plane.plug(worker)
    await plane.probe()
    assert worker.cancels == [(name, 1)]


def _of(worker: FakeWorker):
    async def cancels() -> list:
        return worker.cancels

    return cancels
