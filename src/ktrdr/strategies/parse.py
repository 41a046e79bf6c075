"""From YAML text to a checked :class:`~ktrdr.strategies.document.Strategy`, once; and the overrides of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

from ktrdr.bars import parse_time, to_datetime
from ktrdr.errors import InvalidInput, InvalidStrategy
from ktrdr.indicators import IndicatorSpec
from ktrdr.indicators import catalog as indicator_catalog
from ktrdr.strategies.document import BacktestConfig, DecisionConfig, FuzzyInput, RawInput, Strategy
from ktrdr.strategies.references import References
from ktrdr.strategies.rewrite import Change, rewrite
from ktrdr.strategies.schema import strategy_section
from ktrdr.strategies.sections import read_map
from ktrdr.strategies.yaml_tree import Faults, MapNode, read_yaml
from ktrdr.timeframe import Timeframe

__all__ = ["parse_strategy", "with_overrides"]


def parse_strategy(
    text: str, *, source: str = "<inline>", catalog: Mapping[str, IndicatorSpec] | None = None
) -> Strategy:
    """Read and check a strategy document.

    Parameters
    ----------
    text
        YAML 1.2, at most 256 KiB; the keys are those of the page "Strategy document".
    source
        What the document is called in the error's message: a file name, for instance.
    catalog
        The indicators it may use; by default the package's.

    Raises
    ------
    InvalidStrategy
        With every fault found, each with JSON pointer, line, column and the nearest valid name.
    """
    faults = Faults()
    try:
        root = read_yaml(text, faults)
    except InvalidStrategy as error:
        raise InvalidStrategy(f"{source}: {error.message}", error.errors) from None
    known = indicator_catalog() if catalog is None else catalog
    section = strategy_section(known)
    values = read_map(root, section.keys, section.required(), faults) or {}
    inputs = References(root, values, known, faults).check() if isinstance(root, MapNode) else ()
    if len(faults):
        count = len(faults)
        raise InvalidStrategy(
            f"{source}: the strategy has {count} fault{'s' if count > 1 else ''}", faults.sorted()
        )
    return _strategy(values, inputs, text)


def _strategy(values: Mapping[str, Any], inputs: tuple[FuzzyInput | RawInput, ...], text: str) -> Strategy:
    return Strategy(
        name=values["name"],
        version=values["version"],
        description=values.get("description", ""),
        training_data=values["training_data"],
        indicators=MappingProxyType(values["indicators"]),
        fuzzy_sets=MappingProxyType(values["fuzzy_sets"]),
        nn_inputs=inputs,
        model=values["model"],
        training=values["training"],
        decisions=values.get("decisions", DecisionConfig()),
        backtest=values.get("backtest", BacktestConfig()),
        text=text,
    )


def with_overrides(
    strategy: Strategy,
    *,
    symbols: Sequence[str] | str | None = None,
    timeframes: Sequence[Timeframe | str] | Timeframe | str | None = None,
    start_date: str | date | datetime | None = None,
    end_date: str | date | datetime | None = None,
    seed: int | None = None,
    epochs: int | None = None,
) -> Strategy:
    """The strategy with parts of it replaced, as a request asks; its ``text`` is rewritten accordingly.

    Comments and order of the document are kept. Without any change the strategy itself is returned.

    Parameters
    ----------
    symbols
        Trained on instead of the document's.
    timeframes
        On a strategy of one timeframe, the one to use instead, in its network inputs too. A strategy of several
        timeframes cannot be moved: there it must be the base timeframe, or all of the document's.
    start_date, end_date
        Days; a time of day other than midnight UTC is refused.
    seed, epochs
        Of the training.

    Raises
    ------
    InvalidInput
        If a strategy of several timeframes is asked for another one.
    InvalidStrategy
        If the document with its overrides breaks a rule.
    """
    changes: list[Change] = []
    if symbols is not None:
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        if names != strategy.symbols:
            changes.append(Change(("training_data", "symbols"), list(names)))
    if timeframes is not None:
        changes += _timeframe_changes(strategy, timeframes)
    for key, value in (("start_date", start_date), ("end_date", end_date)):
        if value is not None and (day := _day(key, value)) != getattr(strategy.training_data, key):
            changes.append(Change(("training_data", key), day))
    for key, number in (("seed", seed), ("epochs", epochs)):
        if number is not None and number != getattr(strategy.training, key):
            changes.append(Change(("training", key), number))
    if not changes:
        return strategy
    return parse_strategy(rewrite(strategy.text, changes), source=f"{strategy.name} with overrides")


def _timeframe_changes(
    strategy: Strategy, timeframes: Sequence[Timeframe | str] | Timeframe | str
) -> list[Change]:
    given = (timeframes,) if isinstance(timeframes, str) else tuple(timeframes)
    asked = tuple(Timeframe.parse(timeframe) for timeframe in given)
    own = strategy.timeframes
    if asked == (strategy.base_timeframe,) or set(asked) == set(own):
        return []
    if len(own) > 1 or len(asked) != 1:
        raise InvalidInput(
            f"Strategy '{strategy.name}' uses the timeframes {', '.join(own)} and trades {strategy.base_timeframe}; "
            f"it cannot be run on {', '.join(asked) or 'none'}. Leave the timeframe out, or edit the document."
        )
    of_inputs = (("nn_inputs", index, "timeframes") for index in range(len(strategy.nn_inputs)))
    return [
        Change(("training_data", "timeframes"), [str(asked[0])]),
        *(Change(path, "all", only_present=True) for path in of_inputs),
    ]


def _day(key: str, value: str | date | datetime) -> date:
    moment = to_datetime(parse_time(value))
    if (moment.hour, moment.minute, moment.second, moment.microsecond) != (0, 0, 0, 0):
        raise InvalidInput(f"{key} '{value}' has a time of day; training data is chosen by whole days (UTC).")
    return moment.date()
