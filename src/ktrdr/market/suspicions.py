"""What may be true and should be looked at: bars of another timeframe, gaps, spikes, stale runs, jumps that look like splits.

Real files have some of each, so they warn and never refuse. Shape suffix: ``T`` = bars in time order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ktrdr.bars import Bars, FloatArray, IntArray, to_datetime
from ktrdr.market.calendars import FOREX, Calendar, calendar_named, monday_of
from ktrdr.market.grid import forex_open_time
from ktrdr.market.localtime import DAY, HOUR
from ktrdr.market.report import Finding
from ktrdr.timeframe import Timeframe

__all__ = ["suspicions"]

BoolArray = npt.NDArray[np.bool_]

_PLACES = 5
_FOREX_TOLERANCE = 4 * HOUR  # thin hours and late openings after holidays
_SPIKE_SCALES = 12.0
_SPIKE_LEAST = 0.02
_STALE_BARS = {True: 12, False: 5}  # intraday, daily and longer
_SPLIT_RATIOS = np.log([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100])
_SPLIT_TOLERANCE = 0.06
_SPLIT_SCALES = 10.0


def suspicions(bars: Bars) -> list[Finding]:
    """Every kind of suspicion with its count and the stamps of the first few places."""
    if len(bars) < 3:
        return []
    return [
        *_longer_steps(bars),
        *_gaps(bars, calendar_named(bars.calendar)),
        *_spikes_and_splits(bars),
        *_stale_runs(bars),
        *_crossed_quotes(bars),
    ]


def _warning(code: str, message: str, time: IntArray, timeframe: Timeframe) -> Finding:
    form = "%Y-%m-%dT%H:%MZ" if timeframe.intraday else "%Y-%m-%d"
    places = tuple(to_datetime(int(stamp)).strftime(form) for stamp in time[:_PLACES])
    return Finding(code, "warning", len(time), message, places)


def _longer_steps(bars: Bars) -> Iterator[Finding]:
    """Bars of which no two follow each other at the stated timeframe are of a longer one."""
    step = int(np.diff(bars.time).min())
    if step >= 2 * bars.timeframe.microseconds:
        fitting = [frame for frame in Timeframe if frame.microseconds <= step]
        message = (
            f"no two bars are {bars.timeframe.value} apart, the nearest are {fitting[-1].value}; "
            f"is the timeframe {fitting[-1].value}?"
        )
        yield Finding("timeframe-doubtful", "warning", len(bars), message)


def _gaps(bars: Bars, calendar: Calendar) -> Iterator[Finding]:
    if calendar.exchange and bars.timeframe is not Timeframe.W1:
        yield from _session_gaps(bars, calendar)
        return
    step, tolerance = bars.timeframe.microseconds, 0
    passed = bars.time
    if bars.timeframe is Timeframe.W1:
        passed = monday_of(calendar.session_date(bars.time, bars.timeframe))
    elif calendar.name == FOREX and bars.timeframe.intraday:
        passed, tolerance = forex_open_time(bars.time, calendar.zone, calendar.roll), _FOREX_TOLERANCE
    elif calendar.name == FOREX:
        date = calendar.session_date(bars.time, bars.timeframe)
        passed = np.asarray(
            np.busday_count("1970-01-01", date.astype("datetime64[us]").astype("datetime64[D]"))
        )
        passed = passed.astype(np.int64) * DAY
    missing = np.diff(passed) - step
    where = np.flatnonzero(missing > tolerance)
    if len(where):
        total, longest = int(missing[where].sum()) // step, int(missing.max()) // step
        message = (
            f"{total:,} scheduled bars are absent in gaps of the {bars.calendar} calendar (longest: {longest:,}); "
            "nothing was filled in."
        )
        yield _warning("gap", message, bars.time[where + 1], bars.timeframe)


def _session_gaps(bars: Bars, calendar: Calendar) -> Iterator[Finding]:
    date_T = calendar.session_date(bars.time, bars.timeframe)
    days, counts = np.unique(date_T, return_counts=True)
    sessions = calendar.sessions(int(days[0]), int(days[-1]))
    inside = (sessions.dates >= days[0]) & (sessions.dates <= days[-1])
    scheduled = sessions.dates[inside]
    if not len(scheduled):
        return
    absent = np.setdiff1d(scheduled, days)
    if len(absent):
        message = f"sessions of {calendar.name} without a bar; nothing was filled in."
        yield _warning("gap", message, absent, Timeframe.D1)
    stray = np.setdiff1d(days, scheduled)
    if len(stray):
        message = f"dates with bars that are no sessions of {calendar.name}; is this the right calendar?"
        yield _warning("unscheduled-bar", message, stray, Timeframe.D1)
    if bars.timeframe.intraday:
        row = sessions.row_of(days)
        needed = (sessions.closes[row] - sessions.opens[row]) // bars.timeframe.microseconds
        thin = days[(row >= 0) & (counts < needed)]
        if len(thin):
            message = f"sessions of {calendar.name} with fewer bars than they last; nothing was filled in."
            yield _warning("short-session", message, thin, Timeframe.D1)


def _scale(steps: FloatArray) -> float:
    """A standard deviation that outliers do not move: 1.4826 x the median absolute value."""
    moving = steps[steps != 0]
    return 1.4826 * float(np.median(np.abs(moving))) if len(moving) else 0.0


def _spikes_and_splits(bars: Bars) -> Iterator[Finding]:
    step = np.diff(np.log(bars.close))
    scale = _scale(step)
    least = max(_SPIKE_SCALES * scale, _SPIKE_LEAST)
    smaller = np.minimum(np.abs(step[:-1]), np.abs(step[1:]))
    returns = (np.sign(step[:-1]) * np.sign(step[1:]) < 0) & (np.abs(step[:-1] + step[1:]) < 0.3 * smaller)
    closes = np.flatnonzero(returns & (smaller > least)) + 1
    body_high, body_low = np.maximum(bars.open, bars.close), np.minimum(bars.open, bars.close)
    wicks = np.flatnonzero(np.maximum(np.log(bars.high / body_high), np.log(body_low / bars.low)) > 2 * least)
    spikes = np.union1d(closes, wicks)
    if len(spikes):
        message = "single bars that leap away and come back; bad ticks look like this."
        yield _warning("spike", message, bars.time[spikes], bars.timeframe)
    jump = np.log(bars.open[1:] / bars.close[:-1])
    distance = np.min(np.abs(np.abs(jump)[:, None] - _SPLIT_RATIOS[None, :]), axis=1)
    like = (distance < _SPLIT_TOLERANCE) & (np.abs(jump) > _SPLIT_SCALES * scale)
    splits = np.setdiff1d(np.flatnonzero(like) + 1, np.append(closes, closes + 1))
    if len(splits):
        message = "jumps between close and open by about 3:2, 2:1, 3:1 ...; if these are splits, import adjusted prices."
        yield _warning("split-like-jump", message, bars.time[splits], bars.timeframe)


def _stale_runs(bars: Bars) -> Iterator[Finding]:
    same = np.ones(len(bars) - 1, dtype=np.bool_)
    for column in (bars.open, bars.high, bars.low, bars.close):
        same &= np.diff(column) == 0
    least = _STALE_BARS[bars.timeframe.intraday]
    edges = np.diff(np.concatenate(([0], same.astype(np.int8), [0])))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    lengths = last - first + 1  # bars in the run, its first one included
    runs = first[lengths >= least]
    if len(runs):
        message = (
            f"runs of {least} and more equal bars (longest: {int(lengths.max()):,}); a feed that stood still."
        )
        yield _warning("stale-run", message, bars.time[runs], bars.timeframe)


def _crossed_quotes(bars: Bars) -> Iterator[Finding]:
    if bars.quotes is None:
        return
    quotes = bars.quotes
    crossed = (quotes.ask_open < quotes.bid_open) | (quotes.ask_close < quotes.bid_close)
    crossed |= (quotes.ask_high < quotes.bid_high) | (quotes.ask_low < quotes.bid_low)
    if crossed.any():
        message = "bars whose ask is below their bid; the spread would be negative."
        yield _warning("crossed-quotes", message, bars.time[crossed], bars.timeframe)
