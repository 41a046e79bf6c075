"""Where stamps may lie, and which calendar a file seems to follow.

Shape suffix: ``N`` = stamps in any order, microseconds UTC.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from ktrdr.bars import IntArray
from ktrdr.market.calendars import ALWAYS, FOREX, Calendar
from ktrdr.market.localtime import DAY, HOUR, to_wall
from ktrdr.timeframe import Timeframe

__all__ = ["forex_open_time", "infer_calendar", "off_grid", "session_stamps"]

BoolArray = npt.NDArray[np.bool_]

_CURRENCIES = (
    "USD|EUR|JPY|GBP|CHF|AUD|NZD|CAD|SEK|NOK|DKK|CNH|CNY|HKD|SGD|MXN|ZAR|TRY|PLN|HUF|CZK|ILS|KRW|INR|BRL|THB"
)
_PAIR = re.compile(rf"({_CURRENCIES})[._-]?({_CURRENCIES})(=X)?\Z")
_SATURDAY_SHARE = 0.02
_HOUR_SHARE = 0.01
_HOURS_AROUND_THE_CLOCK = 20
_THURSDAY = 3  # 1970-01-01, counted from Monday


def infer_calendar(time_N: IntArray, timeframe: Timeframe, symbol: str) -> tuple[str, str]:
    """The calendar that the stamps fit, and why.

    Saturday bars mean ``24/7``; intraday bars around the clock, or a symbol that is a pair of currencies, mean
    ``24/5``; anything else ``XNYS``. Weekly bars show neither: only the symbol is looked at.
    """
    if not len(time_N):
        return ALWAYS, "no stamps"
    weekday_N = (time_N // DAY + _THURSDAY) % 7
    if timeframe is not Timeframe.W1 and float(np.mean(weekday_N == 5)) > _SATURDAY_SHARE:
        return ALWAYS, "inferred: there are Saturday bars"
    if timeframe.intraday:
        share = np.bincount(time_N // HOUR % 24, minlength=24) / len(time_N)
        if timeframe.seconds > 3_600:
            share = np.repeat(share[share > 0], timeframe.seconds // 3_600)[:24]
        if int(np.sum(share > _HOUR_SHARE)) >= _HOURS_AROUND_THE_CLOCK:
            return FOREX, "inferred: bars around the clock, none on Saturdays"
    if _PAIR.match(symbol.upper()):
        return FOREX, "inferred: the symbol is a pair of currencies"
    return "XNYS", "inferred: no Saturday bars, not around the clock. Name another calendar if this is wrong"


def session_stamps(time_N: IntArray, timeframe: Timeframe, calendar: Calendar) -> tuple[IntArray, int]:
    """Daily bars of an exchange, stamped local midnight, as midnight UTC of that date; and how many changed."""
    if timeframe.intraday or not calendar.exchange:
        return time_N, 0
    wall_N = to_wall(time_N, calendar.zone)
    local_N = (wall_N % DAY == 0) & (time_N % DAY != 0)
    return np.where(local_N, wall_N, time_N), int(local_N.sum())


def off_grid(time_N: IntArray, timeframe: Timeframe, calendar: Calendar) -> tuple[BoolArray, str]:
    """(N,) true where no bar can open, and what is expected instead.

    Intraday bars lie on multiples of the timeframe: in UTC, from the roll of a forex day, or, on an exchange, from
    local midnight or half past; the whole file on one of them. Daily bars of ``24/7`` and of exchanges are stamped
    midnight UTC, of ``24/5`` also 17:00 New York.
    """
    if not timeframe.intraday:
        off_N = time_N % DAY != 0
        if calendar.name == FOREX:
            rolled_N = (to_wall(time_N, calendar.zone) - calendar.roll) % DAY == 0
            return off_N & ~rolled_N, "00:00 UTC, or 17:00 New York"
        if calendar.exchange and timeframe is Timeframe.W1:
            weekend_N = (time_N // DAY + _THURSDAY) % 7 >= 5
            return off_N | weekend_N, "00:00 UTC of a day from Monday to Friday"
        return off_N, "00:00 UTC"
    step = timeframe.microseconds
    candidates = [time_N % step != 0]
    if calendar.name != ALWAYS:
        wall_N = to_wall(time_N, calendar.zone) - calendar.roll
        candidates.append(wall_N % step != 0)
        if calendar.exchange:
            candidates.append((wall_N - HOUR // 2) % step != 0)
    best = min(candidates, key=lambda off_N: int(off_N.sum()))
    return best, f"an open time on the {timeframe.value} grid"


def forex_open_time(time_T: IntArray, zone: str, roll: int) -> IntArray:
    """(T,) how long a forex market had been open at each moment, weekends not counted (microseconds)."""
    sunday = 3 * DAY + roll  # Sunday 1970-01-04 at the roll
    since = to_wall(time_T, zone) - sunday
    return since // (7 * DAY) * (5 * DAY) + np.minimum(since % (7 * DAY), 5 * DAY)
