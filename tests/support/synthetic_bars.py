"""Synthetic bars for tests of the numerical wing: random walks and series in which nothing moves."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import Bars
from ktrdr.timeframe import Timeframe

#: Monday 2001-09-03 00:00 UTC.
MONDAY_US = 999_475_200_000_000


def walk_bars(
    rows: int,
    seed: int = 7,
    timeframe: Timeframe = Timeframe.H1,
    calendar: str = "24/7",
    start_us: int = MONDAY_US,
    symbol: str = "SYNTH",
) -> Bars:
    """A geometric random walk with gaps between bars and uneven volume."""
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, rows)))
    open_ = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0.0, 0.003, rows))
    high = np.maximum(open_, close) * (1.0 + np.abs(rng.normal(0.0, 0.004, rows)))
    low = np.minimum(open_, close) * (1.0 - np.abs(rng.normal(0.0, 0.004, rows)))
    time_us = start_us + np.arange(rows, dtype=np.int64) * timeframe.microseconds
    volume = rng.uniform(1.0, 1000.0, rows)
    return Bars(symbol, timeframe, time_us, open_, high, low, close, volume, calendar)


def flat_bars(
    rows: int, price: float = 1.1, volume: float = 5.0, timeframe: Timeframe = Timeframe.H1
) -> Bars:
    """Bars in which nothing moves."""
    level = np.full(rows, price)
    time_us = MONDAY_US + np.arange(rows, dtype=np.int64) * timeframe.microseconds
    return Bars("FLAT", timeframe, time_us, level, level, level, level, np.full(rows, volume))
