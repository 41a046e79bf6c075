"""Shorter bars into longer ones: open first, high highest, low lowest, close last, volume summed.

Shape suffixes: ``T`` = source bars, ``N`` = resulting bars.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ktrdr.bars import Bars, FloatArray, IntArray, Quotes
from ktrdr.errors import InvalidInput
from ktrdr.market.calendars import FOREX, Calendar, calendar_named, known_at, monday_of
from ktrdr.market.frames import take
from ktrdr.market.localtime import to_wall
from ktrdr.timeframe import Timeframe

__all__ = ["can_resample", "resample"]


def can_resample(calendar: str, source: Timeframe, target: Timeframe) -> bool:
    """True where whole ``source`` bars make up each ``target`` bar.

    On ``24/5`` days start at 17:00 New York, which 2-hour and 4-hour bars on the UTC grid straddle; so days and
    weeks are made there from bars of one hour or less, and weeks from days.
    """
    if source.seconds >= target.seconds or target.seconds % source.seconds:
        return False
    return not (calendar == FOREX and not target.intraday and 3_600 < source.seconds < 86_400)


def resample(bars: Bars, timeframe: Timeframe) -> Bars:
    """Bars of a longer timeframe.

    Parameters
    ----------
    bars
        T bars.
    timeframe
        A multiple of theirs; equal to theirs returns ``bars`` unchanged.

    Returns
    -------
    Bars
        N bars, one for each period in which the source has at least one; periods without a bar stay absent.
        A last bar that is not complete when the last source bar is known is left out, so that every bar returned
        stays as it is when later bars are appended (the prefix law). Bid and ask, where present, are resampled
        likewise, each column by itself.

    Raises
    ------
    InvalidInput
        If ``timeframe`` is shorter than the bars', no multiple, or the bars would straddle its days.

    Notes
    -----
    Periods start: ``24/7`` at multiples of the timeframe in UTC, weeks on Monday; ``24/5`` days at 17:00 New York
    (so their stamps move with daylight saving), intraday at multiples counted from there, weeks on Sunday 17:00;
    exchanges: days and weeks are stamped midnight UTC of the session's date and of the week's Monday, intraday
    periods start at multiples of the timeframe from local midnight, plus the source's own offset within its grid
    (half past, where its hours start at half past). Days of an exchange are made of the bars that overlap the
    scheduled session: what trades after the close is not known at the close, and belongs to no day. What a ``24/5`` source has between Friday and Sunday 17:00
    goes into Monday.
    """
    if timeframe is bars.timeframe:
        return bars
    if not can_resample(bars.calendar, bars.timeframe, timeframe):
        raise InvalidInput(
            f"{bars.symbol} {bars.timeframe} bars ({bars.calendar}) cannot be resampled to {timeframe}: "
            "the target must be a longer multiple whose periods hold whole source bars. Import finer bars."
        )
    calendar, now = calendar_named(bars.calendar), known_at(bars[-1:])
    if calendar.exchange and bars.timeframe.intraday and not timeframe.intraday:
        bars = _within_sessions(bars, calendar)
    if not len(bars):
        return _aggregate(bars, timeframe, bars.time, np.empty(0, dtype=np.int64))
    stamp_T = _period_stamps(bars, timeframe, calendar)
    first_N = np.flatnonzero(np.diff(stamp_T, prepend=stamp_T[0] - 1))
    result = _aggregate(bars, timeframe, stamp_T[first_N], first_N)
    complete = int(np.searchsorted(known_at(result), now[0], side="right"))
    return result[:complete]


def _within_sessions(bars: Bars, calendar: Calendar) -> Bars:
    """The bars that overlap their date's session; dates the calendar does not know keep all of theirs."""
    if not len(bars):
        return bars
    date_T = calendar.session_date(bars.time, bars.timeframe)
    sessions = calendar.sessions(int(date_T[0]), int(date_T[-1]))
    row_T = sessions.row_of(date_T)
    if not len(sessions.dates):
        return bars
    early_T = bars.time + bars.timeframe.microseconds <= sessions.opens[row_T]
    late_T = bars.time >= sessions.closes[row_T]
    return take(bars, (row_T < 0) | ~(early_T | late_T))


def _period_stamps(bars: Bars, timeframe: Timeframe, calendar: Calendar) -> IntArray:
    """(T,) the stamp of the period that each bar falls into; increasing."""
    if timeframe.intraday:
        return _intraday_stamps(bars, timeframe, calendar)
    date_T = calendar.session_date(bars.time, bars.timeframe)
    return calendar.open_stamp(monday_of(date_T) if timeframe is Timeframe.W1 else date_T)


def _intraday_stamps(bars: Bars, timeframe: Timeframe, calendar: Calendar) -> IntArray:
    wall_T = to_wall(bars.time, calendar.zone) - calendar.roll
    # The first bar alone decides the offset: it never changes when bars are appended.
    phase = int(wall_T[0]) % bars.timeframe.microseconds if calendar.exchange else 0
    within_T = (wall_T - phase) % timeframe.microseconds
    stamp_T = bars.time - within_T
    # Where clocks go forward inside a period its bars disagree about the start; the earliest bar is right.
    return np.maximum.accumulate(stamp_T)


def _aggregate(bars: Bars, timeframe: Timeframe, stamp_N: IntArray, first_N: IntArray) -> Bars:
    last_N = np.append(first_N[1:], len(bars)) - 1 if len(first_N) else first_N

    def fold(name: str, values_T: FloatArray) -> FloatArray:
        if not len(first_N) or name.endswith("open"):
            return values_T[first_N]
        if name.endswith("high"):
            return np.maximum.reduceat(values_T, first_N)
        if name.endswith("low"):
            return np.minimum.reduceat(values_T, first_N)
        if name.endswith("close"):
            return values_T[last_N]
        return np.add.reduceat(values_T, first_N)

    quotes = bars.quotes
    return Bars(
        symbol=bars.symbol,
        timeframe=timeframe,
        time=stamp_N,
        calendar=bars.calendar,
        quotes=None
        if quotes is None
        else Quotes(*(fold(f.name, getattr(quotes, f.name)) for f in fields(quotes))),
        **{name: fold(name, getattr(bars, name)) for name in ("open", "high", "low", "close", "volume")},
    )
