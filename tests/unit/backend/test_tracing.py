"""Traces of operations: one for each, whole, with the attempts of every worker below it; none where nobody asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ktrdr.errors import InvalidSetting
from ktrdr.tracing import (
    OtelTraces,
    Place,
    Span,
    Traces,
    attempt_place,
    operation_place,
    traces_from_environment,
)
from support.control_plane import ControlPlane

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


class Traced(ControlPlane):
    """A control plane whose spans a test can read."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.exporter = InMemorySpanExporter()
        self.traces = OtelTraces(self.exporter, "ktrdr-backend", "1")

    def spans(self) -> dict[str, ReadableSpan]:
        """By name, those of attempts with their number."""
        self.traces._processor.force_flush()
        found: dict[str, ReadableSpan] = {}
        for span in self.exporter.get_finished_spans():
            attempt = (span.attributes or {})["ktrdr.attempt"]
            name = span.name if span.name in ("backtesting", "submit") else f"{span.name} {attempt}"
            assert name not in found, "recorded twice"
            found[name] = span
        return found


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    async with Traced(tmp_path).running() as plane:
        yield plane  # type: ignore[misc]


def _seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def test_an_operation_is_one_trace_with_a_span_for_each_part(traced: Traced) -> None:
    name = await traced.submit()
    traced.clock.advance(5.0)
    worker = await traced.join("w1")
    await traced.until(name, "running")
    traced.clock.advance(7.0)
    await traced.deliver(worker, name)
    spans = traced.spans()
    assert set(spans) == {"queue 1", "dispatch 1", "attempt 1", "backtesting"}
    root = operation_place(name)
    for span in spans.values():
        assert f"{span.context.trace_id:032x}" == root.trace_id
        assert (span.attributes or {})["ktrdr.operation_id"] == name
        assert span.status.is_ok
        assert span.resource.attributes["service.name"] == "ktrdr-backend"
        if span.name != "backtesting":
            assert span.parent is not None
            assert f"{span.parent.span_id:016x}" == root.span_id
    assert spans["backtesting"].parent is None
    assert f"{spans['attempt 1'].context.span_id:016x}" == attempt_place(name, 1).span_id
    assert _seconds(spans["queue 1"]) == pytest.approx(5.0, abs=0.1)
    assert _seconds(spans["attempt 1"]) == pytest.approx(7.0, abs=0.1)
    assert _seconds(spans["backtesting"]) == pytest.approx(12.0, abs=0.1)
    assert worker.starts[-1].traceparent == attempt_place(name, 1).traceparent


async def test_a_second_attempt_has_its_own_spans_and_says_why(traced: Traced) -> None:
    first = await traced.join("w1")
    name = await traced.submit()
    await traced.until(name, "running")
    await traced.deliver(first, name, "released")
    await traced.until(name, "running")
    await traced.deliver(first, name, "failed", error="division by zero")
    spans = traced.spans()
    assert set(spans) == {
        *("queue 1", "dispatch 1", "attempt 1", "queue 2", "dispatch 2", "attempt 2", "backtesting"),
    }
    assert spans["attempt 1"].status.description == "given back to the queue"
    assert spans["backtesting"].status.description == "division by zero"
    assert not spans["attempt 2"].status.is_ok


async def test_a_cancel_in_the_queue_is_a_trace_too(traced: Traced) -> None:
    name = await traced.submit()
    await traced.api("POST", f"/operations/{name}/cancel")
    await traced.api("POST", f"/operations/{name}/cancel")
    assert set(traced.spans()) == {"backtesting"}


async def test_nobody_is_told_of_a_trace_where_there_is_none(plane: ControlPlane) -> None:
    worker = await plane.join("w1")
    name = await plane.submit()
    await plane.until(name, "running")
    assert worker.starts[-1].traceparent is None


# --- the recorder -----------------------------------------------------------------------------------------------------


def test_headers_go_there_and_back() -> None:
    place = attempt_place("op_1", 3)
    assert Place.of(place.traceparent) == place
    assert place != attempt_place("op_1", 2)
    assert place.trace_id == operation_place("op_1").trace_id != operation_place("op_2").trace_id
    for wrong in (None, "", "00-x", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"):
        assert Place.of(wrong) is None


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}]
)
def test_off_unless_asked_for(environ: dict[str, str]) -> None:
    traces = traces_from_environment("x", "1", environ)
    assert type(traces) is Traces
    now = datetime(2026, 1, 1, tzinfo=UTC)
    traces.record(Span(name="x", place=operation_place("x"), parent=None, start=now, end=now))
    traces.close()


def test_other_protocols_are_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidSetting, match="http/protobuf"):
        traces_from_environment("x", "1", {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


def test_nothing_of_it_is_loaded_while_it_is_off() -> None:
    code = "import sys, json; import ktrdr.backend.server, ktrdr.workers.kinds; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = json.loads(done.stdout)  # FastAPI loads the bare interface by itself, where it is installed
    assert "ktrdr.tracing" in loaded
    assert not [name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
