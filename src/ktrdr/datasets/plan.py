"""The feature plan: which numbers a strategy shows its network, under which names, in which order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktrdr.datasets.scaling import Kind
from ktrdr.errors import FieldError, InvalidInput, NotFound
from ktrdr.fuzzy import MembershipFunction
from ktrdr.indicators import IndicatorSpec, catalog
from ktrdr.strategies.document import FuzzyInput, RawInput, Strategy
from ktrdr.timeframe import Timeframe

__all__ = ["FeatureColumn", "FeaturePlan", "Series"]


@dataclass(frozen=True, slots=True)
class Series:
    """One output of one indicator on one timeframe; columns with an equal series share its computation."""

    timeframe: Timeframe
    type: str
    params: tuple[tuple[str, int | float | str], ...]
    output: str


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One network input: a membership of an indicator's output, or that output itself (``membership`` None).

    ``indicator`` and ``fuzzy_set`` are the document's names, ``label`` the word of the fuzzy set.
    """

    name: str
    series: Series
    indicator: str
    fuzzy_set: str | None = None
    label: str | None = None
    membership: MembershipFunction | None = None
    normalization: Kind = "none"

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe whose bars the indicator is computed on."""
        return self.series.timeframe

    def to_json(self) -> dict[str, Any]:
        """The definition that the plan's digest covers."""
        return {
            "name": self.name,
            "timeframe": self.series.timeframe.value,
            "type": self.series.type,
            "params": dict(self.series.params),
            "output": self.series.output,
            "membership": None if self.membership is None else self.membership.to_json(),
            "normalization": self.normalization,
        }


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """Names, order and definition of a strategy's features.

    Order: ``nn_inputs`` as written, then their timeframes, then the labels of the fuzzy set. Names:
    ``1h_rsi_momentum_oversold`` for a membership; ``1h_rsi_14`` for a raw indicator, ``1h_macd_histogram`` where
    the indicator has several outputs.
    """

    base_timeframe: Timeframe
    columns: tuple[FeatureColumn, ...]
    _warmups: Mapping[Timeframe, int] = field(repr=False)

    @classmethod
    def from_strategy(
        cls, strategy: Strategy, *, known: Mapping[str, IndicatorSpec] | None = None
    ) -> FeaturePlan:
        """The plan of a strategy.

        Parameters
        ----------
        known
            The catalog to look indicators up in; the built-in one if not given.

        Raises
        ------
        InvalidInput
            If an indicator repaints (its past values change with the future), two features get one name, or there
            is no input.
        NotFound
            If the document names an indicator, output or fuzzy set that does not exist.
        """
        specs = catalog() if known is None else known
        columns = tuple(_columns(strategy, specs))
        faults = [
            FieldError(f"/indicators/{column.indicator}", _repaints(column.series.type))
            for column in columns
            if specs[column.series.type].repaints
        ]
        names = [column.name for column in columns]
        faults += [
            FieldError("/nn_inputs", f"two inputs are named '{name}'; rename a fuzzy set or list it once")
            for name in sorted({name for name in names if names.count(name) > 1})
        ]
        if not columns:
            faults.append(FieldError("/nn_inputs", "at least one input is needed"))
        if faults:
            raise InvalidInput(f"The inputs of strategy '{strategy.name}' cannot be used", faults)
        warmups = {strategy.training_data.base_timeframe: 0}
        for series in (column.series for column in columns):
            spec, params = specs[series.type], dict(series.params)
            rows = spec.lookback(params) + spec.unstable(params)
            warmups[series.timeframe] = max(rows, warmups.get(series.timeframe, 0))
        return cls(strategy.training_data.base_timeframe, columns, warmups)

    @property
    def names(self) -> tuple[str, ...]:
        """The F feature names in order."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The F normalizations in order, as :meth:`Scaler.fit` takes them."""
        return tuple(column.normalization for column in self.columns)

    @property
    def needs_scaler(self) -> bool:
        """True if any raw input asks for a normalization."""
        return any(kind != "none" for kind in self.kinds)

    @property
    def timeframes(self) -> tuple[Timeframe, ...]:
        """The timeframes whose bars are needed, the base one first."""
        return tuple(self._warmups)

    def warmup(self, timeframe: Timeframe | str) -> int:
        """Rows of ``timeframe`` before its features can be used: lookback + unstable margin, from the graph.

        0 for a timeframe that no feature uses.
        """
        return self._warmups.get(Timeframe.parse(timeframe), 0)

    @property
    def digest(self) -> str:
        """SHA-256 over names, order and definitions; equal plans make equal features of equal bars."""
        document = {
            "base_timeframe": self.base_timeframe.value,
            "columns": [column.to_json() for column in self.columns],
        }
        return hashlib.sha256(
            json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()


def _columns(strategy: Strategy, specs: Mapping[str, IndicatorSpec]) -> Iterator[FeatureColumn]:
    for entry in strategy.nn_inputs:
        for timeframe in map(Timeframe.parse, entry.timeframes):
            if isinstance(entry, FuzzyInput):
                yield from _fuzzy_columns(strategy, entry, timeframe, specs)
            else:
                yield _raw_column(strategy, entry, timeframe, specs)


def _fuzzy_columns(
    strategy: Strategy, entry: FuzzyInput, timeframe: Timeframe, specs: Mapping[str, IndicatorSpec]
) -> Iterator[FeatureColumn]:
    if entry.fuzzy_set not in strategy.fuzzy_sets:
        raise NotFound("fuzzy set", entry.fuzzy_set, valid=strategy.fuzzy_sets)
    use = strategy.fuzzy_sets[entry.fuzzy_set]
    series = _series(strategy, use.indicator, use.output, timeframe, specs)
    for label, mf in use.variable.sets:
        name = f"{timeframe}_{entry.fuzzy_set}_{label}"
        yield FeatureColumn(name, series, use.indicator, entry.fuzzy_set, label, mf)


def _raw_column(
    strategy: Strategy, entry: RawInput, timeframe: Timeframe, specs: Mapping[str, IndicatorSpec]
) -> FeatureColumn:
    series = _series(strategy, entry.indicator, entry.output, timeframe, specs)
    several = len(specs[series.type].outputs) > 1
    name = f"{timeframe}_{entry.indicator}_{series.output}" if several else f"{timeframe}_{entry.indicator}"
    return FeatureColumn(name, series, entry.indicator, normalization=entry.normalization)


def _series(
    strategy: Strategy,
    indicator: str,
    output: str | None,
    timeframe: Timeframe,
    specs: Mapping[str, IndicatorSpec],
) -> Series:
    if indicator not in strategy.indicators:
        raise NotFound("indicator of the strategy", indicator, valid=strategy.indicators)
    use = strategy.indicators[indicator]
    if use.type not in specs:
        raise NotFound("indicator", use.type, valid=specs)
    spec = specs[use.type]
    if output is not None and output not in spec.outputs:
        raise NotFound(f"output of indicator '{use.type}'", output, valid=spec.outputs)
    return Series(timeframe, use.type, tuple(spec.check(use.params).items()), output or spec.primary)


def _repaints(name: str) -> str:
    return f"'{name}' repaints: its past values change when new bars arrive, so it cannot be a network input"
