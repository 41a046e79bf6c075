"""CPU seconds of ``compute_features`` over 1,000,000 synthetic bars with 12 memberships; median of 5.

Run: ``python benchmarks/bench_features.py [--bars 1000000] [--rounds 5]``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import numpy as np

from ktrdr.bars import Bars
from ktrdr.datasets.features import FeaturePlan, compute_features
from ktrdr.fuzzy import LinguisticVariable, parse_membership
from ktrdr.strategies.document import (
    BacktestConfig,
    DecisionConfig,
    ForwardReturnLabels,
    FuzzyInput,
    FuzzySetUse,
    IndicatorUse,
    ModelConfig,
    Strategy,
    TrainingConfig,
    TrainingData,
)
from ktrdr.timeframe import Timeframe
from table import Row

MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Measurement:
    """Medians in CPU seconds."""

    bars: int
    features: int
    total_s: float


def synthetic_bars(rows: int, seed: int = 7) -> Bars:
    """A geometric random walk of minute bars."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0005, rows)))
    open_ = np.r_[close[0], close[:-1]]
    high = np.maximum(open_, close) * (1.0 + rng.uniform(0.0, 0.0005, rows))
    low = np.minimum(open_, close) * (1.0 - rng.uniform(0.0, 0.0005, rows))
    time_us = 1_000_000_000_000_000 + np.arange(rows, dtype=np.int64) * MINUTE_US
    return Bars("SYNTH", Timeframe.M1, time_us, open_, high, low, close, rng.uniform(1.0, 100.0, rows))


def twelve_memberships() -> Strategy:
    """RSI, MACD histogram, ROC and Williams %R with three words each: triangles, trapezoids, a bell curve pair."""
    indicators = {
        "rsi": IndicatorUse("rsi", "rsi", {"period": 14}),
        "macd": IndicatorUse("macd", "macd", {"fast": 12, "slow": 26, "signal": 9}),
        "roc": IndicatorUse("roc", "roc", {"period": 10}),
        "williams": IndicatorUse("williams", "williams_r", {"period": 14}),
    }
    inf = float("inf")
    words: dict[str, tuple[str, str | None, dict[str, object]]] = {
        "level": ("rsi", None, {"low": [0, 20, 40], "middle": [30, 50, 70], "high": [60, 80, 100]}),
        "push": (
            "macd",
            "histogram",
            {
                "down": [-inf, -0.2, 0],
                "none": {"type": "gaussian", "mean": 0, "sigma": 0.05},
                "up": [0, 0.2, inf],
            },
        ),
        "speed": (
            "roc",
            None,
            {"falling": [-inf, -inf, -1, 0], "still": [-1, 0, 1], "rising": [0, 1, inf, inf]},
        ),
        "place": (
            "williams",
            None,
            {"bottom": [-100, -90, -70], "middle": [-80, -50, -20], "top": [-30, -10, 0]},
        ),
    }
    sets = {
        name: FuzzySetUse(
            name,
            indicator,
            output,
            LinguisticVariable(name, tuple((k, parse_membership(v)) for k, v in shapes.items())),
        )
        for name, (indicator, output, shapes) in words.items()
    }
    return Strategy(
        name="bench",
        version="3.0",
        description="",
        training_data=TrainingData(("SYNTH",), (Timeframe.M1,), Timeframe.M1),
        indicators=indicators,
        fuzzy_sets=sets,
        nn_inputs=tuple(FuzzyInput(name, (Timeframe.M1,)) for name in sets),
        model=ModelConfig(),
        training=TrainingConfig(labels=ForwardReturnLabels()),
        decisions=DecisionConfig(),
        backtest=BacktestConfig(),
        text="",
    )


def measure(rows: int = 1_000_000, rounds: int = 5) -> Measurement:
    """Median CPU seconds of the whole feature function; one unmeasured round first loads TA-Lib."""
    bars = synthetic_bars(rows)
    plan = FeaturePlan.from_strategy(twelve_memberships())
    compute_features(plan, {Timeframe.M1: bars[:1_000]})
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        features = compute_features(plan, {Timeframe.M1: bars})
        seconds.append(time.process_time() - start)
        assert features.valid_T[plan.warmup(Timeframe.M1) :].all()
    return Measurement(rows, len(plan.names), statistics.median(seconds))


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's row."""
    result = measure(5_000, 1) if tiny else measure()
    return [
        Row(
            key="features.compute",
            what=f"features alone, {result.bars:,} bars, {result.features} memberships",
            measured=result.total_s,
            unit="s CPU",
            cpu_s=result.total_s,
        )
    ]


def main() -> None:
    """Print the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    result = measure(arguments.bars, arguments.rounds)
    print(
        f"features: {result.bars:,} bars x {result.features} memberships: {result.total_s:.3f} s CPU (median)"
    )


if __name__ == "__main__":
    main()
