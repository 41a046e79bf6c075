"""The schema is one declaration: parser, JSON Schema, reference page, dataclasses and simulator must agree."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ktrdr.backtesting import SimulationConfig
from ktrdr.errors import InvalidInput
from ktrdr.indicators import catalog
from ktrdr.market.symbols import check_symbol
from ktrdr.strategies import StrategyLibrary, example_root, json_schema, parse_strategy, starter
from ktrdr.strategies.document import (
    BacktestConfig,
    CostConfig,
    DecisionConfig,
    SizingConfig,
    StopConfig,
)
from ktrdr.strategies.kinds import Choice, Flag, Kind, Number, Optional, Whole
from ktrdr.strategies.schema import SYMBOL, strategy_section
from ktrdr.strategies.sections import ListOf, Section, Variant

ROOT = Path(__file__).resolve().parents[3]


# -- every key reaches the object ---------------------------------------------------------------------------------


def leaves(
    kind: Kind, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[tuple[str, ...], str], Kind]]:
    """Each scalar key below ``kind``: path, the words its variants need, and the kind."""
    kind = kind.inner if isinstance(kind, Optional) else kind
    if isinstance(kind, Variant):
        for word, section in kind.sections.items():
            for inner, words, leaf in leaves(section, path):
                yield inner, {(*path, kind.tag): word, **words}, leaf
    elif isinstance(kind, Section):
        for key in kind.keys:
            yield from leaves(key.kind, (*path, key.name))
    elif isinstance(kind, Choice) and len(kind.options) == 1:
        return  # names the one thing there is
    elif isinstance(kind, Choice | Flag | Number | ListOf):
        yield path, {}, kind


SECTIONS = ("model", "training", "decisions", "backtest")
LEAVES = [
    leaf for key in strategy_section().keys if key.name in SECTIONS for leaf in leaves(key.kind, (key.name,))
]


def document(values: dict[tuple[str, ...], object]) -> str:
    tree: dict[str, Any] = {
        "name": "x",
        "version": "3.0",
        "training_data": {"symbols": ["A"], "timeframes": ["1d"]},
        "indicators": {"rsi": {"type": "rsi"}},
        "fuzzy_sets": {"momentum": {"indicator": "rsi", "low": [0, 20, 40]}},
        "nn_inputs": [{"fuzzy_set": "momentum"}],
        "model": {"type": "mlp"},
        "training": {"labels": {"source": "forward_return"}},
        "decisions": {},
        "backtest": {},
    }
    for path, value in values.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        if path == ("training", "labels", "source"):
            node.clear()
        node[path[-1]] = value
    for name in ("units", "cash", "risk"):
        sizing = tree["backtest"].get("sizing", {})
        if sizing.get("type") == name:
            sizing.setdefault(name, 0.25)
            tree["backtest"].setdefault("stops", {}).setdefault("stop_loss", 0.1)
    return json.dumps(tree)


def two_values(kind: Kind) -> tuple[object, object]:
    if isinstance(kind, Choice):
        return kind.options[0], kind.options[-1]
    if isinstance(kind, Flag):
        return True, False
    if isinstance(kind, Whole):
        return 3, 4
    if isinstance(kind, ListOf):
        return [3], [3, 4]
    assert isinstance(kind, Number)
    return (1, 2) if kind.least == 1 else (0.2, 0.3)


@pytest.mark.parametrize(("path", "words", "kind"), LEAVES, ids=[".".join(p) + str(w) for p, w, _ in LEAVES])
def test_every_key_makes_a_difference(path, words, kind):
    if path[:2] == ("training", "data_split") and path[2] != "embargo":
        rest = {"train": 0.5, "validation": 0.2, "test": 0.3}
        pairs = [{**rest}, {**rest, path[2]: rest[path[2]] + 0.1}]
        other = "train" if path[2] != "train" else "test"
        pairs[1][other] = pairs[1][other] - 0.1
        made = [
            parse_strategy(document({("training", "data_split", k): v for k, v in pair.items()}))
            for pair in pairs
        ]
    else:
        made = [parse_strategy(document({**words, path: value})) for value in two_values(kind)]
    blank = [dataclasses.replace(strategy, text="") for strategy in made]
    assert blank[0] != blank[1]


def test_there_are_keys_to_check():
    assert len(LEAVES) > 50
    names = {path[-1] for path, _, _ in LEAVES}
    assert {"seed", "lot_step", "spread", "momentum", "position_awareness"} <= names


# -- the simulator takes what the document says -------------------------------------------------------------------


def simulation(yaml: str) -> SimulationConfig:
    strategy = parse_strategy(starter("x").split("decisions:")[0] + yaml)
    return SimulationConfig.from_json(strategy.simulation_settings())


def test_defaults_are_the_simulators():
    assert simulation("") == SimulationConfig()


@pytest.mark.parametrize(
    ("ours", "part"), [(SizingConfig, "sizing"), (CostConfig, "costs"), (StopConfig, "stops")]
)
def test_fields_map_one_to_one(ours, part):
    theirs = getattr(SimulationConfig(), part)
    assert dataclasses.asdict(ours()) == dataclasses.asdict(theirs)


def test_account_and_position_rules_map_one_to_one():
    theirs = dataclasses.asdict(SimulationConfig())
    positions = theirs.pop("positions")
    ours = dataclasses.asdict(BacktestConfig())
    assert ours.pop("fill") == "next_open"
    assert ours.pop("reversal") == positions.pop("reversal")
    assert ours == theirs
    decisions = dataclasses.asdict(DecisionConfig())
    assert decisions.pop("output_format") == "classification"
    assert decisions.pop("confidence_threshold") == 0.0  # the decision rule's, not the simulator's
    assert decisions == positions


def test_settings_arrive():
    config = simulation(
        "decisions: {allow_short_from_flat: true, position_awareness: false, min_signal_separation_bars: 9}\n"
        "backtest:\n  initial_capital: 5\n  reversal: close_then_open\n  at_end: hold\n"
        "  sizing: {type: risk, risk: 0.02}\n  costs: {spread: quotes, slippage_bps: 2}\n"
        "  stops: {stop_loss_atr: 3, max_holding_bars: 8}\n"
    )
    assert config.initial_capital == 5
    assert config.at_end == "hold"
    assert config.positions.reversal == "close_then_open"
    assert config.positions.allow_short_from_flat
    assert not config.positions.position_awareness
    assert config.positions.min_signal_separation_bars == 9
    assert (config.sizing.type, config.sizing.risk) == ("risk", 0.02)
    assert (config.costs.spread, config.costs.slippage_rate) == ("quotes", 0.0002)
    assert (config.stops.stop_loss_atr, config.stops.max_holding_bars) == (3, 8)


@pytest.mark.parametrize(
    "symbol",
    ["EURUSD", "BRK.B", "^GSPC", "EURUSD=X", "BTC-USD", "a/b", "..", "", ".x", "A" * 33, "a b", "a\n"],
)
def test_symbols_are_the_market_stores(symbol):
    try:
        check_symbol(symbol)
        accepted = True
    except InvalidInput:
        accepted = False
    assert bool(re.fullmatch(SYMBOL.pattern or "", symbol)) is accepted


# -- JSON Schema --------------------------------------------------------------------------------------------------


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """As much of a JSON Schema validator as our schema needs; refuses keywords it does not know."""
    known = {
        "$schema", "title", "description", "default", "format", "type", "enum", "const", "pattern", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "items", "minItems", "maxItems", "uniqueItems",
        "properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties",
        "anyOf", "oneOf",
    }  # fmt: skip
    assert set(schema) <= known, set(schema) - known
    if "anyOf" in schema and not any(accepts(option, value) for option in schema["anyOf"]):
        return False
    if "oneOf" in schema and sum(accepts(option, value) for option in schema["oneOf"]) != 1:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    return {
        "object": _object,
        "array": _array,
        "string": lambda s, v: isinstance(v, str) and re.search(s.get("pattern", ""), v) is not None,
        "boolean": lambda s, v: isinstance(v, bool),
        "null": lambda s, v: v is None,
        "number": _number,
        "integer": lambda s, v: isinstance(v, int) and _number(s, v),
        None: lambda s, v: True,
    }[schema.get("type")](schema, value)


def _number(schema: dict[str, Any], value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )


def _array(schema: dict[str, Any], value: Any) -> bool:
    return (
        isinstance(value, list)
        and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        and all(accepts(schema.get("items", {}), item) for item in value)
        and not (schema.get("uniqueItems") and len({str(x) for x in value}) < len(value))
    )


def _object(schema: dict[str, Any], value: Any) -> bool:
    if not isinstance(value, dict) or not set(schema.get("required", ())) <= set(value):
        return False
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return False
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if not accepts(schema.get("propertyNames", {}), name):
            return False
        if name in schema.get("properties", {}):
            if not accepts(schema["properties"][name], item):
                return False
        elif more is False or (isinstance(more, dict) and not accepts(more, item)):
            return False
    return True


def loaded(text: str) -> dict[str, Any]:
    tree = YAML(typ="safe", pure=True).load(text)
    return json.loads(
        json.dumps(tree, default=str).replace("-Infinity", '"-inf"').replace("Infinity", '"inf"')
    )


EXAMPLES = StrategyLibrary([example_root()])


@pytest.mark.parametrize("text", [starter("x"), *(EXAMPLES.text(name) for name in EXAMPLES.names())])
def test_json_schema_accepts_what_the_parser_accepts(text):
    assert accepts(json_schema(), loaded(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 7", "sead: 7"),
        ("type: rsi", "type: rsy"),
        ("period: 14", "period: 0"),
        ("epochs: 50", "epochs: many"),
        ("name: x", ""),
        ("[1d]", "[1D]"),
        ("source: triple_barrier", "source: zigzag"),
        ("fuzzy_set: momentum", "fuzy_set: momentum"),
        ("low: [-.inf, -.inf, 30, 50]", "low: [30, 50]"),
        ("type: adam", "type: adem"),
    ],
)
def test_json_schema_refuses_what_the_parser_refuses(old, new):
    text = starter("x")
    assert text.count(old) == 1
    text = text.replace(old, new)
    assert not accepts(json_schema(), loaded(text))
    with pytest.raises(InvalidInput):
        parse_strategy(text)


def test_json_schema_is_json_and_names_every_indicator():
    text = json.dumps(json_schema(), allow_nan=False)
    for name in catalog():
        assert f'"const": "{name}"' in text


# -- reference page -----------------------------------------------------------------------------------------------


def test_reference_page_is_current():
    spec = importlib.util.spec_from_file_location("strategy_docs", ROOT / "tools" / "strategy_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool  # dataclasses look their module up
    spec.loader.exec_module(tool)
    page = tool.PAGE.read_text(encoding="utf-8")
    assert page == tool.render(), "run: make docs"
    for path, _, _ in LEAVES:
        assert f"| `{path[-1]}` |" in page
