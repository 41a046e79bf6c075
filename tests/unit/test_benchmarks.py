"""The benchmarks work: every measuring function at a tiny size, the table, the exit code, the measured times."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.append(
    str(Path(__file__).resolve().parents[2] / "benchmarks")
)  # as when they are run: scripts side by side

import bench_control
import run
from support.processes import unmeasured
from table import Failure, Row, render

BENCHMARKS = run.HERE
NEEDS_A_FLEET = "bench_control"  # tests/integration runs it


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=unmeasured(),
    )


def test_every_benchmark_there_is_can_be_run() -> None:
    named = {name for name in (*run.MODULES, *run.CONTROL) if name.startswith("bench_")}
    assert named == {path.stem for path in BENCHMARKS.glob("bench_*.py")}


# those of run.CONTROL are measured too rarely for a baseline; the others of them need a fleet
@pytest.mark.parametrize("module", sorted({*run.MODULES, "bench_ledger"} - {NEEDS_A_FLEET}))
def test_a_benchmark_works_at_a_tiny_size(module: str, tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    ended = bench(module, "--tiny", "--json", str(found))
    assert ended.returncode == 0, ended.stderr
    rows = [Row(**fields) for fields in json.loads(found.read_text())]
    assert rows
    for row in rows:
        assert row.what in ended.stdout
        assert math.isfinite(row.measured)
        assert row.cpu_s is None or row.cpu_s > 0
        if module in run.MODULES:
            assert row.key in run.read_baseline(run.BASELINE), "record it: python benchmarks/run.py --record"


def test_a_broken_benchmark_is_a_row_and_the_exit_code_a_missed_target_is_not() -> None:
    broken = bench("no_such_benchmark", "--tiny")
    assert broken.returncode == 1
    assert re.search(r"no_such_benchmark .*ERROR.*ModuleNotFoundError", broken.stdout)
    missed = [row(measured=2.0, target=1.0)]
    assert run.verdict(missed) == "0 of 1 targets met"
    assert run.exit_code(missed) == 0
    assert run.exit_code([*missed, Failure("x", "why")]) == 1


def test_a_benchmark_that_hangs_is_ended() -> None:
    [hung] = run.measure("bench_training", tiny=True, limit_s=0.2)
    assert hung == Failure("bench_training", "did not end within 0 s")


def test_tiny_figures_are_not_recorded() -> None:
    refused = bench("--tiny", "--record")
    assert refused.returncode == 2
    assert "--record" in refused.stderr


# --- the table ----------------------------------------------------------------------------------------------------


def row(**fields: Any) -> Row:
    return Row(**{"key": "k", "what": "something", "measured": 1.0, "unit": "ms"} | fields)


@pytest.mark.parametrize(
    ("measured", "target", "better", "strict", "met"),
    [
        (1.0, 2.0, "lower", False, True),
        (3.0, 2.0, "lower", False, False),
        (2.0, 2.0, "lower", False, True),
        (2.0, 2.0, "lower", True, False),
        (3.0, 2.0, "higher", False, True),
        (1.0, 2.0, "higher", False, False),
        (2.0, 2.0, "higher", False, True),
        (2.0, None, "lower", False, None),
    ],
)
def test_whether_a_target_is_met(
    measured: float, target: float | None, better: str, strict: bool, met: bool | None
) -> None:
    assert row(measured=measured, target=target, better=better, strict=strict).met is met


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table() -> None:
    rows: Sequence[Row | Failure] = [
        row(target=0.5, strict=True, cpu_s=0.25, wall_s=7.0, note="a | b"),
        row(key="fast", measured=123_456_789.0, unit="bars/s", target=1e8, better="higher"),
        Failure("bench_x", "a | b\nc"),
    ]
    header, rule, first, second, third = render(rows, {"fast": 100_000_000.0}).splitlines()
    assert cells(header) == ["what", "target", "measured", "met?", "CPU s", "wall s", "vs baseline", "notes"]
    assert set(rule) <= set("|-: ")
    assert cells(first) == ["something", "< 0.5 ms", "1 ms", "NO", "0.25", "7", "-", "a / b"]
    assert cells(second)[1:7] == [">= 100,000,000 bars/s", "123,456,789 bars/s", "yes", "-", "-", "1.23"]
    assert cells(third) == ["bench_x", "-", "ERROR", "no", "-", "-", "-", "a / b c"]
    assert len({len(line) for line in (header, rule, first, second, third)}) == 1


def test_recording_keeps_rows_that_were_not_measured(tmp_path: Path) -> None:
    path, now = tmp_path / "baseline.json", run.datetime(2026, 1, 2, tzinfo=run.UTC)
    assert run.read_baseline(path) == {}
    run.record(path, [row(key="a", measured=1.23456), row(key="b")], now)
    run.record(path, [row(key="b", measured=7.0), Failure("x", "y")], now)
    assert run.read_baseline(path) == {"a": 1.235, "b": 7.0}
    assert json.loads(path.read_text())["recorded"] == "2026-01-02"


# --- times of the control plane, against a scripted backend ---------------------------------------------------------


class Scripted(BaseHTTPRequestHandler):
    """Answers GETs with ``statuses`` one after the other, the last one for ever; POSTs start operation ``op``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    statuses: Sequence[str] = ("completed",)
    asked = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).asked = 0
        self.answer(202, {"operation_id": "op"})

    def do_GET(self) -> None:
        status = self.statuses[min(type(self).asked, len(self.statuses) - 1)]
        type(self).asked += 1
        body = {"operation_id": "op", "status": status, "error": "why"}
        self.answer(200, body | {"started_at": "2100-01-01T00:00:00Z"})

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def backend(*statuses: str) -> Iterator[bench_control.Wire]:
    handler = type("Handler", (Scripted,), {"statuses": statuses})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        wire = bench_control.Wire(f"http://127.0.0.1:{server.server_port}")
        try:
            yield wire
        finally:
            wire.close()
            server.shutdown()
            thread.join()


def test_starts_are_timed_to_acceptance_and_to_visibility() -> None:
    spent = iter((10.0, 12.0))
    with backend("pending", "assigned", "running", "completed") as wire:
        times = bench_control.start_times(wire, {}, 1, lambda: next(spent), warm=0)
    assert times.cpu_s == 1.0  # of two starts, one of them watched
    assert {name: len(values) for name, values in times.ms.items()} == {
        "answered": 2,
        "accepted": 1,
        "visible": 1,
    }
    assert times.p("accepted", 0.5) > 1e12  # the ledger's stamp less our clock, far in the future here
    assert times.p("visible", 0.5) >= min(times.ms["answered"])


def test_a_start_that_fails_is_no_measurement() -> None:
    with backend("running", "failed") as wire, pytest.raises(RuntimeError, match="op is failed: why"):
        bench_control.start_times(wire, {}, 1, lambda: 0.0, warm=0)


def test_only_a_running_operation_counts_as_running() -> None:
    with backend("running", "running", "running", "completed") as wire:
        assert len(bench_control.get_times(wire, "op", 2, lambda: 0.0, warm=1).ms["get"]) == 2
        with pytest.raises(RuntimeError, match="completed and not running"):
            bench_control.get_times(wire, "op", 1, lambda: 0.0, warm=0)


def test_percentiles() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [bench_control.percentile(values, q) for q in (0.0, 0.2, 0.5, 0.95, 1.0)] == [1, 1, 3, 5, 5]
