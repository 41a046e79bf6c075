"""The pieces of a report, made by the real simulator from a seeded walk."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ktrdr.backtesting import SimulationConfig, buy_and_hold, simulate
from ktrdr.bars import Bars, to_datetime
from ktrdr.reports import ReportData
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.strategies.starter import starter
from ktrdr.timeframe import Timeframe

HISTORY = [
    {"epoch": e, "train_loss": 1.0 / e, "val_loss": abs(e - 3) * 0.1 + 0.5, "val_accuracy": 0.4 + 0.05 * e}
    for e in range(1, 6)
]


def walk(count: int, timeframe: Timeframe = Timeframe.D1, *, start: int = 1_420_156_800_000_000) -> Bars:
    rng = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(rng.normal(0.0002, 0.01, count)))
    open_ = np.roll(close, 1)
    open_[0] = close[0]
    high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
    time = start + np.arange(count) * timeframe.microseconds
    return Bars("WALK", timeframe, time, open_, high, low, close, np.ones(count))


def some_strategy() -> Strategy:
    return parse_strategy(starter("example"))


def make_data(
    bars: Bars, *, strategy: Strategy | None = None, density: float = 0.1, **changes: Any
) -> ReportData:
    rng = np.random.default_rng(4)
    signals = (rng.choice([-1, 1], len(bars)) * (rng.random(len(bars)) < density)).astype(np.int8)
    config = SimulationConfig.from_json(
        {
            "costs": {"commission": 0.001},
            "stops": {"stop_loss": 0.05},
            "positions": {"allow_short_from_flat": True},
        }
    )
    result = simulate(bars, signals, config, bars_per_year=252.0)
    benchmark = buy_and_hold(bars, config, bars_per_year=252.0)
    document = {
        "kind": "backtesting",
        "strategy_name": "example",
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.value,
        "start": to_datetime(int(bars.time[0])).isoformat(),
        "end": to_datetime(int(bars.time[-1])).isoformat(),
        "initial_capital": 100_000.0,
        "statistics": dict(result.statistics),
        "benchmark": dict(benchmark.statistics),
        "warmup": {"bars_lost": 3, "bars_before_start": 40},
        "warnings": ["7 bars did something."],
        "config": config.to_json(),
        "digest": result.digest(),
        "model": "ab" * 32,
    } | changes.pop("document", {})
    data = ReportData(
        document, result.trades_frame(), result.equity_frame(benchmark), bars, strategy, HISTORY
    )
    return dataclasses.replace(data, **changes)
