"""What ships: the starter and the example documents."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from ktrdr.errors import InvalidInput
from ktrdr.strategies import StrategyLibrary, example_root, notes_on, parse_strategy, starter

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = StrategyLibrary([example_root()])
LAST_DATES = {"SP500": date(2018, 12, 31), "NASDAQ": date(2018, 12, 31), "EURUSD": date(2017, 12, 29)}


def test_these_examples_ship():
    assert EXAMPLES.names() == (
        "eurusd_two_timeframes",
        "neuro_mean_reversion",
        "rsi_mean_reversion",
        "sp500_trend",
        "us_indices_two_symbols",
    )


def test_the_copies_at_the_root_are_the_same_documents():
    shipped = {path.name: path.read_bytes() for path in example_root().glob("*")}
    shown = {path.name: path.read_bytes() for path in (ROOT / "strategies").glob("*.yaml")}
    assert shown == shipped


@pytest.mark.parametrize("name", EXAMPLES.names())
def test_an_example_is_valid_and_leaves_dates_for_the_backtest(name):
    strategy = EXAMPLES.get(name)
    assert strategy.name == name
    assert strategy.description
    assert notes_on(strategy) == ()
    end = strategy.training_data.end_date
    assert end is not None
    for symbol in strategy.symbols:
        assert (LAST_DATES[symbol] - end).days > 80
    assert strategy.training.epochs <= 60
    assert sum(strategy.model.hidden_layers) <= 64


def test_examples_cover_the_three_kinds_of_labels():
    sources = {EXAMPLES.get(name).training.labels.source for name in EXAMPLES.names()}
    assert sources == {"forward_return", "triple_barrier", "zigzag"}


@pytest.mark.parametrize("name", ["x", "my-Strategy_2", "9lives"])
def test_the_starter_is_valid_as_it_stands(name):
    strategy = parse_strategy(starter(name))
    assert strategy.name == name
    assert notes_on(strategy) == ()
    assert starter(name).count("#") > 10
    assert f"ktrdr strategies validate {name}.yaml\n" in starter(name)


def test_the_starter_refuses_an_impossible_name():
    with pytest.raises(InvalidInput, match="'a b' is not a possible strategy name"):
        starter("a b")


def test_notes_tell_what_is_odd():
    text = (
        starter("x")
        .replace("  middle: [30, 50, 70]", "  middle: [45, 50, 55]")
        .replace("low: [-.inf, -.inf, 30, 50]", "low: [-.inf, -.inf, 30, 40]")
        .replace("timeframes: [1d]", "timeframes: [1h, 1d]")
        .replace("momentum, timeframes: all", "momentum, timeframes: 1h")
        .replace("  - {fuzzy_set: place, timeframes: all}\n", "")
        .replace("indicators:\n", "indicators:\n  idle: {type: sma}\n")
    )
    assert [(note.pointer, note.message) for note in notes_on(parse_strategy(text))] == [
        ("/fuzzy_sets/momentum", "values of rsi_14 from 40 to 45 belong to no set"),
        ("/fuzzy_sets/place", "no network input uses this fuzzy set"),
        ("/indicators/idle", "no fuzzy set and no network input uses this indicator"),
        ("/training_data/timeframes", "no network input uses 1d"),
    ]
