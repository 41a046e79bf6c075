"""The real jobs in real workers that have nothing but the backend's URL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.jobs.environment import JobEnvironment, JobResult
from ktrdr.jobs.run import run_job
from ktrdr.market.samples import load_sample
from ktrdr.market.store import MarketStore
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, JobSpec, TrainingSpec
from ktrdr.testing.fake_backend import FakeBackend
from ktrdr.timeframe import Timeframe
from support.strategies import edited

pytestmark = pytest.mark.integration


@contextmanager
def worker(module: str, backend: FakeBackend, root: Path) -> Iterator[str]:
    """A worker with an empty home of its own, in a directory of its own; gives its URL."""
    root.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KTRDR_", "WORKER_"))}
    settings = {"KTRDR_HOME": str(root / "home"), "KTRDR_API_URL": backend.url, "WORKER_PORT": "0"}
    known = len(backend.registrations)
    process = subprocess.Popen([sys.executable, "-m", module], env=kept | settings, cwd=root)
    try:
        backend.wait_for(lambda: len(backend.registrations) > known, 120)
        yield backend.registrations[-1]["endpoint_url"]
    finally:
        process.terminate()
        assert process.wait(60) == 0


def deliver(backend: FakeBackend, url: str, route: str, task_id: str, spec: JobSpec) -> dict[str, Any]:
    body = json.dumps({"task_id": task_id, "spec": spec.model_dump()}).encode()
    request = Request(url + route, body, {"content-type": "application/json"})
    known = len(backend.deliveries)
    with urlopen(request, timeout=60) as answer:
        assert answer.status == 202
    backend.wait_for(lambda: len(backend.deliveries) > known, 240)
    delivery = backend.deliveries[-1]
    assert delivery["status"] == "completed", delivery
    return dict(delivery)


def in_process(spec: JobSpec, artifacts: FileArtifactStore, scratch: Path) -> JobResult:
    job = run_job(spec, JobEnvironment(artifacts, scratch))
    while True:
        try:
            next(job)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def test_train_and_backtest_with_nothing_but_the_url(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path / "artifacts")
    manifest = MarketStore(tmp_path / "market", artifacts).save(load_sample("SP500", Timeframe.D1))
    strategy = edited("sp500_trend", training__epochs=2)
    common: dict[str, Any] = {
        "strategy_name": "sp500_trend",
        "strategy": strategy,
        "datasets": [DatasetRef(symbol="SP500", timeframe="1d", manifest=manifest.artifact)],
    }
    with FakeBackend() as backend:
        backend.artifacts.update({digest: artifacts.read(digest) for digest in artifacts.digests()})
        training = TrainingSpec(**common, symbols=["SP500"], timeframes=["1d"], end_date="2014-12-31", seed=1)
        with worker("ktrdr.workers.training_worker", backend, tmp_path / "trainer") as url:
            trained = deliver(backend, url, "/training/start", "train", training)
        assert {"model", "result", "log", "metrics"} <= set(trained["artifacts"])
        backtest = BacktestSpec(
            **common,
            symbol="SP500",
            timeframe="1d",
            model=trained["artifacts"]["model"],
            start_date="2015-01-01",
        )
        with worker("ktrdr.workers.backtest_worker", backend, tmp_path / "tester") as url:
            done = deliver(backend, url, "/backtests/start", "test", backtest)
        assert {"result", "trades", "equity", "log"} <= set(done["artifacts"])
        assert done["artifacts"].keys() & {"metrics"}

        for digest, content in backend.artifacts.items():
            assert artifacts.put(content) == digest
        here = in_process(backtest, artifacts, tmp_path)
        for name in ("result", "trades", "equity"):
            assert done["artifacts"][name] == here.artifacts[name], (
                f"{name} differs from the one made in process"
            )
        assert done["summary"] == dict(here.summary)
