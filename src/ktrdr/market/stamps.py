"""Stamps of a file to microseconds UTC, or the reason why not.

Shape suffix: ``N`` = rows of the file, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from ktrdr.bars import IntArray, to_datetime
from ktrdr.market.localtime import DAY
from ktrdr.market.report import FileFault, Finding, RowFault
from ktrdr.timeframe import Timeframe

__all__ = ["Stamps", "parse_stamps"]

BoolArray = npt.NDArray[np.bool_]

_ISO = (
    r"^(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<clock>\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?))?\s*"
    r"(?P<zone>[Zz]|UTC|[+-]\d{2}:?\d{2})?$"
)
_UNITS = (
    ("seconds", 10**8, 10**6),
    ("milliseconds", 10**11, 10**3),
    ("microseconds", 10**14, 1),
    ("nanoseconds", 10**17, 0),
)
_EARLIEST, _LATEST = 1900, 2100
_ACCEPTED = "2015-01-31, 2015-01-31T14:00:00Z, 2015-01-31 14:00:00+01:00, or an epoch number"
_NAIVE_FIX = "Write UTC stamps (end them with Z) or offsets (+01:00), or name the zone they are in (time_zone, --time-zone)."


@dataclass(slots=True)
class Stamps:
    """``time`` (N,) int64 microseconds UTC, valid where ``good`` (N,); ``faults`` explain the rest."""

    time: IntArray
    good: BoolArray
    faults: list[RowFault | FileFault] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)

    def reject(self, bad_N: BoolArray, code: str, column: str, expected: str, fix: str) -> None:
        """Take rows out, and say why."""
        rows = np.flatnonzero(bad_N & self.good)
        if len(rows):
            self.good[rows] = False
            self.faults.append(RowFault(code, column, rows, expected, fix))

    def refuse(self, code: str, message: str, column: str) -> None:
        """The whole column cannot be used."""
        self.good[:] = False
        self.faults.append(FileFault(code, message, f"column {column}"))


def parse_stamps(values: pl.Series, timeframe: Timeframe, *, time_zone: str | None = None) -> Stamps:
    """Read a time column: text, dates, date-times, or epoch numbers in s, ms, µs or ns.

    Parameters
    ----------
    values
        N cells; the name is used in faults.
    timeframe
        Of the bars: a plain date is the session date of a daily or weekly bar, and no stamp of an hourly one.
    time_zone
        IANA zone of date-times without an offset; without it they are refused, except midnights of daily bars.
    """
    if values.dtype == pl.String:
        stamps = _of_text(values, timeframe, time_zone)
    elif values.dtype == pl.Date:
        stamps = _plain_dates(values.cast(pl.Datetime("us")), timeframe)
    elif isinstance(values.dtype, pl.Datetime):
        stamps = _of_datetimes(values, timeframe, time_zone)
    elif values.dtype.is_integer():
        stamps = _of_numbers(values.cast(pl.Int64), timeframe)
    else:
        stamps = _empty(len(values))
        message = f"the type is {values.dtype}, expected {_ACCEPTED}. Convert the column."
        stamps.refuse("time-not-recognised", message, values.name)
    _check_plausible(stamps, values.name)
    return stamps


def _empty(count: int) -> Stamps:
    return Stamps(np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.bool_))


def _of_text(values: pl.Series, timeframe: Timeframe, time_zone: str | None) -> Stamps:
    text = values.str.strip_chars()
    numeric = text.str.contains(r"^-?\d+$").fill_null(False)
    if numeric.any() and numeric.mean() > 0.5:  # type: ignore[operator]
        return _of_numbers(text.cast(pl.Int64, strict=False).alias(values.name), timeframe)
    parts = text.str.extract_groups(_ISO).struct.unnest()
    clock = parts["clock"].fill_null("00:00:00")
    clock = clock.str.replace(r"^(\d{2}:\d{2})$", "${1}:00")
    moment = (parts["date"] + " " + clock).str.to_datetime(
        "%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False
    )
    zone_N, wall = parts["zone"], moment.cast(pl.Int64)
    stamps = _empty(len(values))
    missing = moment.is_null().to_numpy()
    stamps.reject(missing, "time-not-recognised", values.name, _ACCEPTED, "Write ISO 8601 stamps.")
    naive_N = (zone_N.is_null() & moment.is_not_null()).to_numpy()
    stamps.time = wall.fill_null(0).to_numpy() - _offsets(zone_N)
    if naive_N.any() and (~naive_N & stamps.good).any():
        few = naive_N if naive_N.sum() * 2 <= len(naive_N) else ~naive_N
        expected = "every stamp with an offset, or none"
        stamps.reject(
            few, "mixed-time-zones", values.name, expected, "Write all stamps in UTC, ending with Z."
        )
    if naive_N.any():
        _place_naive(stamps, naive_N, values.name, timeframe, time_zone, parts["clock"].is_null().to_numpy())
    return stamps


def _offsets(zone_N: pl.Series) -> IntArray:
    """(N,) the offsets from UTC in microseconds; 0 for Z, UTC and none."""
    parts = zone_N.str.extract_groups(r"^([+-])(\d{2}):?(\d{2})$").struct.unnest()
    minutes = parts.to_series(1).cast(pl.Int64) * 60 + parts.to_series(2).cast(pl.Int64)
    sign = pl.when(parts.to_series(0) == "-").then(-1).otherwise(1)
    signed = pl.select((sign * minutes * 60_000_000).fill_null(0)).to_series()
    return signed.cast(pl.Int64).to_numpy()


def _of_datetimes(values: pl.Series, timeframe: Timeframe, time_zone: str | None) -> Stamps:
    dtype = values.dtype
    assert isinstance(dtype, pl.Datetime)
    moment = values.dt.cast_time_unit("us").cast(pl.Int64)
    stamps = _empty(len(values))
    stamps.time = moment.fill_null(0).to_numpy().copy()
    stamps.reject(
        moment.is_null().to_numpy(), "missing-value", values.name, _ACCEPTED, "Fill it in or remove the row."
    )
    if dtype.time_zone is None:
        naive_N = np.ones(len(values), dtype=np.bool_)
        _place_naive(
            stamps, naive_N, values.name, timeframe, time_zone, np.zeros(len(values), dtype=np.bool_)
        )
    return stamps


def _plain_dates(values: pl.Series, timeframe: Timeframe) -> Stamps:
    stamps = _empty(len(values))
    moment = values.cast(pl.Int64)
    stamps.time = moment.fill_null(0).to_numpy().copy()
    stamps.reject(
        moment.is_null().to_numpy(), "missing-value", values.name, "a date", "Fill it in or remove the row."
    )
    every = np.ones(len(values), dtype=np.bool_)
    _place_naive(stamps, every, values.name, timeframe, None, every)
    return stamps


def _place_naive(
    stamps: Stamps,
    naive_N: BoolArray,
    column: str,
    timeframe: Timeframe,
    time_zone: str | None,
    plain_N: BoolArray,
) -> None:
    """Stamps without an offset: session dates, or a declared zone, or a fault."""
    naive_N = naive_N & stamps.good
    midnight_N = stamps.time % DAY == 0
    if not timeframe.intraday and bool(midnight_N[naive_N].all()):
        return
    if timeframe.intraday and bool(plain_N[naive_N].all()) and naive_N.any():
        message = f"seen dates without a time of day, expected the open time of each {timeframe.value} bar. Import as 1d, or write date-times."
        stamps.refuse("date-without-time", message, column)
        return
    if time_zone is None:
        expected = "a stamp with its offset from UTC"
        stamps.reject(naive_N, "naive-time-zone", column, expected, _NAIVE_FIX)
        return
    local = pl.Series(stamps.time).cast(pl.Datetime("us")).dt
    first = local.replace_time_zone(time_zone, ambiguous="earliest", non_existent="null")
    second = local.replace_time_zone(time_zone, ambiguous="latest", non_existent="null")
    skipped = first.is_null().to_numpy() & naive_N
    stamps.reject(
        skipped, "dst-gap", column, f"a time that exists in {time_zone}", "Clocks skip it; write UTC stamps."
    )
    twice = (first != second).fill_null(False).to_numpy() & naive_N
    stamps.reject(twice, "dst-fold", column, f"a time that occurs once in {time_zone}", "Write UTC stamps.")
    utc = first.cast(pl.Int64).fill_null(0).to_numpy()
    stamps.time = np.where(naive_N, utc, stamps.time)


def _of_numbers(values: pl.Series, timeframe: Timeframe) -> Stamps:
    """Epoch numbers, their unit told by their size; or dates written as 20150131."""
    stamps = _empty(len(values))
    stamps.reject(
        values.is_null().to_numpy(), "time-not-recognised", values.name, _ACCEPTED, "Correct or remove it."
    )
    number_N = values.fill_null(0).to_numpy()
    dates_N = stamps.good & (number_N >= _EARLIEST * 10_000) & (number_N < (_LATEST + 1) * 10_000)
    if 2 * dates_N.sum() > stamps.good.sum():
        _read_written_dates(stamps, number_N, dates_N, values.name, timeframe)
        return stamps
    size_N = np.abs(number_N)
    unit_N = np.searchsorted([lower for _, lower, _ in _UNITS], size_N, side="right") - 1
    known = unit_N[stamps.good & (unit_N >= 0)]
    if not len(known):
        stamps.reject(
            stamps.good.copy(), "time-not-recognised", values.name, _ACCEPTED, "Convert the column."
        )
        return stamps
    unit = int(np.bincount(known).argmax())
    name, _, factor = _UNITS[unit]
    fix = "Seconds, milli-, micro- and nanoseconds must not be mixed; convert them to one unit."
    stamps.reject(unit_N != unit, "time-unit-mix", values.name, f"epoch {name} as in the other rows", fix)
    stamps.time = number_N * factor if factor else number_N // 1_000
    stamps.time[~stamps.good] = 0
    stamps.notes.append(Finding("epoch-stamps", "note", len(values), f"stamps read as epoch {name}."))
    return stamps


def _read_written_dates(
    stamps: Stamps, number_N: IntArray, dates_N: BoolArray, column: str, timeframe: Timeframe
) -> None:
    """20150131 as the date it shows."""
    shown = pl.Series(number_N).cast(pl.String).str.to_date("%Y%m%d", strict=False)
    readable = dates_N & shown.is_not_null().to_numpy()
    stamps.reject(~readable, "time-not-recognised", column, "a date as in the other rows", "Correct it.")
    stamps.time = np.where(readable, shown.cast(pl.Datetime("us")).cast(pl.Int64).fill_null(0).to_numpy(), 0)
    stamps.notes.append(Finding("dates-as-numbers", "note", len(number_N), "stamps read as YYYYMMDD dates."))
    _place_naive(stamps, dates_N, column, timeframe, None, dates_N)


def _check_plausible(stamps: Stamps, column: str) -> None:
    first = int(np.datetime64(f"{_EARLIEST}-01-01", "us").astype(np.int64))
    last = int(np.datetime64(f"{_LATEST + 1}-01-01", "us").astype(np.int64))
    outside_N = (stamps.time < first) | (stamps.time >= last)
    expected = f"a year from {_EARLIEST} to {_LATEST}"
    stamps.reject(
        outside_N, "implausible-time", column, expected, "A wrong unit (s, ms, us, ns) looks like this."
    )
    good = stamps.time[stamps.good]
    if len(good) > 1 and good.min() >= 0 and good.max() < 31 * DAY:
        message = (
            f"seen {to_datetime(int(good[0]))} as the first stamp and all of them in January 1970, expected real "
            "dates. Seconds were read as milliseconds, or milliseconds as microseconds: convert the column."
        )
        stamps.refuse("time-unit", message, column)
