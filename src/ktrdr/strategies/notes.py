"""What is odd about a valid strategy: nothing here stops a run, everything here is worth a look."""

from __future__ import annotations

from collections.abc import Iterator

from ktrdr.errors import FieldError
from ktrdr.indicators import indicator
from ktrdr.strategies.document import FuzzyInput, RawInput, Strategy

__all__ = ["notes_on"]


def notes_on(strategy: Strategy) -> tuple[FieldError, ...]:
    """Coverage holes of fuzzy sets within their indicator's bounds, and parts that no network input uses."""
    return (*_holes(strategy), *_unused(strategy))


def _holes(strategy: Strategy) -> Iterator[FieldError]:
    for name, use in strategy.fuzzy_sets.items():
        bounds = indicator(strategy.indicators[use.indicator].type).bounds
        if bounds is None:
            continue
        for low, high in use.variable.coverage_holes(*bounds):
            yield FieldError(
                f"/fuzzy_sets/{name}", f"values of {use.indicator} from {low:g} to {high:g} belong to no set"
            )


def _unused(strategy: Strategy) -> Iterator[FieldError]:
    used = {item.fuzzy_set for item in strategy.nn_inputs if isinstance(item, FuzzyInput)}
    for name in strategy.fuzzy_sets:
        if name not in used:
            yield FieldError(f"/fuzzy_sets/{name}", "no network input uses this fuzzy set")
    raw = {item.indicator for item in strategy.nn_inputs if isinstance(item, RawInput)}
    needed = raw | {use.indicator for use in strategy.fuzzy_sets.values()}
    for name in strategy.indicators:
        if name not in needed:
            yield FieldError(f"/indicators/{name}", "no fuzzy set and no network input uses this indicator")
    on = {timeframe for item in strategy.nn_inputs for timeframe in item.timeframes}
    for timeframe in strategy.timeframes:
        if timeframe not in on and timeframe != strategy.base_timeframe:
            yield FieldError("/training_data/timeframes", f"no network input uses {timeframe}")
