"""Bars as columns: to a polars frame, from one, and a selection of rows."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt
import polars as pl

from ktrdr.bars import Bars, FloatArray, IntArray, Quotes
from ktrdr.timeframe import Timeframe

__all__ = ["PRICES", "QUOTE_COLUMNS", "bars_from_frame", "concatenate", "frame_of", "take"]

PRICES = ("open", "high", "low", "close")
QUOTE_COLUMNS = tuple(f.name for f in fields(Quotes))


def frame_of(bars: Bars) -> pl.DataFrame:
    """Columns ``time`` (Int64 microseconds), OHLC, ``volume`` and, where present, the eight quote columns."""
    columns: dict[str, IntArray | FloatArray] = {"time": bars.time}
    columns |= {name: getattr(bars, name) for name in (*PRICES, "volume")}
    if bars.quotes is not None:
        columns |= {name: getattr(bars.quotes, name) for name in QUOTE_COLUMNS}
    return pl.DataFrame(columns)


def bars_from_frame(frame: pl.DataFrame, *, symbol: str, timeframe: Timeframe, calendar: str) -> Bars:
    """The inverse of :func:`frame_of`.

    Raises
    ------
    InvalidBars
        If the columns break a rule of :class:`ktrdr.bars.Bars`.
    """
    quotes = None
    if QUOTE_COLUMNS[0] in frame.columns:
        quotes = Quotes(*(frame[name].to_numpy() for name in QUOTE_COLUMNS))
    return Bars(
        symbol=symbol,
        timeframe=timeframe,
        time=frame["time"].to_numpy(),
        open=frame["open"].to_numpy(),
        high=frame["high"].to_numpy(),
        low=frame["low"].to_numpy(),
        close=frame["close"].to_numpy(),
        volume=frame["volume"].to_numpy(),
        calendar=calendar,
        quotes=quotes,
    )


def take(bars: Bars, keep: npt.NDArray[np.bool_]) -> Bars:
    """The rows where ``keep`` (T,) is true."""
    if keep.all():
        return bars
    return bars_from_frame(
        frame_of(bars).filter(pl.Series(keep)),
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        calendar=bars.calendar,
    )


def concatenate(first: Bars, second: Bars) -> Bars:
    """The bars of both, one after the other; both must have quotes or neither."""
    return bars_from_frame(
        pl.concat([frame_of(first), frame_of(second)]),
        symbol=first.symbol,
        timeframe=first.timeframe,
        calendar=first.calendar,
    )
