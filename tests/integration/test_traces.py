"""A trace over real processes: backend and worker write into one, and a collector that is away costs nobody anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from ktrdr.tracing import attempt_place, operation_place
from support.chaos import Chaos, ended
from support.collector import collector
from support.ports import refusing_url
from support.processes import parts, wait_for

pytestmark = pytest.mark.integration


def test_backend_and_worker_write_one_trace(tmp_path: Path) -> None:
    with collector() as received, parts(tmp_path) as running:
        extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        chaos = Chaos(running, quick="late")
        running.backend(**extra)
        chaos.worker("w1", **extra)
        with running.api() as api:
            name = chaos.submit(api, "quick")
            ended(api, [name])
        root, attempt = operation_place(name), attempt_place(name, 1)
        backend = [("ktrdr-backend", part) for part in ("queue", "attempt", "backtesting")]
        worker = [("ktrdr-worker", part) for part in ("job", "deliver")]
        wait_for(lambda: {*backend, *worker} <= set(received.spans(root.trace_id)), "every span")
        spans = received.spans(root.trace_id)
        assert {spans[key].parent_span_id.hex() for key in worker} == {attempt.span_id}
        assert spans["ktrdr-backend", "attempt"].span_id.hex() == attempt.span_id
        assert spans["ktrdr-backend", "backtesting"].parent_span_id == b""
        whole, job = spans["ktrdr-backend", "backtesting"], spans["ktrdr-worker", "job"]
        assert whole.start_time_unix_nano <= job.start_time_unix_nano <= job.end_time_unix_nano


def test_a_collector_that_is_away_costs_nothing(tmp_path: Path) -> None:
    extra = {"OTEL_EXPORTER_OTLP_ENDPOINT": refusing_url(), "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with parts(tmp_path) as running:
        chaos = Chaos(running, quick="late")
        backend = running.backend(**extra)
        worker = chaos.worker("w1", **extra)
        with running.api() as api:
            names = [chaos.submit(api, "quick") for _ in range(3)]
            views = ended(api, names)
        assert {view["status"] for view in views.values()} == {"completed"}
        assert worker.stop() == 0
        assert backend.stop() == 0
