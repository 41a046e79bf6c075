"""Bars for the market tests: on any calendar's grid, from a seed or from Hypothesis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from ktrdr.bars import Bars, IntArray, Quotes
from ktrdr.market.calendars import calendar_named
from ktrdr.market.localtime import DAY, HOUR, to_wall
from ktrdr.timeframe import Timeframe

#: Monday 2017-01-02 00:00 UTC
MONDAY = 1_483_315_200_000_000


def walk(time: IntArray, timeframe: Timeframe, calendar: str, *, seed: int = 1, symbol: str = "TEST") -> Bars:
    """A random walk with the given stamps; prices have five decimals, so that they survive as text."""
    rng = np.random.default_rng(seed)
    n = len(time)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.002, n))), 5)
    open_ = np.round(close * np.exp(rng.normal(0, 0.001, n)), 5)
    high = np.round(np.maximum(open_, close) * (1 + rng.uniform(0.0001, 0.001, n)), 5)
    low = np.round(np.minimum(open_, close) * (1 - rng.uniform(0.0001, 0.001, n)), 5)
    volume = np.round(rng.uniform(1, 1000, n), 1)
    return Bars(
        symbol, timeframe, np.asarray(time, dtype=np.int64), open_, high, low, close, volume, calendar
    )


def stamps(calendar: str, timeframe: Timeframe, count: int, start: int = MONDAY) -> IntArray:
    """The first ``count`` stamps of a calendar from ``start`` on, no holidays."""
    step = timeframe.microseconds
    kind = calendar_named(calendar)
    if calendar == "24/7":
        return start + np.arange(count, dtype=np.int64) * step
    if not timeframe.intraday:
        days = start + np.arange(3 * count + 10, dtype=np.int64) * DAY
        weekday = (days // DAY + 3) % 7
        dates = days[weekday < 5][:: 5 if timeframe is Timeframe.W1 else 1][:count]
        return kind.open_stamp(dates)
    every = start + np.arange(8 * count + 5 * DAY // step, dtype=np.int64) * step
    wall = to_wall(every, kind.zone)
    if calendar == "24/5":
        since_sunday = (wall - (3 * DAY + 17 * HOUR)) % (7 * DAY)
        return every[since_sunday < 5 * DAY][:count]
    weekday, clock = (wall // DAY + 3) % 7, wall % DAY
    return every[(weekday < 5) & (clock >= 9 * HOUR) & (clock < 16 * HOUR)][:count]


def with_quotes(bars: Bars, spread: float = 0.01) -> Bars:
    """The bars with bid and ask around them."""
    parts = [getattr(bars, part) for part in ("open", "high", "low", "close")]
    return replace(bars, quotes=Quotes(*(p - spread / 2 for p in parts), *(p + spread / 2 for p in parts)))


@st.composite
def any_bars(draw: st.DrawFn, timeframes: tuple[Timeframe, ...] = (Timeframe.H1,), least: int = 1) -> Bars:
    """Bars of some calendar, with gaps, starting at any hour of 2017 (clock changes included)."""
    timeframe = draw(st.sampled_from(timeframes))
    calendar = draw(st.sampled_from(("24/7", "24/5", "XNYS")))
    start = MONDAY + draw(st.integers(0, 360)) * DAY + draw(st.integers(0, 23)) * HOUR
    start = start // min(timeframe.microseconds, DAY) * min(timeframe.microseconds, DAY)
    time = stamps(calendar, timeframe, draw(st.integers(least, 120)), start)
    keep = np.array(
        draw(st.lists(st.sampled_from((True, True, True, False)), min_size=len(time), max_size=len(time)))
    )
    keep[:least] = True
    bars = walk(time[keep], timeframe, calendar, seed=draw(st.integers(0, 99)))
    return with_quotes(bars) if draw(st.booleans()) else bars
