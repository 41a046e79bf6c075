"""Every key of a strategy document: the one declaration behind parser, JSON Schema and reference page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ktrdr.indicators import IndicatorSpec
from ktrdr.indicators import catalog as indicator_catalog
from ktrdr.strategies.document import TrainingData
from ktrdr.strategies.graph import NAME, FuzzySetKind, IndicatorKind, InputKind
from ktrdr.strategies.kinds import FAULTY, Choice, Day, Kind, Optional, Text, TimeframeCode
from ktrdr.strategies.sections import Key, ListOf, MapOf, Section, Variant
from ktrdr.strategies.trading_keys import BACKTEST, DECISIONS
from ktrdr.strategies.training_keys import MODEL, TRAINING
from ktrdr.strategies.yaml_tree import Faults, MapNode, Node
from ktrdr.timeframe import Timeframe

__all__ = ["STRATEGY_NAME", "json_schema", "strategy_section"]

STRATEGY_NAME = Text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
    "letters, digits, - and _, beginning with a letter or digit, at most 64",
)
# As the market store accepts them; a test holds both equal.
SYMBOL = Text(r"[A-Za-z0-9^][A-Za-z0-9^._=-]{0,31}", "letters, digits and ^ . _ = -, at most 32")
_SYMBOLS = ListOf(SYMBOL, most=100, unique=True, single=True)
_TIMEFRAMES = ListOf(TimeframeCode(), unique=True, single=True)
_MODES = {"symbol": ("single", "multi_symbol"), "timeframe": ("single", "multi_timeframe")}


@dataclass(frozen=True)
class LongForm(Kind):
    """The long form of symbols or timeframes: ``{mode: single, symbol: X}``, ``{mode: multi_symbol, list: [...]}``."""

    noun: str
    short: ListOf
    base: bool = False

    def read(self, node: Node, faults: Faults) -> Any:
        """A tuple of values; for timeframes, (values, base or None)."""
        if not isinstance(node, MapNode):
            values = self.short.read(node, faults)
            return values if values is FAULTY or not self.base else (values, None)
        return self.variant().read(node, faults)

    def variant(self) -> Variant:
        """The long form's keys, by `mode`."""
        single, multi = _MODES[self.noun]
        one = Key(self.noun, self.short.inner, f"The only {self.noun}.", required=True)
        many = Key(
            "list", ListOf(self.short.inner, least=1, unique=True), f"The {self.noun}s.", required=True
        )
        base = Key(
            "base_timeframe",
            TimeframeCode(),
            "The timeframe that is traded: decisions fall on its bars. It is one of `list`.",
            default="the finest of `list`",
        )
        return Variant(
            "mode",
            f"`{single}` or `{multi}`.",
            {
                single: Section(self._one, (one,)),
                multi: Section(self._many, (many, *((base,) if self.base else ())), self._check),
            },
        )

    def _one(self, **given: Any) -> Any:
        values = (given[self.noun],)
        return (values, None) if self.base else values

    def _many(self, **given: Any) -> Any:
        return (given["list"], given.get("base_timeframe")) if self.base else given["list"]

    def _check(self, made: Any) -> list[tuple[str, str]]:
        if not self.base or made[1] is None or made[1] in made[0]:
            return []
        return [("base_timeframe", f"'{made[1]}' is not one of list ({', '.join(made[0])})")]

    def json(self) -> dict[str, Any]:
        return {"anyOf": [self.short.json(), self.variant().json()]}

    def words(self) -> tuple[str, str]:
        kind, limits = self.short.words()
        return f"{kind}, or mapping", limits


def _training_data(
    symbols: tuple[str, ...],
    timeframes: tuple[tuple[Timeframe, ...], Timeframe | None],
    start_date: Any = None,
    end_date: Any = None,
) -> TrainingData:
    listed, base = timeframes
    finest = min(listed, key=lambda timeframe: timeframe.seconds)
    return TrainingData(symbols, listed, base or finest, start_date, end_date)


def _dates_in_order(data: TrainingData) -> list[tuple[str, str]]:
    if data.start_date and data.end_date and data.end_date <= data.start_date:
        return [("end_date", f"{data.end_date} is not after start_date {data.start_date}")]
    return []


_TRAINING_DATA = Section(
    _training_data,
    (
        Key("symbols", LongForm("symbol", _SYMBOLS), "What to train on; several are pooled.", True),
        Key(
            "timeframes",
            LongForm("timeframe", _TIMEFRAMES, base=True),
            "The timeframes the inputs use. The finest is traded, unless the long form names a `base_timeframe`; "
            "values of the others are used from the moment their bar is complete.",
            True,
        ),
        Key(
            "start_date",
            Optional(Day()),
            "First day of the training data; earlier bars only warm up.",
            default=None,
        ),
        Key("end_date", Optional(Day()), "Last day of the training data, included.", default=None),
    ),
    _dates_in_order,
)


def strategy_section(catalog: Mapping[str, IndicatorSpec] | None = None) -> Section:
    """The whole document, over a catalog of indicators (by default the package's)."""
    indicators = IndicatorKind(indicator_catalog() if catalog is None else catalog)
    return Section(
        dict,
        (
            Key("name", STRATEGY_NAME, "Name of the strategy; its file is NAME.yaml.", True),
            Key("version", Choice(("3.0",)), "Version of the document format.", True),
            Key("description", Text(), "One or two sentences for lists and reports.", default=""),
            Key("training_data", _TRAINING_DATA, "What the model learns from.", True),
            Key(
                "indicators", MapOf(NAME, indicators, 1, 500), "Indicators under names of your choice.", True
            ),
            Key(
                "fuzzy_sets",
                MapOf(NAME, FuzzySetKind(), 0, 500),
                "Linguistic variables over indicators.",
                True,
            ),
            Key("nn_inputs", ListOf(InputKind(), most=1000), "The network's inputs, in this order.", True),
            Key("model", MODEL, "The network.", True),
            Key("training", TRAINING, "How the network is fitted.", True),
            Key("decisions", DECISIONS, "From probabilities to signals.", default={}),
            Key("backtest", BACKTEST, "The simulated account.", default={}),
        ),
    )


def json_schema(catalog: Mapping[str, IndicatorSpec] | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a strategy document, for editors; the parser checks more than it can say."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ktrdr strategy",
        **strategy_section(catalog).json(),
    }
