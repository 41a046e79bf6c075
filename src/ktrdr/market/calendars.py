"""Trading calendars: when a bar becomes known, how many bars a year has, where a day begins.

Three kinds: ``24/7`` (days and weeks in UTC, weeks from Monday), ``24/5`` (foreign exchange: open from Sunday
17:00 to Friday 17:00 New York; the day rolls at 17:00 New York) and exchange codes such as ``XNYS``.
Shape suffix: ``T`` = bars in time order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np

from ktrdr.bars import Bars, IntArray
from ktrdr.errors import InvalidInput
from ktrdr.market.localtime import DAY, HOUR, from_wall, to_wall
from ktrdr.market.sessions import Sessions, exchange_sessions, exchange_zone
from ktrdr.timeframe import Timeframe

__all__ = ["ALWAYS", "FOREX", "Calendar", "bars_per_year", "calendar_named", "known_at"]

ALWAYS = "24/7"
FOREX = "24/5"
_WEEK = 7 * DAY
_FRIDAY = 4  # days after Monday
_MONDAY = 4 * DAY  # 1970-01-05 was the first Monday
_FOREX_WEEKS_PER_YEAR = 52.1775
_FOREX_HOURS_PER_WEEK = 120


@dataclass(frozen=True, slots=True)
class Calendar:
    """Where days begin. ``zone`` is an IANA name, ``roll`` how long after local midnight the day starts (µs)."""

    name: str
    zone: str
    roll: int

    @property
    def exchange(self) -> bool:
        """True where sessions come from an exchange's schedule."""
        return self.name not in (ALWAYS, FOREX)

    def session_date(self, time_T: IntArray, timeframe: Timeframe) -> IntArray:
        """(T,) midnight UTC of the date whose session each bar belongs to.

        Daily and weekly bars of an exchange are stamped with the date itself. A forex session is named by the
        day on which it ends; what trades between Friday and Sunday 17:00 New York belongs to Monday.
        """
        if self.name == ALWAYS or (self.exchange and not timeframe.intraday):
            return time_T // DAY * DAY
        wall = to_wall(time_T, self.zone)
        if self.exchange:
            return wall // DAY * DAY
        date = (wall + (DAY - self.roll)) // DAY * DAY
        weekday = (date - _MONDAY) // DAY % 7
        moved: IntArray = date + np.where(weekday > _FRIDAY, 7 - weekday, 0) * DAY
        return moved

    def open_stamp(self, date_T: IntArray) -> IntArray:
        """(T,) the stamp of the daily bar of each session date."""
        return date_T if self.name != FOREX else from_wall(date_T - DAY + self.roll, self.zone)

    def sessions(self, first: int, last: int) -> Sessions:
        """The exchange's sessions of the years that hold the two moments (microseconds)."""
        return exchange_sessions(self.name, _year(first), _year(last))


@lru_cache(maxsize=64)
def calendar_named(name: str) -> Calendar:
    """The calendar called ``name``: ``24/7``, ``24/5`` or an exchange code.

    Raises
    ------
    InvalidInput
        If there is none; the message gives the nearest name.
    """
    if name == ALWAYS:
        return Calendar(name, "UTC", 0)
    if name == FOREX:
        return Calendar(name, "America/New_York", 17 * HOUR)
    return Calendar(name, exchange_zone(name), 0)


def monday_of(date_T: IntArray) -> IntArray:
    """(T,) midnight UTC of the Monday on or before each date."""
    return (date_T - _MONDAY) // _WEEK * _WEEK + _MONDAY


def known_at(bars: Bars) -> IntArray:
    """When each bar is complete and may be used.

    Parameters
    ----------
    bars
        T bars.

    Returns
    -------
    (T,) int64 microseconds since 1970-01-01 UTC, increasing.

    Notes
    -----
    Intraday bars: stamp + timeframe. Daily bars of an exchange: that session's close, half days included; of
    ``24/5``: 17:00 New York, but never before stamp + 24 h (a vendor's day may end at midnight UTC); of ``24/7``:
    stamp + 24 h. Weekly bars: the close of the week's last session, Friday 17:00 New York, stamp + 7 days.
    A daily bar on a date without a scheduled session, or in a year the calendar does not know, is known at
    stamp + 24 h: late rather than early.
    """
    calendar, timeframe = calendar_named(bars.calendar), bars.timeframe
    plain = bars.time + timeframe.microseconds
    if timeframe.intraday or calendar.name == ALWAYS or not len(bars):
        return plain
    date_T = calendar.session_date(bars.time, timeframe)
    if calendar.exchange:
        sessions = calendar.sessions(int(date_T[0]), int(date_T[-1]) + _WEEK)
        closes = _weekly_close if timeframe is Timeframe.W1 else _daily_close
        return closes(sessions, date_T, plain)
    if timeframe is Timeframe.W1:
        return from_wall(monday_of(date_T) + _FRIDAY * DAY + calendar.roll, calendar.zone)
    return np.maximum(from_wall(date_T + calendar.roll, calendar.zone), plain)


def _daily_close(sessions: Sessions, date_T: IntArray, plain_T: IntArray) -> IntArray:
    row_T = sessions.row_of(date_T)
    if not len(sessions.closes):
        return plain_T
    return np.where(row_T >= 0, sessions.closes[row_T], plain_T)


def _weekly_close(sessions: Sessions, date_T: IntArray, plain_T: IntArray) -> IntArray:
    """The close of the last session before the next Monday, where the week has one."""
    if not len(sessions.closes):
        return plain_T
    monday_T = monday_of(date_T)
    last_T = np.searchsorted(sessions.dates, monday_T + _WEEK).astype(np.int64) - 1
    within = (last_T >= 0) & (sessions.dates[last_T] >= monday_T)
    return np.where(within, sessions.closes[last_T], plain_T)


def bars_per_year(calendar: str, timeframe: Timeframe, start: datetime, end: datetime) -> float:
    """Scheduled bars in an average year: the ``A`` of annualised statistics.

    Parameters
    ----------
    calendar
        ``24/7`` (365.25 days), ``24/5`` (52.1775 weeks of 120 hours) or an exchange code.
    timeframe
        The bars' length.
    start, end
        The range whose calendar years are averaged for an exchange; ignored otherwise.

    Returns
    -------
    For an exchange, sessions per calendar year, averaged over the whole years that ``start .. end`` touches
    (a month's range is not extrapolated); intraday, the bars that each session needs, half days counted as such:
    seven hourly bars for 09:30-16:00.

    Raises
    ------
    InvalidInput
        If the calendar is unknown or knows none of these years.
    """
    kind = calendar_named(calendar)
    if kind.name == ALWAYS:
        return 365.25 * 86_400 / timeframe.seconds
    if kind.name == FOREX:
        if timeframe.intraday:
            return _FOREX_WEEKS_PER_YEAR * _FOREX_HOURS_PER_WEEK * 3_600 / timeframe.seconds
        return _FOREX_WEEKS_PER_YEAR * (5 if timeframe is Timeframe.D1 else 1)
    return _exchange_bars_per_year(calendar, timeframe, start.year, end.year)


@lru_cache(maxsize=256)
def _exchange_bars_per_year(calendar: str, timeframe: Timeframe, first: int, last: int) -> float:
    sessions = exchange_sessions(calendar, first, last)
    year, within = np.divmod(
        sessions.dates.astype("datetime64[us]").astype("datetime64[M]").astype(np.int64), 12
    )
    # Years at the edge of what the calendar knows would count as thin; whole ones have a January and a December.
    whole = np.intersect1d(year[within == 0], year[within == 11])
    years = whole if len(whole) else np.unique(year)
    if not len(years):
        raise InvalidInput(
            f"The calendar {calendar} knows no sessions in {first}..{last}; choose other dates."
        )
    counted = np.isin(year, years)
    if timeframe is Timeframe.W1:
        return len(np.unique(monday_of(sessions.dates[counted]))) / len(years)
    if timeframe is Timeframe.D1:
        return int(counted.sum()) / len(years)
    lengths = sessions.closes[counted] - sessions.opens[counted]
    return math.fsum(np.ceil(lengths / timeframe.microseconds)) / len(years)


def _year(moment: int) -> int:
    return datetime.fromtimestamp(moment // 1_000_000, UTC).year
