"""Bars: the noun everyone shares. Valid once made, immutable, NumPy arrays from here on.

Shape suffix used in this package: ``T`` = bars in time order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime

import numpy as np
import numpy.typing as npt

from ktrdr.errors import FieldError, InvalidBars, InvalidInput
from ktrdr.timeframe import Timeframe

__all__ = ["Bars", "FloatArray", "IntArray", "Quotes", "TimeLike", "parse_time", "to_datetime"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
TimeLike = str | date | datetime | int | np.integer | np.datetime64
"""A moment as people and arrays write it; see :func:`parse_time`."""

_PRICES = ("open", "high", "low", "close")
_MOST_FAULTS_SHOWN = 20


def parse_time(value: TimeLike) -> int:
    """Read a moment as microseconds since 1970-01-01 UTC.

    Accepts ISO dates (midnight UTC) and date-times, as text or as objects, and stamps in microseconds, such as an
    element of ``Bars.time``; a date-time without an offset is read as UTC.

    Raises
    ------
    InvalidInput
        If the value is none of these.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise _no_date(value) from None
    if not isinstance(value, date):
        raise _no_date(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    delta = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def _no_date(value: object) -> InvalidInput:
    return InvalidInput(f"'{value}' is not a date. Write it as 2015-01-31 or 2015-01-31T14:00:00Z.")


def to_datetime(stamp: int) -> datetime:
    """The aware UTC datetime of a stamp in microseconds."""
    seconds, micros = divmod(int(stamp), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


@dataclass(frozen=True, slots=True, eq=False)
class Quotes:
    """Bid and ask OHLC of the same bars, each of shape (T,) float64."""

    bid_open: FloatArray
    bid_high: FloatArray
    bid_low: FloatArray
    bid_close: FloatArray
    ask_open: FloatArray
    ask_high: FloatArray
    ask_low: FloatArray
    ask_close: FloatArray

    def __getitem__(self, index: slice) -> Quotes:
        return Quotes(*(column[index] for column in self.columns()))

    def columns(self) -> Iterator[FloatArray]:
        """The eight arrays in field order."""
        return (getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """OHLCV bars of one symbol and timeframe.

    Parameters
    ----------
    symbol, timeframe
        What the bars are of.
    time
        (T,) int64, UTC open time of each bar in microseconds since 1970-01-01; strictly increasing.
    open, high, low, close
        (T,) float64; finite, positive, ``low <= open, close <= high``.
    volume
        (T,) float64; finite, not negative; all zero where the source has none (see ``has_volume``).
    calendar
        ``24/7``, ``24/5`` (FX, the day rolls at 17:00 New York) or an exchange code such as ``XNYS``.
    quotes
        Bid and ask, where the source has them; the traded columns are then the mid.

    Raises
    ------
    InvalidBars
        If any rule above is broken; ``errors`` name row, column and value (the first 20).

    Notes
    -----
    The arrays are made read-only. Indexing with a slice gives Bars over the same memory.
    """

    symbol: str
    timeframe: Timeframe
    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    calendar: str = "24/7"
    quotes: Quotes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "time", _frozen(self.time, np.int64))
        for name in (*_PRICES, "volume"):
            object.__setattr__(self, name, _frozen(getattr(self, name), np.float64))
        if self.quotes is not None:
            columns = [_frozen(column, np.float64) for column in self.quotes.columns()]
            object.__setattr__(self, "quotes", Quotes(*columns))
        faults = list(_faults(self))
        if faults:
            raise InvalidBars(f"The bars of {self.symbol} {self.timeframe} are not valid", faults)

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, index: slice) -> Bars:
        """Bars of a contiguous range of rows; views, not copies, and not checked again."""
        part = object.__new__(Bars)
        for f in fields(self):
            value = getattr(self, f.name)
            sliced = value[index] if isinstance(value, np.ndarray | Quotes) else value
            object.__setattr__(part, f.name, sliced)
        return part

    def __repr__(self) -> str:
        span = f"{self.start:%Y-%m-%d} .. {self.end:%Y-%m-%d}" if len(self) else "empty"
        return f"Bars({self.symbol} {self.timeframe}, {len(self):,} bars, {span}, {self.calendar})"

    @property
    def start(self) -> datetime:
        """Open time of the first bar."""
        return to_datetime(self.time[0])

    @property
    def end(self) -> datetime:
        """Open time of the last bar."""
        return to_datetime(self.time[-1])

    @property
    def has_volume(self) -> bool:
        """False where the source gave no volume (all zero)."""
        return bool(np.any(self.volume > 0))

    def between(self, start: TimeLike | None, end: TimeLike | None) -> Bars:
        """Bars whose open time lies in ``[start, end]``; an ``end`` given as a plain date includes that day."""
        return self[self.rows_between(start, end)]

    def rows_between(self, start: TimeLike | None, end: TimeLike | None) -> slice:
        """The rows that :meth:`between` would return, as a slice."""
        first = 0 if start is None else int(np.searchsorted(self.time, parse_time(start), side="left"))
        last = len(self)
        if end is not None:
            limit = parse_time(end)
            if _is_plain_date(end):
                limit += 86_400_000_000 - 1
            last = int(np.searchsorted(self.time, limit, side="right"))
        return slice(first, max(first, last))

    def with_symbol(self, symbol: str) -> Bars:
        """The same bars under another name."""
        return replace(self, symbol=symbol)

    def digest(self) -> str:
        """SHA-256 over the canonical little-endian arrays; independent of symbol, file format and platform."""
        sha = hashlib.sha256(self.timeframe.encode())
        columns: list[np.ndarray] = [self.time, self.open, self.high, self.low, self.close, self.volume]
        columns += [] if self.quotes is None else list(self.quotes.columns())
        for column in columns:
            sha.update(np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<")).data)
        return sha.hexdigest()


def _is_plain_date(value: TimeLike) -> bool:
    """True for a day without a time of day, in any of the spellings that :func:`parse_time` reads."""
    if isinstance(value, np.datetime64):
        return np.datetime_data(value.dtype)[0] == "D"
    if isinstance(value, str):
        try:
            date.fromisoformat(value.strip())
        except ValueError:
            return False
        return True
    return isinstance(value, date) and not isinstance(value, datetime)


def _frozen(values: npt.ArrayLike, dtype: type[np.generic]) -> np.ndarray:
    array = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.copy() if array is values or array.base is not None else array
        array.flags.writeable = False
    return array


def _faults(bars: Bars) -> Iterator[FieldError]:
    shapes = {name: getattr(bars, name).shape for name in ("time", *_PRICES, "volume")}
    if bars.quotes is not None:
        shapes |= {f.name: getattr(bars.quotes, f.name).shape for f in fields(bars.quotes)}
    if len(set(shapes.values())) != 1 or bars.time.ndim != 1:
        yield FieldError("", f"columns differ in shape: {shapes}")
        return
    checks: list[tuple[str, np.ndarray, str]] = [
        ("time", np.diff(bars.time, prepend=bars.time[:1] - 1) <= 0, "stamps must increase strictly")
    ]
    checks += [
        (n, ~(np.isfinite(getattr(bars, n)) & (getattr(bars, n) > 0)), "must be finite and > 0")
        for n in _PRICES
    ]
    checks += [
        ("volume", ~(np.isfinite(bars.volume) & (bars.volume >= 0)), "must be finite and >= 0"),
        ("low", (bars.low > bars.open) | (bars.low > bars.close), "low is above open or close"),
        ("high", (bars.high < bars.open) | (bars.high < bars.close), "high is below open or close"),
    ]
    if bars.quotes is not None:
        checks += [
            (f.name, ~np.isfinite(getattr(bars.quotes, f.name)), "must be finite")
            for f in fields(bars.quotes)
        ]
    for name, bad, rule in checks:
        for row in np.flatnonzero(bad)[:_MOST_FAULTS_SHOWN]:
            source = bars if hasattr(bars, name) else bars.quotes
            yield FieldError(f"row {row}, column {name}", f"{rule}, seen {getattr(source, name)[row]}")
