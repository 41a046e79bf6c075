"""The platform's answer times over loopback, by real processes: a backend and two workers as ``ktrdr up`` starts them.

Run: ``python benchmarks/bench_control.py``. SQLite with its durable settings, in a home of its own; one operation at a
time, so that nobody waits in a queue. The client is ``http.client`` on one kept-alive connection with small requests,
so that the client's own cost (about 0.1 ms) does not hide the server's.

- accepted: from sending ``POST /backtests/start`` until the worker's 202 has reached the backend, which the ledger
  records as ``started_at``. The submission is durable before the POST's answer, the assignment before the worker hears
  of it. Both clocks are this machine's. Nobody watches these starts. Goal: p50 <= 15 ms.
- visible: from sending the POST until ``GET /operations/{id}`` has answered with a status after ``assigned``; the
  client asks with ``wait`` and ``If-None-Match``, so it is told of a change and does not poll. Goal: p50 <= 100 ms.
- GET: ``GET /operations/{id}`` of a training that runs meanwhile. Goal: p50 <= 5 ms.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from ktrdr.cli.fleet import Fleet, FleetPlan
from table import Row, render

STARTS, GETS = 30, 600
WARM = 5
_PAUSE_S = 0.3  # between operations: the next one finds the fleet idle, as a user's would
_UNDISTURBED_S = 0.2  # after an unwatched start, before the first question about it
_ENDED = ("completed", "failed", "cancelled")
STRATEGY = """
name: bench_control
version: "3.0"
description: small, so that the platform is measured and not the job
training_data: {symbols: [SP500], timeframes: [1d], start_date: 2005-01-01, end_date: 2012-12-31}
indicators:
  rsi_14: {type: rsi, period: 14}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [-.inf, -.inf, 30, 50], middle: [30, 50, 70], high: [50, 70, .inf, .inf]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
model: {type: mlp, architecture: {hidden_layers: [8]}}
training:
  labels: {source: forward_return, horizon_bars: 5, threshold: 0.001}
  epochs: EPOCHS
  batch_size: 32
decisions: {confidence_threshold: 0.34}
backtest: {initial_capital: 100000}
"""


@dataclass(frozen=True)
class Answer:
    """A 2xx answer."""

    body: Any
    etag: str


class Wire:
    """One kept-alive connection to the backend; JSON in, JSON out, raises for any other answer than 2xx."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120.0)

    def close(self) -> None:
        """End the connection."""
        self._http.close()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """A request below /api/v1."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None
        if body is not None:
            content, sent["Content-Type"] = json.dumps(body).encode(), "application/json"
        self._http.request(method, f"/api/v1{path}", content, sent)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status // 100 != 2:
            raise RuntimeError(f"{method} {path} answered {answer.status}: {text[:500].decode()}")
        return Answer(json.loads(text) if text else None, answer.headers.get("ETag", ""))

    def until(self, operation_id: str, *statuses: str) -> Any:
        """The operation as soon as it has one of the statuses; told by the backend, not polled."""
        known = '"nothing"'
        while True:
            answer = self.ask("GET", f"/operations/{operation_id}?wait=60", If_None_Match=known)
            if answer.body["status"] in statuses:
                return answer.body
            if answer.body["status"] in _ENDED:
                raise RuntimeError(f"{operation_id} is {answer.body['status']}: {answer.body['error']}")
            known = answer.etag


@dataclass
class Times:
    """Milliseconds, one entry per repetition, and the CPU seconds of each by the processes that were watched."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_s: float = 0.0

    def add(self, name: str, seconds: float) -> None:
        self.ms.setdefault(name, []).append(seconds * 1e3)

    def p(self, name: str, quantile: float) -> float:
        return percentile(self.ms[name], quantile)


def percentile(values: Sequence[float], quantile: float) -> float:
    """The smallest value that at least ``quantile`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(quantile * len(ordered)) - 1)]


def start_times(
    wire: Wire, body: object, repetitions: int, cpu: Callable[[], float], *, warm: int = WARM
) -> Times:
    """How long starts take on an idle fleet; ``cpu`` gives the fleet's CPU seconds so far.

    In turns: one start that nobody watches, for the ledger's time of acceptance, and one that is watched.
    """
    times, spent = Times(), 0.0
    for number in range(-warm, 2 * repetitions):
        if number == 0:
            times, spent = Times(), cpu()
        time.sleep(_PAUSE_S)
        watched = number % 2 == 1
        wall, begin = time.time(), time.perf_counter()
        operation_id = wire.ask("POST", "/backtests/start", body).body["operation_id"]
        times.add("answered", time.perf_counter() - begin)
        if watched:
            wire.until(operation_id, "running", *_ENDED)
            times.add("visible", time.perf_counter() - begin)
        else:
            time.sleep(_UNDISTURBED_S)
        ended = wire.until(operation_id, "completed")
        if not watched:
            times.add("accepted", datetime.fromisoformat(ended["started_at"]).timestamp() - wall)
    times.cpu_s = (cpu() - spent) / (2 * repetitions)
    return times


def get_times(
    wire: Wire, operation_id: str, repetitions: int, cpu: Callable[[], float], *, warm: int = WARM
) -> Times:
    """How long a GET of a running operation takes, one after the other without a pause."""
    times, spent = Times(), 0.0
    for number in range(-warm, repetitions):
        if number == 0:
            times, spent = Times(), cpu()
        begin = time.perf_counter()
        answer = wire.ask("GET", f"/operations/{operation_id}")
        times.add("get", time.perf_counter() - begin)
        if answer.body["status"] != "running":
            raise RuntimeError(f"{operation_id} is {answer.body['status']} and not running")
    times.cpu_s = (cpu() - spent) / repetitions
    return times


def cpu_of(processes: Sequence[psutil.Process]) -> float:
    """CPU seconds so far, user and system, of these processes without their children."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)


@contextlib.contextmanager
def fleet() -> Iterator[str]:
    """A fleet in a home of its own; its URL."""
    with tempfile.TemporaryDirectory() as home:
        plan = FleetPlan(home=Path(home), port=0, training_workers=1, backtesting_workers=1)
        with Fleet(plan, say=print) as running:
            running.start()
            yield running.url


def measure(starts: int = STARTS, gets: int = GETS, warm: int = WARM) -> tuple[Times, Times]:
    """Times of starts and of GETs."""
    with fleet() as url, contextlib.closing(Wire(url)) as wire:
        servers = psutil.Process().children()
        backend = [part for part in servers if "backend" in part.cmdline()]
        wire.ask("POST", "/data/samples")
        wire.until(_train(wire, epochs=2), "completed")
        body = {"model_id": _model(wire), "start_date": "2016-01-01", "end_date": "2016-12-31"}
        started = start_times(wire, body, starts, lambda: cpu_of(servers), warm=warm)
        running = _train(wire, epochs=10_000)
        wire.until(running, "running")
        got = get_times(wire, running, gets, lambda: cpu_of(backend), warm=warm)
        wire.ask("POST", f"/operations/{running}/cancel")
        wire.until(running, "cancelled")
        return started, got


def _model(wire: Wire) -> str:
    """The id of the model, which may be listed a moment after its training is completed."""
    while not (models := wire.ask("GET", "/models").body["items"]):
        time.sleep(0.05)
    model_id: str = models[0]["model_id"]
    return model_id


def _train(wire: Wire, epochs: int) -> str:
    body = {"strategy": STRATEGY.replace("EPOCHS", str(epochs))}
    operation_id: str = wire.ask("POST", "/trainings/start", body).body["operation_id"]
    return operation_id


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    started, got = measure(1, 100, 0) if tiny else measure()

    def row(key: str, what: str, times: Times, name: str, target: float, note: str = "") -> Row:
        spread = f"p95 {times.p(name, 0.95):.1f} ms of {len(times.ms[name])}"
        return Row(
            key=key,
            what=what,
            measured=statistics.median(times.ms[name]),
            unit="ms",
            target=target,
            cpu_s=times.cpu_s,
            note=f"{spread}{note}",
        )

    answered = f"; 202 after {started.p('answered', 0.5):.1f} ms; CPU: backend and workers from start to result, without the job"
    return [
        row("control.accepted", "POST start -> accepted by worker", started, "accepted", 15.0, answered),
        row("control.visible", "POST start -> running visible", started, "visible", 100.0),
        row(
            "control.get",
            "GET operation while running",
            got,
            "get",
            5.0,
            "; CPU: the backend's; nothing between two requests",
        ),
    ]


if __name__ == "__main__":
    print(render(rows(), {}))
