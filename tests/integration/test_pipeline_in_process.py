"""From bundled bars to a backtest on dates never seen, for every example strategy, by the jobs that workers run."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backtesting import SimulationConfig, simulate
from ktrdr.bars import Bars, parse_time
from ktrdr.datasets.features import FeaturePlan, compute_features
from ktrdr.datasets.scaling import Scaler
from ktrdr.jobs.environment import JobEnvironment, JobResult
from ktrdr.jobs.run import run_job
from ktrdr.jobs.signal import latest_signal
from ktrdr.market import MarketStore, install_samples, known_at, load_dataset
from ktrdr.models.bundle import Bundle, load_bundle
from ktrdr.models.decision import ACTIONS, decide
from ktrdr.models.inference import Classifier
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, TrainingSpec
from ktrdr.strategies import Strategy, StrategyLibrary, example_root
from ktrdr.timeframe import Timeframe

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("pipeline"),
]  # what its tests share is made once

LIBRARY = StrategyLibrary([example_root()])


def drain(steps: Any) -> JobResult:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


@dataclass(frozen=True)
class Road:
    """One strategy's way from data to result."""

    strategy: Strategy
    training: TrainingSpec
    trained: JobResult
    backtests: dict[str, tuple[BacktestSpec, JobResult]]
    env: JobEnvironment

    @property
    def bundle(self) -> Bundle:
        return load_bundle(self.env.artifacts, self.trained.artifacts["model"])

    def bars(self, symbol: str) -> dict[Timeframe, Bars]:
        refs = [ref for ref in self.training.datasets if ref.symbol == symbol]
        return {
            Timeframe(ref.timeframe): load_dataset(
                self.env.artifacts, ref.manifest, Timeframe(ref.timeframe), symbol
            )
            for ref in refs
        }

    def document(self, symbol: str) -> dict[str, Any]:
        return json.loads(self.env.artifacts.read(self.backtests[symbol][1].artifacts["result"]))

    def frame(self, symbol: str, name: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(self.env.artifacts.read(self.backtests[symbol][1].artifacts[name])))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> JobEnvironment:
    root: Path = tmp_path_factory.mktemp("pipeline")
    artifacts = FileArtifactStore(root / "artifacts")
    install_samples(MarketStore(root / "data", artifacts))
    return JobEnvironment(artifacts, root)


@pytest.fixture(scope="module", params=LIBRARY.names())
def road(request: pytest.FixtureRequest, env: JobEnvironment) -> Road:
    strategy = LIBRARY.get(request.param)
    market = MarketStore(env.scratch / "data", env.artifacts)
    datasets = [
        DatasetRef(symbol=symbol, timeframe=timeframe, manifest=market.resolve(symbol, timeframe).artifact)
        for symbol in strategy.symbols
        for timeframe in strategy.timeframes
    ]
    training = TrainingSpec(
        strategy_name=strategy.name,
        strategy=strategy.text,
        symbols=list(strategy.symbols),
        timeframes=[t.value for t in strategy.timeframes],
        datasets=datasets,
        device="cpu",
    )
    trained = drain(run_job(training, env))
    end = strategy.training_data.end_date
    assert end is not None
    backtests = {}
    for symbol in strategy.symbols:
        spec = BacktestSpec(
            strategy_name=strategy.name,
            strategy=strategy.text,
            symbol=symbol,
            timeframe=strategy.base_timeframe.value,
            datasets=[ref for ref in datasets if ref.symbol == symbol],
            model=trained.artifacts["model"],
            start_date=(end + timedelta(days=1)).isoformat(),
        )
        backtests[symbol] = (spec, drain(run_job(spec, env)))
    return Road(strategy, training, trained, backtests, env)


def test_it_trades_at_least_twenty_times_on_dates_it_never_saw(road: Road) -> None:
    training_end = parse_time(road.bundle.manifest.training.datasets[0].end)
    for symbol, (_, result) in road.backtests.items():
        assert result.summary["total_trades"] >= 20
        assert parse_time(road.document(symbol)["start"]) > training_end


def test_training_looked_at_nothing_after_its_end_date(road: Road) -> None:
    end = road.strategy.training_data.end_date
    assert end is not None
    for use in road.bundle.manifest.training.datasets:
        assert use.end[:10] <= end.isoformat()


def test_a_second_run_gives_the_same_digests(road: Road) -> None:
    assert drain(run_job(road.training, road.env)).artifacts == road.trained.artifacts
    for spec, result in road.backtests.values():
        again = drain(run_job(spec, road.env))
        assert again.summary["result_digest"] == result.summary["result_digest"]
        assert again.artifacts["result"] == result.artifacts["result"]


def test_net_profits_add_up_to_the_equity(road: Road) -> None:
    for symbol in road.backtests:
        trades, equity = road.frame(symbol, "trades"), road.frame(symbol, "equity")
        capital = road.document(symbol)["initial_capital"]
        assert trades["net"].sum() == pytest.approx(equity["equity"][-1] - capital, abs=1e-6 * capital)
        assert (trades["gross"] - trades["costs"] - trades["net"]).abs().max() < 1e-6


def test_the_job_is_the_sum_of_its_public_parts(road: Road) -> None:
    """Features, inference, decision and simulation called one by one give the job's result, bit for bit."""
    bundle, strategy = road.bundle, road.strategy
    for symbol, (spec, result) in road.backtests.items():
        bars = road.bars(symbol)
        base = bars[strategy.base_timeframe]
        scaler = None if bundle.manifest.scaler is None else Scaler.from_json(bundle.manifest.scaler)
        features = compute_features(FeaturePlan.from_strategy(strategy), bars, scaler=scaler)
        probabilities = Classifier(bundle.model_path()).probabilities(features.values_TF)
        decisions = decide(
            probabilities, threshold=strategy.decisions.confidence_threshold, valid_T=features.valid_T
        )
        first = base.rows_between(spec.start_date, None).start
        config = SimulationConfig.from_json(strategy.simulation_settings())
        expected = simulate(base, decisions.signal_T, config, confidence=decisions.confidence_T, first=first)
        assert expected.digest() == result.summary["result_digest"]


def test_signals_obey_the_prefix_law(road: Road) -> None:
    """Cut the data anywhere: what the model says on the newest bar is what it said there with all data."""
    bundle, strategy = road.bundle, road.strategy
    symbol = strategy.symbols[0]
    bars = road.bars(symbol)
    base = bars[strategy.base_timeframe]
    scaler = None if bundle.manifest.scaler is None else Scaler.from_json(bundle.manifest.scaler)
    features = compute_features(FeaturePlan.from_strategy(strategy), bars, scaler=scaler)
    probabilities = Classifier(bundle.model_path()).probabilities(features.values_TF)
    threshold = strategy.decisions.confidence_threshold
    decisions = decide(probabilities, threshold=threshold, valid_T=features.valid_T)
    for row in np.linspace(features.first_valid, len(base) - 1, 7).astype(int):
        moment = known_at(base)[row]
        seen = {
            tf: part[: int(np.searchsorted(known_at(part), moment, side="right"))]
            for tf, part in bars.items()
        }
        signal = latest_signal(bundle, seen)
        assert signal.time == base[: row + 1].end.isoformat()
        assert signal.action == ACTIONS[int(decisions.signal_T[row])]
        assert list(signal.probabilities.values()) == probabilities[row].astype(float).tolist()


def test_the_benchmark_covers_the_same_bars(road: Road) -> None:
    for symbol in road.backtests:
        document, equity = road.document(symbol), road.frame(symbol, "equity")
        assert document["benchmark"]["bars"] == document["statistics"]["bars"] == len(equity)
        capital = document["initial_capital"]
        assert equity["benchmark"][0] == capital
        gained = equity["benchmark"][-1] / capital - 1
        assert document["benchmark"]["total_return"] == pytest.approx(gained)


def test_sharpe_uses_the_bars_per_year_of_the_timeframe(road: Road) -> None:
    expected = {"1d": 252, "1h": 52.1775 * 120}[road.strategy.base_timeframe.value]
    for symbol in road.backtests:
        statistics = road.document(symbol)["statistics"]
        assert statistics["bars_per_year"] == pytest.approx(expected, rel=0.01)
        returns = road.frame(symbol, "equity")["equity"].to_numpy()
        r = returns[1:] / returns[:-1] - 1
        assert statistics["sharpe_ratio"] == pytest.approx(
            r.mean() / r.std(ddof=1) * np.sqrt(statistics["bars_per_year"]), rel=1e-9
        )
