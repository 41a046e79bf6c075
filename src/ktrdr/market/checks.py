"""Rules that no true bar breaks: applied to every row before it may become a bar.

Shape suffix: ``N`` = rows still under examination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ktrdr.bars import FloatArray, IntArray
from ktrdr.market.columns import Columns
from ktrdr.market.frames import PRICES
from ktrdr.market.report import Finding, RowFault
from ktrdr.market.tables import Table

__all__ = ["Rows", "impossible_spikes", "number_columns", "order_faults", "value_faults"]

BoolArray = npt.NDArray[np.bool_]

_FIX_NUMBER = "Correct the cell or remove the row."
_IMPOSSIBLE = np.log(10.0)
_COMMA = r"^[+-]?\d+,\d+$"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows as numbers. ``origin`` (N,) is each row's position in the table; ``values`` our names to (N,) arrays."""

    origin: IntArray
    time: IntArray
    values: dict[str, FloatArray]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: npt.NDArray[np.int64] | BoolArray) -> Rows:
        """A selection or another order of the rows."""
        values = {name: array[index] for name, array in self.values.items()}
        return Rows(self.origin[index], self.time[index], values)


def number_columns(
    table: Table, columns: Columns
) -> tuple[dict[str, FloatArray], list[RowFault], list[Finding]]:
    """Every number column as float64, NaN where a cell is none; and the cells that are no numbers.

    A volume column without a single value counts as absent; so does a missing one (zeros).
    """
    wanted = columns.prices | columns.quotes
    faults, notes, values = [], [], {}
    for name, column in wanted.items():
        values[name], bad = _numbers(table.frame[column], column)
        faults += bad
    values["volume"] = np.zeros(table.frame.height)
    if columns.volume is not None:
        volume, bad = _numbers(table.frame[columns.volume], columns.volume)
        if np.isnan(volume).all():
            notes.append(Finding("no-volume", "note", len(volume), "the volume column is empty."))
        else:
            values["volume"] = volume
            faults += bad
    return values, faults, notes


def _numbers(series: pl.Series, column: str) -> tuple[FloatArray, list[RowFault]]:
    if series.dtype != pl.String:
        if not series.dtype.is_numeric():
            every = np.arange(len(series))
            expected = f"a number column, not {series.dtype}"
            return np.full(len(series), np.nan), [
                RowFault("column-type", column, every, expected, "Convert it.")
            ]
        return series.cast(pl.Float64).fill_null(np.nan).to_numpy(), []
    number = series.cast(pl.Float64, strict=False)
    bad = number.is_null() & series.is_not_null() & (series != "")
    values = number.fill_null(np.nan).to_numpy()
    if not bad.any():
        return values, []
    comma = series.str.contains(_COMMA).fill_null(False) & bad
    faults = [
        RowFault(code, column, np.flatnonzero(mask.to_numpy()), expected, fix)
        for code, mask, expected, fix in (
            ("decimal-comma", comma, "a decimal point", "Export with points, as in 1.2345."),
            ("not-a-number", bad & ~comma, "a number such as 1234.5", _FIX_NUMBER),
        )
        if mask.any()
    ]
    return values, faults


def value_faults(rows: Rows, columns: Columns) -> list[RowFault]:
    """Faults that a row shows by itself, in any order of rows."""
    faults: list[RowFault] = []
    for prefix in _families(columns):
        faults += _price_faults(rows, columns, prefix)
    volume = rows.values["volume"]
    if columns.volume is not None:
        name = columns.volume
        faults += _fault(
            rows, "not-finite", name, ~np.isfinite(volume), "a finite number", "Write 0 where unknown."
        )
        faults += _fault(
            rows, "negative-volume", name, np.isfinite(volume) & (volume < 0), "0 or more", _FIX_NUMBER
        )
    return faults


def _families(columns: Columns) -> Iterator[str]:
    if columns.prices:
        yield ""
    if columns.quotes:
        yield from ("bid_", "ask_")


def _names(columns: Columns) -> dict[str, str]:
    return columns.prices | columns.quotes


def _fault(rows: Rows, code: str, column: str, bad_N: BoolArray, expected: str, fix: str) -> list[RowFault]:
    return [RowFault(code, column, rows.origin[bad_N], expected, fix)] if bad_N.any() else []


def _price_faults(rows: Rows, columns: Columns, prefix: str) -> Iterator[RowFault]:
    names = _names(columns)
    for part in PRICES:
        value, name = rows.values[prefix + part], names[prefix + part]
        yield from _fault(rows, "not-finite", name, ~np.isfinite(value), "a finite number", _FIX_NUMBER)
        negative = np.isfinite(value) & (value <= 0)
        yield from _fault(rows, "not-positive", name, negative, "a price above 0", _FIX_NUMBER)
    # A cell that is not finite has its own fault; it says nothing about its neighbours.
    finite = {p: np.where(np.isfinite(v), v, np.nan) for p in PRICES for v in [rows.values[prefix + p]]}
    low, high = finite["low"], finite["high"]
    low_name, high_name = names[prefix + "low"], names[prefix + "high"]
    upside_down = high < low
    fix = "Correct the cell; policy repair widens high and low."
    for part in ("open", "close"):
        value, name = finite[part], names[prefix + part]
        for column, outside, text in (
            (high_name, (value > high) & ~upside_down, f"at least {{}} (the {name})"),
            (low_name, (value < low) & ~upside_down, f"at most {{}} (the {name})"),
        ):
            if outside.any():
                expected = _expecting(text, value[outside])
                yield RowFault("outside-range", column, rows.origin[outside], expected, fix)
    if upside_down.any():
        fix = "The columns may be swapped; correct the row. Policy repair widens high and low."
        expected = _expecting("at least {} (the low)", low[upside_down])
        yield RowFault("high-below-low", high_name, rows.origin[upside_down], expected, fix)


def _expecting(text: str, values: FloatArray) -> Callable[[int], str]:
    """The text with the value of each place."""
    return lambda place: text.format(values[place])


def impossible_spikes(rows: Rows, columns: Columns) -> list[RowFault]:
    """One bar ten times above or below both of its neighbours: a misplaced decimal point, no market."""
    name = "close" if columns.prices else "bid_close"
    close = rows.values[name]
    if len(close) < 3:
        return []
    with np.errstate(invalid="ignore", divide="ignore"):
        step = np.diff(np.log(np.where(close > 0, close, np.nan)))
    back = np.sign(step[:-1]) * np.sign(step[1:]) < 0
    spike = np.zeros(len(close), dtype=np.bool_)
    spike[1:-1] = back & (np.abs(step[:-1]) > _IMPOSSIBLE) & (np.abs(step[1:]) > _IMPOSSIBLE)
    where = np.flatnonzero(spike)
    before = close[where - 1]
    fault = RowFault(
        "impossible-spike",
        _names(columns)[name],
        rows.origin[where],
        _expecting("about {} (the close before)", before),
        "A decimal point may be misplaced; correct the row.",
    )
    return [fault] if len(where) else []


def order_faults(rows: Rows, column: str) -> list[RowFault]:
    """Stamps that go back, and stamps that occur again, with equal or with different values."""
    time = rows.time
    if len(time) < 2:
        return []
    newest = np.maximum.accumulate(time)
    late = np.append(False, time[1:] < newest[:-1])
    order = np.argsort(time, kind="stable")
    again = np.append(False, np.diff(time[order]) == 0)
    equal = again.copy()
    for array in rows.values.values():
        sorted_T = array[order]
        equal &= np.append(False, sorted_T[1:] == sorted_T[:-1])  # not a difference: there may be infinities
    same, different = np.zeros(len(time), dtype=np.bool_), np.zeros(len(time), dtype=np.bool_)
    same[order[equal]] = True
    different[order[again & ~equal]] = True
    # Which of the differing rows is true cannot be known: all of them are at fault.
    different = np.isin(time, time[different])
    same &= ~different
    first = "each stamp once"
    faults = _fault(
        rows, "out-of-order", column, late & ~same & ~different, "a later stamp than in the row before",
        "Sort the file by time; policy repair does.",
    )  # fmt: skip
    faults += _fault(
        rows, "duplicate-equal", column, same, first, "Remove the repeated row; policy repair does."
    )
    faults += _fault(
        rows, "duplicate-different", column, different, first,
        "The same stamp has other values before; find out which is true. Local times repeat an hour in autumn: use UTC.",
    )  # fmt: skip
    return faults
