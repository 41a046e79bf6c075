"""Exchange sessions, from ``exchange_calendars``; the only module that loads that library (and with it pandas)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ktrdr.bars import IntArray
from ktrdr.errors import InvalidInput, nearest

__all__ = ["Sessions", "exchange_sessions", "exchange_zone"]

# What most users need is written down here, so that resampling a US file does not load pandas.
_KNOWN_ZONES = {"XNYS": "America/New_York"}


@dataclass(frozen=True, slots=True, eq=False)
class Sessions:
    """Scheduled sessions in time order.

    ``dates`` is midnight UTC of the session's date, ``opens`` and ``closes`` are moments; int64
    microseconds, equally long, counted since 1970-01-01 UTC. Half days have their early close.
    """

    dates: IntArray
    opens: IntArray
    closes: IntArray

    def row_of(self, dates: IntArray) -> IntArray:
        """The row of each session date, -1 where that date has no session."""
        if not len(self.dates):
            return np.full(len(dates), -1, dtype=np.int64)
        row = np.searchsorted(self.dates, dates).astype(np.int64)
        inside = np.minimum(row, len(self.dates) - 1)
        return np.where(self.dates[inside] == dates, inside, -1)


def _library() -> Any:
    import exchange_calendars  # lazy: brings pandas, half a second

    return exchange_calendars


def _check_code(code: str) -> None:
    names = _library().get_calendar_names(include_aliases=True)
    if code not in names:
        raise InvalidInput(
            f"Unknown calendar '{code}'{nearest(code.upper(), names) or '.'} Accepted: 24/7, 24/5, or an exchange "
            "code such as XNYS, XLON, XTKS."
        )


def _open_calendar(code: str, **limits: str) -> Any:
    with warnings.catch_warnings():
        # exchange_calendars 4 uses a pandas accessor that pandas 3 announces to change; its result is right.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return _library().get_calendar(code, **limits)


@lru_cache(maxsize=64)
def exchange_zone(code: str) -> str:
    """The exchange's IANA time zone.

    Raises
    ------
    InvalidInput
        If the code is unknown; the message gives the nearest one.
    """
    if code in _KNOWN_ZONES:
        return _KNOWN_ZONES[code]
    _check_code(code)
    return str(_open_calendar(code).tz)


@lru_cache(maxsize=64)
def exchange_sessions(code: str, first_year: int, last_year: int) -> Sessions:
    """The sessions of whole years, as far as the library knows them (what is earlier or later is left out).

    Raises
    ------
    InvalidInput
        If the code is unknown.
    """
    _check_code(code)
    default = _open_calendar(code)
    lower, upper = default.bound_min(), default.bound_max()
    # ISO dates compare as text.
    first = max(f"{first_year:04d}-01-01", "" if lower is None else f"{lower:%Y-%m-%d}")
    last = min(f"{last_year:04d}-12-31", "9999" if upper is None else f"{upper:%Y-%m-%d}")
    if first > last:
        empty = np.empty(0, dtype=np.int64)
        return Sessions(empty, empty, empty)
    calendar = _open_calendar(code, start=first, end=last)
    schedule = calendar.schedule
    return Sessions(
        _microseconds(schedule.index),
        _microseconds(schedule["open"].dt.tz_convert(None)),
        _microseconds(schedule["close"].dt.tz_convert(None)),
    )


def _microseconds(moments: Any) -> IntArray:
    values: IntArray = moments.to_numpy().astype("datetime64[us]").astype(np.int64)
    return values
