"""A whole neuro-fuzzy backtest over 1,000,000 bars: features, inference, simulation, statistics; stage by stage.

Run: ``python benchmarks/bench_backtest.py [BARS]``. 12 memberships of four indicators, MLP [64, 32], long or in cash
with costs, by the generator that workers iterate. CPU seconds of one process, median of five runs after one that
compiles. Goal: 0.5 s for all of it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ktrdr.artifacts import FileArtifactStore
from ktrdr.backtesting import SimulationConfig, buy_and_hold, simulate
from ktrdr.bars import Bars
from ktrdr.datasets.features import FeaturePlan, compute_features
from ktrdr.jobs.backtest import backtest_model
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.bundle import Bundle, BundleManifest, FeatureIdentity, TrainingRecord, save_bundle
from ktrdr.models.decision import decide
from ktrdr.models.inference import Classifier
from ktrdr.models.onnx_graph import build_onnx
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.timeframe import Timeframe
from table import Row

BARS, RUNS = 1_000_000, 5
WHOLE = "whole backtest (as workers run it)"
STRATEGY = """
name: bench
version: "3.0"
description: twelve memberships
training_data: {symbols: [BENCH], timeframes: [1h]}
indicators:
  rsi_14: {type: rsi, period: 14}
  bands_20: {type: bollinger, period: 20}
  roc_10: {type: roc, period: 10}
  adx_14: {type: adx, period: 14}
fuzzy_sets:
  momentum: {indicator: rsi_14, low: [-.inf, -.inf, 30, 50], middle: [30, 50, 70], high: [50, 70, .inf, .inf]}
  place: {indicator: bands_20.percent_b, below: [-.inf, -.inf, 0, 0.5], inside: [0, 0.5, 1], above: [0.5, 1, .inf, .inf]}
  speed: {indicator: roc_10, falling: [-.inf, -.inf, -0.5, 0], flat: [-0.5, 0, 0.5], rising: [0, 0.5, .inf, .inf]}
  direction: {indicator: adx_14, absent: [-.inf, -.inf, 15, 20], some: [15, 25, 35], strong: [30, 40, .inf, .inf]}
nn_inputs:
  - {fuzzy_set: momentum, timeframes: all}
  - {fuzzy_set: place, timeframes: all}
  - {fuzzy_set: speed, timeframes: all}
  - {fuzzy_set: direction, timeframes: all}
model: {type: mlp, architecture: {hidden_layers: [64, 32], activation: relu}}
training:
  labels: {source: forward_return, horizon_bars: 5, threshold: 0.001}
  epochs: 1
decisions: {confidence_threshold: 0.4, min_signal_separation_bars: 2}
backtest: {initial_capital: 100000, sizing: {type: fraction, lot_step: 0}, costs: {commission: 0.00001, slippage_bps: 0.05}}
"""


def random_bars(rows: int) -> Bars:
    random = np.random.default_rng(1)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.001, rows)))
    start = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(start, close) * (1.0 + random.random(rows) * 0.001)
    low = np.minimum(start, close) * (1.0 - random.random(rows) * 0.001)
    stamps = np.arange(rows, dtype=np.int64) * 3_600_000_000
    return Bars("BENCH", Timeframe.H1, stamps, start, high, low, close, random.random(rows) * 1e6)


def untrained_bundle(strategy: Strategy, plan: FeaturePlan, folder: Path) -> Bundle:
    """Random weights that happen to trade often, which is the harder case; tiny costs keep them solvent."""
    architecture = MlpArchitecture(inputs=len(plan.names), hidden_layers=strategy.model.hidden_layers)
    random = np.random.default_rng(13)
    weights = {
        name: random.normal(0.0, 0.4, shape).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    record = TrainingRecord(
        symbols=("BENCH",),
        timeframes=("1h",),
        base_timeframe="1h",
        start_date=None,
        end_date=None,
        datasets=(),
        seed=0,
        device="cpu",
        threads=1,
        metrics={},
        history=(),
    )
    manifest = BundleManifest(
        strategy_name="bench",
        strategy=strategy.text,
        architecture=architecture,
        features=FeatureIdentity(names=plan.names, digest=plan.digest, warmup_bars=0),
        training=record,
        code_version="bench",
        files={},
    )
    return save_bundle(
        FileArtifactStore(folder), manifest, model=build_onnx(architecture, weights), weights=weights
    )


class Stopwatch:
    """CPU seconds by stage; the medians of all runs."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def measure(self, stage: str, work: object) -> object:
        begin = time.process_time()
        value = work()  # type: ignore[operator]
        self._seconds.setdefault(stage, []).append(time.process_time() - begin)
        return value

    def medians(self) -> dict[str, float]:
        return {stage: statistics.median(times) for stage, times in self._seconds.items()}


def drain(steps: object) -> object:
    while True:
        try:
            next(steps)  # type: ignore[call-overload]
        except StopIteration as stop:
            return stop.value


def measure(rows: int = BARS, runs: int = RUNS) -> tuple[dict[str, float], int]:
    """Median CPU seconds of the whole backtest and of its stages, and the number of trades."""
    bars = random_bars(rows)
    strategy = parse_strategy(STRATEGY)
    plan = FeaturePlan.from_strategy(strategy)
    config = SimulationConfig.from_json(strategy.simulation_settings())
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        bundle = untrained_bundle(strategy, plan, Path(folder))
        market = {Timeframe.H1: bars}
        drain(backtest_model(bundle, market, strategy=strategy))
        for _ in range(runs):
            result = watch.measure(
                WHOLE,
                lambda: drain(backtest_model(bundle, market, strategy=strategy)),
            ).result  # type: ignore[attr-defined]
            features = watch.measure("  features", lambda: compute_features(plan, market))
            classifier = Classifier(bundle.model_path())
            answers = watch.measure("  inference", lambda: classifier.probabilities(features.values_TF))  # noqa: B023
            decisions = watch.measure(
                "  decisions",
                lambda: decide(answers, threshold=0.4, valid_T=features.valid_T),  # noqa: B023
            )
            first = features.first_valid  # type: ignore[attr-defined]
            watch.measure(
                "  simulation and statistics",
                lambda: simulate(
                    bars,
                    decisions.signal_T,  # noqa: B023
                    config,
                    confidence=decisions.confidence_T,  # noqa: B023
                    first=first,  # noqa: B023
                ),
            )
            watch.measure("  benchmark: buy and hold", lambda: buy_and_hold(bars, config, first=first))  # noqa: B023
    return watch.medians(), len(result.trades)


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's row."""
    bars = 5_000 if tiny else BARS
    medians, trades = measure(bars, 1 if tiny else RUNS)
    stages = ", ".join(f"{stage.strip()} {s:.2f}" for stage, s in medians.items() if stage != WHOLE)
    return [
        Row(
            key="backtest.whole",
            what=f"whole neuro-fuzzy backtest, {bars:,} bars, 12 memberships, MLP [64, 32]",
            measured=medians[WHOLE],
            unit="s CPU",
            target=0.5,
            cpu_s=medians[WHOLE],
            note=f"{trades:,} trades; {stages}",
        )
    ]


def main() -> None:
    bars = int(sys.argv[1]) if len(sys.argv) > 1 else BARS
    medians, trades = measure(bars)
    print(f"{bars:,} bars, 12 memberships, MLP [64, 32], {trades:,} trades; goal 0.5 s per million bars")
    print(f"{'median of ' + str(RUNS) + ' runs':44}{'CPU s':>10}")
    for stage, seconds in medians.items():
        print(f"{stage:44}{seconds:>10.3f}")


if __name__ == "__main__":
    main()
