"""Features: the one function that turns bars into network inputs, in training, backtest, API and plots alike.

Shape suffixes: ``T`` = bars of the base timeframe, ``H`` = bars of another timeframe, ``F`` = feature columns.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ktrdr.bars import Bars, FloatArray, IntArray
from ktrdr.datasets.plan import FeatureColumn, FeaturePlan, Series
from ktrdr.datasets.scaling import Scaler
from ktrdr.errors import FieldError, InvalidInput, InvalidModel, TooFewBars
from ktrdr.indicators import compute
from ktrdr.market.align import align_to
from ktrdr.timeframe import Timeframe

__all__ = [
    "STALE_AFTER_US",
    "FeatureColumn",
    "FeaturePlan",
    "FeatureProgress",
    "Features",
    "compute_features",
    "iterate_features",
]

FeatureArray: TypeAlias = npt.NDArray[np.float32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

STALE_AFTER_US = 14 * 86_400_000_000
"""A bar of another timeframe is out of date when a whole further bar and this long (µs) have passed since it was known.

Longer than any regular closure of an exchange (ten days at most, in May and at the lunar new year).
"""
_BLOCK_ROWS = 65_536  # rows between two yields
_CACHE_ROWS = 4_096  # rows whose columns stay in the processor's cache while they are transposed


@dataclass(frozen=True, slots=True)
class FeatureProgress:
    """How far :func:`iterate_features` is."""

    rows_done: int
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Features of every bar of the base timeframe.

    Attributes
    ----------
    names
        F names in order.
    values_TF
        (T, F) float32; row t is known when bar t is known. NaN in all columns of a row that is not valid.
    valid_T
        (T,) bool; False during warm-up of any timeframe, and where its newest known bar is out of date.
    first_valid
        The first valid row; T if there is none.
    digest
        Digest of the plan.
    warmup, bars, origins
        Per timeframe: rows of warm-up, rows given, and the stamp (microseconds) the indicators began at.
    """

    names: tuple[str, ...]
    values_TF: FeatureArray
    valid_T: BoolArray
    first_valid: int
    digest: str
    warmup: Mapping[Timeframe, int]
    bars: Mapping[Timeframe, int]
    origins: Mapping[Timeframe, int]

    def __len__(self) -> int:
        return len(self.valid_T)

    def require_rows(self, rows: int = 1) -> None:
        """Check that at least ``rows`` rows are valid.

        Raises
        ------
        TooFewBars
            With the bars given and the warm-up needed, per timeframe.
        """
        valid = int(np.count_nonzero(self.valid_T))
        if valid >= rows:
            return
        errors = [
            FieldError(f"/{tf}", f"{self.bars[tf]:,} bars given, the first {self.warmup[tf]:,} are warm-up")
            for tf in self.warmup
        ]
        raise TooFewBars(
            f"{rows:,} rows of features are needed after warm-up, and there are {valid:,}. Give more history, "
            "or use indicators with shorter periods.",
            errors,
        )


def compute_features(
    plan: FeaturePlan, bars_by_timeframe: Mapping[Timeframe, Bars], *, scaler: Scaler | None = None
) -> Features:
    """Make the features of a plan; see :func:`iterate_features`, of which this is the drained form."""
    steps = iterate_features(plan, bars_by_timeframe, scaler=scaler)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            features: Features = stop.value
            return features


def iterate_features(
    plan: FeaturePlan,
    bars_by_timeframe: Mapping[Timeframe, Bars],
    *,
    scaler: Scaler | None = None,
    block_rows: int = _BLOCK_ROWS,
) -> Generator[FeatureProgress, None, Features]:
    """Make the features of a plan, yielding after each indicator and each block of rows.

    Row t uses bars known at the close of base bar t: bars ``0..t`` of the base timeframe, and of another timeframe
    those whose ``known_at`` is not later and which are not out of date (:data:`STALE_AFTER_US`): where a timeframe
    ends early or has a hole, rows are not valid rather than made of old values. Prefix law: with equal origin, features of ``bars[:t]`` are the first t
    rows of these, bit for bit.

    Parameters
    ----------
    bars_by_timeframe
        Bars of one symbol for every timeframe of the plan, **from the dataset's start**: recursive indicators
        remember where they began, so training, backtest and signal must begin at the same bar and slice afterwards.
    scaler
        Fitted by :meth:`Scaler.fit`; None leaves raw inputs as they are (which is what fitting needs).

    Raises
    ------
    InvalidInput
        If a timeframe is missing, symbols differ, or an indicator needs volume that is not there.
    InvalidModel
        If the scaler belongs to another plan.
    """
    _check(plan, bars_by_timeframe, scaler)
    base = bars_by_timeframe[plan.base_timeframe]
    rows = len(base)
    series: dict[Series, FloatArray] = {}
    for key in (column.series for column in plan.columns):
        if key not in series:
            outputs = compute(key.type, bars_by_timeframe[key.timeframe], **dict(key.params))
            series |= {Series(key.timeframe, key.type, key.params, o): x for o, x in outputs.items()}
            yield FeatureProgress(0, rows)
    row_of = {
        tf: align_to(base, bars_by_timeframe[tf], max_age=tf.microseconds + STALE_AFTER_US)
        for tf in plan.timeframes
        if tf != plan.base_timeframe
    }
    writers = [
        _Writer(column, index, series[column.series], row_of.get(column.timeframe), scaler)
        for index, column in enumerate(plan.columns)
    ]
    values_TF: FeatureArray = np.empty((rows, len(writers)), dtype=np.float32)
    for first in range(0, rows, block_rows):
        last = min(first + block_rows, rows)
        _fill(values_TF, writers, first, last)
        yield FeatureProgress(last, rows)
    valid_T = _valid_rows(plan, rows, row_of, writers)
    return _features(plan, bars_by_timeframe, values_TF, valid_T)


class _Writer:
    """Writes one column: grades base bars as they come, other timeframes once and then by row."""

    def __init__(
        self,
        column: FeatureColumn,
        index: int,
        series: FloatArray,
        row_T: IntArray | None,
        scaler: Scaler | None,
    ) -> None:
        self.column, self.index, self.series, self.row_T = column, index, series, row_T
        self.scaler = scaler if column.normalization != "none" else None
        if row_T is not None:
            self.graded_H = np.empty(len(series), dtype=np.float32)
            self._grade(series, self.graded_H)

    def write(self, first: int, last: int, out: FeatureArray) -> None:
        """Rows ``first..last`` into ``out``; rows without a known bar get any value, they are not valid."""
        if self.row_T is None:
            self._grade(self.series[first:last], out)
        elif len(self.graded_H):
            np.take(self.graded_H, self.row_T[first:last], out=out, mode="clip")

    def _grade(self, x: FloatArray, out: FeatureArray) -> None:
        if self.column.membership is None:
            out[:] = x
        else:
            grades = np.empty_like(x)
            with np.errstate(over="ignore", under="ignore"):
                self.column.membership.fill(x, grades)
            out[:] = grades
        if self.scaler is not None:
            out[:] = self.scaler.apply_column(self.index, out)


def _fill(values_TF: FeatureArray, writers: list[_Writer], first: int, last: int) -> None:
    columns_FB = np.empty((len(writers), _CACHE_ROWS), dtype=np.float32)
    for start in range(first, last, _CACHE_ROWS):
        stop = min(start + _CACHE_ROWS, last)
        for index, writer in enumerate(writers):
            writer.write(start, stop, columns_FB[index, : stop - start])
        values_TF[start:stop] = columns_FB[:, : stop - start].T


def _valid_rows(
    plan: FeaturePlan, rows: int, row_of: Mapping[Timeframe, IntArray], writers: list[_Writer]
) -> BoolArray:
    row_T = np.arange(rows)
    valid_T = np.ones(rows, dtype=bool)
    for timeframe in plan.timeframes:
        valid_T &= row_of.get(timeframe, row_T) >= plan.warmup(timeframe)
    for writer in {writer.column.series: writer for writer in writers}.values():
        warmup = plan.warmup(writer.column.timeframe)
        finite = np.isfinite(writer.series[warmup:])
        if not finite.all():
            bad = warmup + np.flatnonzero(~finite)
            valid_T &= ~np.isin(row_T if writer.row_T is None else writer.row_T, bad)
    return valid_T


def _features(
    plan: FeaturePlan, bars: Mapping[Timeframe, Bars], values_TF: FeatureArray, valid_T: BoolArray
) -> Features:
    first_valid = int(np.argmax(valid_T)) if valid_T.any() else len(valid_T)
    values_TF[:first_valid] = np.nan
    if not valid_T[first_valid:].all():
        values_TF[~valid_T] = np.nan
    values_TF.flags.writeable = False
    valid_T.flags.writeable = False
    return Features(
        names=plan.names,
        values_TF=values_TF,
        valid_T=valid_T,
        first_valid=first_valid,
        digest=plan.digest,
        warmup={tf: plan.warmup(tf) for tf in plan.timeframes},
        bars={tf: len(bars[tf]) for tf in plan.timeframes},
        origins={tf: int(bars[tf].time[0]) for tf in plan.timeframes if len(bars[tf])},
    )


def _check(plan: FeaturePlan, bars_by_timeframe: Mapping[Timeframe, Bars], scaler: Scaler | None) -> None:
    faults = []
    for timeframe in plan.timeframes:
        bars = bars_by_timeframe.get(timeframe)
        if bars is None:
            given = ", ".join(bars_by_timeframe) or "none"
            faults.append(FieldError(f"/{timeframe}", f"bars of this timeframe are needed; given: {given}"))
        elif bars.timeframe != timeframe:
            faults.append(FieldError(f"/{timeframe}", f"these bars have timeframe {bars.timeframe}"))
    symbols = sorted({bars.symbol for bars in bars_by_timeframe.values()})
    if len(symbols) > 1:
        faults.append(FieldError("", f"features are made per symbol, seen bars of {', '.join(symbols)}"))
    if faults:
        raise InvalidInput("The bars do not fit the strategy's inputs", faults)
    if scaler is not None and scaler.kinds != plan.kinds:
        raise InvalidModel(
            f"The scaler was made for inputs {list(scaler.kinds)}, the strategy has {list(plan.kinds)}. "
            "Use the model with the strategy it was trained with."
        )
