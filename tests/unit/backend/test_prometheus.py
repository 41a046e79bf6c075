"""The numbers for Prometheus: the format, what is counted, and that no series outlives its worker."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ktrdr.backend.app import create_app
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.telemetry.looplag import LoopWatch
from ktrdr.backend.telemetry.metrics import CONTENT_TYPE
from ktrdr.operations.model import OperationType
from ktrdr.protocol.transports import AsgiTransport
from support.control_plane import BACKEND, STILL, ControlPlane

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def _scrape(plane: ControlPlane, path: str = "/metrics") -> Samples:
    answer = await plane.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    found: Samples = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation, family.name
        assert family.type in ("gauge", "counter", "histogram"), family.name
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"twice: {key}"
            found[key] = sample.value
    return found


def _value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


async def test_workers_by_type_and_status(plane: ControlPlane) -> None:
    before = await _scrape(plane)
    assert _value(before, "ktrdr_workers_total", worker_type="training") == 0.0
    await plane.join("b1")
    b2 = await plane.join("b2")
    b3 = await plane.join("b3")
    await plane.join("t1", "training")
    await plane.api("POST", "/workers/b3/drain")
    plane.unplug(b2)
    for _ in range(STILL.health_failures):
        await plane.probe()
    name = await plane.submit()
    await plane.until(name, "running")
    samples = await _scrape(plane)
    shown = {
        state: _value(samples, f"ktrdr_workers_{state}", worker_type="backtesting")
        for state in ("total", "available", "busy", "draining", "unavailable")
    }
    assert shown == {"total": 3, "available": 0, "busy": 1, "draining": 1, "unavailable": 1}
    assert _value(samples, "ktrdr_workers_available", worker_type="training") == 1
    up = {w: _value(samples, "ktrdr_worker_up", worker_id=w, worker_type="backtesting") for w in ("b1", "b2")}
    assert up == {"b1": 1.0, "b2": 0.0}
    assert b3.worker_id == "b3"


async def test_both_paths_say_the_same(plane: ControlPlane) -> None:
    await plane.join("b1")
    root, below = await _scrape(plane), await _scrape(plane, "/api/v1/metrics/prometheus")
    changing = ("process_", "ktrdr_event_loop_")  # they move between two scrapes
    assert {k: v for k, v in root.items() if not k[0].startswith(changing)} == {
        k: v for k, v in below.items() if not k[0].startswith(changing)
    }


async def test_an_operation_is_counted_once_with_its_latency_and_duration(plane: ControlPlane) -> None:
    worker = await plane.join("b1")
    name = await plane.submit()  # the clock goes on by a millisecond here
    await plane.until(name, "running")
    plane.clock.advance(30.0)
    await plane.probe()  # one more sign of life is no second acceptance
    await plane.deliver(worker, name)
    await plane.deliver(worker, name)  # delivered twice, ended once
    samples = await _scrape(plane)
    kind = {"operation_type": "backtesting"}
    assert _value(samples, "ktrdr_operations", status="completed", **kind) == 1
    assert _value(samples, "ktrdr_operations", status="running", **kind) == 0
    assert _value(samples, "ktrdr_operations_finished_total", status="completed", **kind) == 1
    assert _value(samples, "ktrdr_operations_finished_total", status="failed", **kind) == 0
    assert _value(samples, "ktrdr_operation_dispatch_seconds_count", **kind) == 1
    assert _value(samples, "ktrdr_operation_dispatch_seconds_sum", **kind) == pytest.approx(0.001, abs=1e-4)
    assert _value(samples, "ktrdr_operation_duration_seconds_count", status="completed", **kind) == 1
    took = _value(samples, "ktrdr_operation_duration_seconds_sum", status="completed", **kind)
    assert took == pytest.approx(30.0, abs=0.01)


async def test_a_failure_and_a_cancel_before_the_start(plane: ControlPlane) -> None:
    worker = await plane.join("t1", "training")
    failing = await plane.submit(OperationType.TRAINING)
    await plane.until(failing, "running")
    waiting = await plane.submit(OperationType.TRAINING)
    await plane.api("POST", f"/operations/{waiting}/cancel")
    await plane.deliver(worker, failing, "failed", error="it broke")
    samples = await _scrape(plane)
    kind = {"operation_type": "training"}
    for status in ("failed", "cancelled"):
        assert _value(samples, "ktrdr_operations_finished_total", status=status, **kind) == 1
    assert _value(samples, "ktrdr_operation_duration_seconds_count", status="cancelled", **kind) == 0
    assert _value(samples, "ktrdr_operation_dispatch_seconds_count", **kind) == 1


async def test_what_a_worker_says_of_itself_goes_with_the_worker(plane: ControlPlane) -> None:
    worker = await plane.join("t1", "training")
    worker.extra = {
        "cpu": 12.5, "rss": 1000, "disk_free": 2000,
        "gpu": {"gpu": True, "gpu_type": "CUDA", "gpu_count": 2, "gpu_memory_gb": 8.0},
    }  # fmt: skip
    await plane.probe()
    samples = await _scrape(plane)
    me = {"worker_id": "t1", "worker_type": "training"}
    names = ("cpu_percent", "resident_memory_bytes", "disk_free_bytes", "gpu_memory_bytes")
    assert [_value(samples, f"ktrdr_worker_{n}", **me) for n in names] == [12.5, 1000, 2000, 16 * 2**30]
    worker.extra = {"gpu": {"gpu": True, "gpu_count": 1, "gpu_memory_gb": "much"}}
    await plane.probe()
    samples = await _scrape(plane)
    assert [_value(samples, f"ktrdr_worker_{n}", **me) for n in names] == [None] * 4
    await plane.api("DELETE", "/workers/t1")
    assert not [key for key in await _scrape(plane) if ("worker_id", "t1") in key[1]]


async def test_no_operation_has_series_of_its_own(plane: ControlPlane) -> None:
    worker = await plane.join("b1")
    sizes = []
    for _ in range(3):
        name = await plane.submit()
        await plane.until(name, "running")
        await plane.deliver(worker, name)
        sizes.append(len(await _scrape(plane)))
    assert len(set(sizes)) == 1


async def test_backends_of_one_process_do_not_share_numbers(plane: ControlPlane, tmp_path: Path) -> None:
    worker = await plane.join("b1")
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.deliver(worker, name)
    async with ControlPlane(tmp_path / "other").running() as other:
        samples = await _scrape(other)
        labels = {"operation_type": "backtesting", "status": "completed"}
        assert _value(samples, "ktrdr_operations_finished_total", **labels) == 0


@pytest.mark.parametrize("path", ["/metrics", "/api/v1/metrics/prometheus"])
async def test_a_token_is_needed_where_other_routes_need_one(plane: ControlPlane, path: str) -> None:
    config = BackendConfig(
        home=plane.config.home, api_token="api-word", worker_token="enrol-word", loopback_only=False
    )
    app = create_app(config, backend=plane.backend)
    app.state.backend = plane.backend
    transport = AsgiTransport({BACKEND: app})
    for word, status in (
        ("", 401),
        ("Bearer wrong", 401),
        ("Bearer enrol-word", 403),
        ("Bearer api-word", 200),
    ):
        headers = {"authorization": word} if word else {}
        assert (await transport.request("GET", BACKEND + path, headers=headers)).status == status


async def test_the_event_loops_lag_and_what_is_under_way(plane: ControlPlane) -> None:
    samples = await _scrape(plane)
    async with asyncio.timeout(30):
        while not _value(samples, "ktrdr_event_loop_lag_seconds_count"):
            await asyncio.sleep(0.05)
            samples = await _scrape(plane)
    assert (_value(samples, "ktrdr_event_loop_tasks") or 0) >= 5  # three loops, the watch, this test
    assert _value(samples, "ktrdr_event_loop_lag_max_seconds") is not None


async def test_the_largest_lag_is_remembered_for_a_minute() -> None:
    watch = LoopWatch()

    def worst() -> float:
        families = {family.name: family for family in watch.collect()}
        return float(families["ktrdr_event_loop_lag_max_seconds"].samples[0].value)

    watch.note(100.0, 0.3)
    watch.note(104.9, 0.1)
    assert worst() == 0.3
    for second in range(105, 155, 5):
        watch.note(float(second), 0.01)
    assert worst() == 0.3
    watch.note(155.0, 0.02)
    watch.note(160.0, 0.0)
    assert worst() == 0.02


CONTRACT = (
    "ktrdr_workers_total",
    "ktrdr_workers_available",
    "ktrdr_workers_busy",
    "ktrdr_workers_unavailable",
)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
async def test_prometheus_own_checker_has_no_complaint_but_one(plane: ControlPlane) -> None:
    worker = await plane.join("b1")
    worker.extra = {
        "cpu": 1.0,
        "rss": 1,
        "disk_free": 2,
        "gpu": {"gpu": True, "gpu_count": 1, "gpu_memory_gb": 8},
    }
    name = await plane.submit()
    await plane.until(name, "running")
    await plane.deliver(worker, name)
    await plane.probe()
    text = (await plane.ask("GET", "/metrics")).body
    for metric in CONTRACT:
        assert f"\n{metric}{{" in text.decode()
    done = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    # This gauge's name is part of the contract; 1 would mean that the text cannot be read.
    accepted = 'ktrdr_workers_total non-counter metrics should not have "_total" suffix\n'
    assert (done.returncode, done.stderr.decode()) == (3, accepted)
