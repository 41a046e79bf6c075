"""Scenarios B1: the backtest job in process (docs/testing/scenarios/B1-engine.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ktrdr
from ktrdr.artifacts import FileArtifactStore
from ktrdr.backtesting.identities import check_identities
from ktrdr.errors import InvalidInput
from ktrdr.jobs.environment import JobEnvironment
from ktrdr.jobs.run import run_job
from ktrdr.market.samples import install_samples
from ktrdr.market.store import MarketStore
from ktrdr.operations.progress import Metric, Progress
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, TrainingSpec
from ktrdr.strategies.library import StrategyLibrary, example_root
from ktrdr.timeframe import Timeframe

pytestmark = pytest.mark.xdist_group("engine")  # what its tests share is made once
OUT_OF_SAMPLE = "2014-01-01"


@pytest.fixture(scope="module")
def bars() -> Any:
    return ktrdr.load_bars("SP500", "1d")


@pytest.fixture(scope="module")
def model(bars: Any) -> Any:
    return ktrdr.train(ktrdr.load_strategy("sp500_trend"), bars)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[BacktestSpec, JobEnvironment]:
    """A backtest's spec and environment as a worker has them, with a model trained by the training job."""
    root: Path = tmp_path_factory.mktemp("job")
    artifacts = FileArtifactStore(root / "artifacts")
    market = MarketStore(root / "data", artifacts)
    install_samples(market)
    environment = JobEnvironment(artifacts=artifacts, scratch=root / "scratch")
    environment.scratch.mkdir()
    text = StrategyLibrary([example_root()]).text("sp500_trend")
    dataset = DatasetRef(
        symbol="SP500", timeframe="1d", manifest=market.manifest("SP500", Timeframe.D1).artifact
    )
    common = {"strategy_name": "sp500_trend", "strategy": text, "datasets": [dataset]}
    training = TrainingSpec(symbols=["SP500"], timeframes=["1d"], end_date="2013-12-31", **common)
    *_, trained = drained(run_job(training, environment))
    spec = BacktestSpec(
        symbol="SP500", timeframe="1d", model=trained.artifacts["model"], start_date=OUT_OF_SAMPLE, **common
    )
    return spec, environment


def drained(steps: Any) -> Iterator[Any]:
    """Every step of a job, and its result as the last one."""
    result = yield from steps
    yield result


def test_b1_1_engine_smoke(model: Any, bars: Any) -> None:
    result = ktrdr.backtest(model, bars, start=OUT_OF_SAMPLE)
    assert len(result.trades) >= 20
    assert math.isfinite(result.statistics["total_return"])
    assert math.isfinite(result.statistics["sharpe_ratio"])
    check_identities(result, bars)
    assert ktrdr.backtest(model, bars, start=OUT_OF_SAMPLE).digest() == result.digest()


def test_b1_2_engine_progress(job: tuple[BacktestSpec, JobEnvironment]) -> None:
    *steps, result = drained(run_job(*job))
    progress = [step for step in steps if isinstance(step, Progress)]
    done = [p.items_done for p in progress]
    assert done == sorted(done)
    assert progress[-1].items_done == progress[-1].items_total
    wanted = {"current_bar", "total_bars", "current_date", "current_pnl", "total_trades", "win_rate"}
    assert wanted <= set(progress[-1].context)
    assert any(isinstance(step, Metric) for step in steps)
    assert set(result.artifacts) >= {"result", "trades", "equity"}


def test_b1_3_engine_cancel(job: tuple[BacktestSpec, JobEnvironment]) -> None:
    spec, environment = job
    store: FileArtifactStore = environment.artifacts  # type: ignore[assignment]
    before = set(store.digests())
    running = run_job(spec, environment)
    next(running)
    running.close()
    assert set(store.digests()) == before


def test_b1_4_engine_bad_configuration(model: Any, bars: Any) -> None:
    with pytest.raises(InvalidInput, match=r"2018-12-31"):
        ktrdr.backtest(model, bars, start="2030-01-01")
    with pytest.raises(InvalidInput, match=r"-1"):
        ktrdr.backtest(model, bars, start=OUT_OF_SAMPLE, initial_capital=-1)
