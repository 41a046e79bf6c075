"""A backtest from stored artifacts, in a process of its own that has no torch and must not miss it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ktrdr
from ktrdr.artifacts import FileArtifactStore
from ktrdr.market import MarketStore, install_samples
from ktrdr.models.bundle import save_bundle
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, canonical_json
from ktrdr.timeframe import Timeframe

pytestmark = pytest.mark.integration

PROGRAM = """
import sys, json
from pathlib import Path
for absent in ("torch", "onnx", "safetensors"):
    sys.modules[absent] = None
from pydantic import TypeAdapter
from ktrdr.artifacts import FileArtifactStore
from ktrdr.jobs.environment import JobEnvironment
from ktrdr.jobs.run import run_job
from ktrdr.protocol.specs import JobSpec
spec = TypeAdapter(JobSpec).validate_json(sys.stdin.read())
steps = run_job(spec, JobEnvironment(FileArtifactStore(Path(sys.argv[1])), Path(".")))
try:
    while True:
        next(steps)
except StopIteration as stop:
    result = stop.value
loaded = [name for name, module in sys.modules.items() if module is not None and name.split(".")[0] == "torch"]
print(json.dumps({"summary": dict(result.summary), "artifacts": dict(result.artifacts), "torch": loaded}))
"""


def test_a_backtest_runs_where_torch_is_absent_and_gives_the_same_digest(tmp_path: Path) -> None:
    artifacts = FileArtifactStore(tmp_path / "artifacts")
    market = MarketStore(tmp_path / "data", artifacts)
    install_samples(market)
    bars, strategy = market.load("SP500", Timeframe.D1), ktrdr.load_strategy("sp500_trend")
    model = ktrdr.train(strategy, bars, epochs=3)
    manifest = model.bundle.manifest
    bundle = save_bundle(
        artifacts, manifest, model=model.bundle.model_path().read_bytes(), weights=model.bundle.weights()
    )
    spec = BacktestSpec(
        strategy_name="sp500_trend",
        strategy=manifest.strategy,
        symbol="SP500",
        timeframe="1d",
        datasets=[
            DatasetRef(
                symbol="SP500", timeframe="1d", manifest=market.manifest("SP500", Timeframe.D1).artifact
            )
        ],
        model=bundle.digest,
        start_date="2015-01-01",
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "artifacts")],
        input=canonical_json(spec).decode(),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["torch"] == []
    assert answer["summary"]["result_digest"] == ktrdr.backtest(model, bars, start="2015-01-01").digest()
    assert all(artifacts.has(digest) for digest in answer["artifacts"].values())
