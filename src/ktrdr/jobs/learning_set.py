"""From bars to rows to learn from: features and labels of all symbols, joined by (symbol, stamp), split and scaled.

Shape suffixes: ``N`` = pooled rows, ``T`` = bars, ``F`` = features.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.bars import Bars, IntArray, to_datetime
from ktrdr.datasets.features import FeaturePlan, Features, iterate_features
from ktrdr.datasets.labels import Labels, make_labels
from ktrdr.datasets.scaling import Scaler
from ktrdr.datasets.splits import PooledRows, Split, pool_rows, purged_split
from ktrdr.errors import TooFewBars
from ktrdr.jobs.market_data import Market, require_bars, until
from ktrdr.strategies.document import Strategy
from ktrdr.timeframe import Timeframe

__all__ = ["LearningSet", "RowCounts", "build_learning_set"]


@dataclass(frozen=True, slots=True)
class RowCounts:
    """Where the base bars of all symbols went; ``bars`` is the sum of all the others.

    ``before_start`` only feed the warm-up, ``not_valid`` have no complete features (warm-up inside the range),
    ``not_labelled`` no complete label; ``purged`` and ``embargoed`` lie too close to a border of the split.
    """

    bars: int
    before_start: int
    not_valid: int
    not_labelled: int
    purged: int
    embargoed: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True, slots=True, eq=False)
class LearningSet:
    """Pooled rows ready to be fitted: ``x_NF`` is scaled by ``scaler``, which saw the training rows alone."""

    plan: FeaturePlan
    scaler: Scaler | None
    pooled: PooledRows
    split: Split
    x_NF: npt.NDArray[np.float32]
    counts: RowCounts
    warmup_bars: int
    bars_used: Market

    def rows_by_symbol(self) -> dict[str, dict[str, int]]:
        """Rows of each part of the split, by symbol."""
        parts = {"train": self.split.train, "validation": self.split.validation, "test": self.split.test}
        symbols = self.pooled.symbols
        counts = {
            name: np.bincount(self.pooled.symbol_N[rows], minlength=len(symbols))
            for name, rows in parts.items()
        }
        return {symbol: {name: int(counts[name][i]) for name in parts} for i, symbol in enumerate(symbols)}


@dataclass(frozen=True, slots=True, eq=False)
class _SymbolRows:
    """One symbol's features from the first row inside the training range on, and its labels."""

    features: Features
    first: int
    time_T: IntArray
    labels: Labels

    @property
    def values_TF(self) -> npt.NDArray[np.float32]:  # noqa: N802
        return self.features.values_TF[self.first :]

    @property
    def valid_T(self) -> npt.NDArray[np.bool_]:  # noqa: N802
        return self.features.valid_T[self.first :]


def build_learning_set(strategy: Strategy, market: Market) -> Generator[str, None, LearningSet]:
    """Make features and labels, join, split and scale them; yields a line for people after each block of work.

    Parameters
    ----------
    strategy
        Its ``training_data`` says which symbols, timeframes and dates: bars before ``start_date`` feed the warm-up,
        bars after ``end_date`` are not looked at, neither by features nor by labels.
    market
        Bars from the dataset's start.

    Raises
    ------
    InvalidInput
        If bars of a symbol or timeframe are missing.
    TooFewBars
        If no rows are left for a part, or a symbol has none to train on; with the numbers.
    """
    plan = FeaturePlan.from_strategy(strategy)
    require_bars(market, strategy.symbols, plan.timeframes)
    dates = strategy.training_data
    rows: dict[str, _SymbolRows] = {}
    used: dict[str, dict[Timeframe, Bars]] = {}
    for symbol in strategy.symbols:
        needed = {timeframe: market[symbol][timeframe] for timeframe in plan.timeframes}
        used[symbol] = until(needed, dates.end_date, plan.base_timeframe)
        rows[symbol] = yield from _symbol_rows(strategy, plan, used[symbol], symbol)
    pooled = pool_rows(
        {symbol: r.labels for symbol, r in rows.items()},
        {symbol: r.time_T for symbol, r in rows.items()},
        {symbol: r.valid_T for symbol, r in rows.items()},
    )
    if not len(pooled):
        bars = sum(len(r.features) for r in rows.values())
        raise TooFewBars(
            f"No labelled row is left of {bars:,} bars up to {dates.end_date or 'their end'}: {pooled.not_valid:,} "
            f"have no complete features and {pooled.not_labelled:,} no complete label. Give more history."
        )
    split = purged_split(pooled.time_N, pooled.end_time_N, strategy.training.data_split)
    _require_every_symbol(pooled, split, used, plan.base_timeframe)
    raw_NF = _gather(pooled, rows, len(plan.names))
    scaler = Scaler.fit(raw_NF[split.train], plan.kinds) if plan.needs_scaler else None
    yield "rows joined, split and scaled"
    return LearningSet(
        plan=plan,
        scaler=scaler,
        pooled=pooled,
        split=split,
        x_NF=raw_NF if scaler is None else scaler.apply(raw_NF),
        counts=_counts(rows, pooled, split),
        warmup_bars=max(r.features.first_valid for r in rows.values()),
        bars_used=used,
    )


def _require_every_symbol(pooled: PooledRows, split: Split, used: Market, timeframe: Timeframe) -> None:
    """No model says that it was trained on a symbol that it never saw."""
    for index, symbol in enumerate(pooled.symbols):
        if np.any(pooled.symbol_N[split.train] == index):
            continue
        bars = used[symbol][timeframe]
        labelled = int(np.count_nonzero(pooled.symbol_N == index))
        raise TooFewBars(
            f"{symbol} gives no rows to train on: of its {len(bars):,} bars {bars.start:%Y-%m-%d} to "
            f"{bars.end:%Y-%m-%d}, {labelled:,} have features and a label inside the training range, and none lies in "
            f"its training part, which ends before {to_datetime(split.validation_start):%Y-%m-%d}. "
            "Import more of its history, choose other dates, or leave the symbol out."
        )


def _symbol_rows(
    strategy: Strategy, plan: FeaturePlan, bars: dict[Timeframe, Bars], symbol: str
) -> Generator[str, None, _SymbolRows]:
    base = bars[plan.base_timeframe]
    if not len(base):
        raise TooFewBars(
            f"{symbol} {base.timeframe} has no bars up to {strategy.training_data.end_date}. "
            "Move training_data.end_date, or import older bars."
        )
    steps = iterate_features(plan, bars)
    while True:
        try:
            done = next(steps)
        except StopIteration as stop:
            features: Features = stop.value
            break
        yield f"features of {symbol}: {done.rows_done:,} of {done.rows:,} bars"
    features.require_rows()
    labels = make_labels(strategy.training.labels, base)
    first = base.rows_between(strategy.training_data.start_date, None).start
    yield f"labels of {symbol}"
    return _SymbolRows(features, first, base.time[first:], labels)


def _gather(pooled: PooledRows, rows: dict[str, _SymbolRows], width: int) -> npt.NDArray[np.float32]:
    """The feature rows in pooled order."""
    x_NF = np.empty((len(pooled), width), np.float32)
    for index, symbol in enumerate(pooled.symbols):
        of_symbol = pooled.symbol_N == index
        x_NF[of_symbol] = rows[symbol].values_TF[pooled.feature_row_N[of_symbol]]
    return x_NF


def _counts(rows: dict[str, _SymbolRows], pooled: PooledRows, split: Split) -> RowCounts:
    return RowCounts(
        bars=sum(len(r.features) for r in rows.values()),
        before_start=sum(r.first for r in rows.values()),
        not_valid=pooled.not_valid,
        not_labelled=pooled.not_labelled,
        purged=split.purged,
        embargoed=split.embargoed,
        train=len(split.train),
        validation=len(split.validation),
        test=len(split.test),
    )
