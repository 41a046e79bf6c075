"""Overrides rewrite the document's text: comments and order stay, the same request gives the same bytes."""

from __future__ import annotations

import dataclasses
import difflib
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidInput, InvalidStrategy
from ktrdr.strategies import StrategyLibrary, example_root, parse_strategy, starter, with_overrides
from ktrdr.strategies.document import Strategy
from ktrdr.timeframe import Timeframe

ONE = parse_strategy(starter("one"))
TWO = StrategyLibrary([example_root()]).get("eurusd_two_timeframes")


def changed_lines(before: Strategy, after: Strategy) -> list[str]:
    diff = difflib.ndiff(before.text.splitlines(), after.text.splitlines())
    return [line[2:].strip() for line in diff if line.startswith("+ ")]


def test_nothing_asked_nothing_changed():
    assert with_overrides(ONE) is ONE
    same = with_overrides(
        ONE, symbols=["SP500"], timeframes="1d", start_date="1999-01-01", end_date=date(2012, 12, 31), seed=7
    )
    assert same is ONE


def test_only_the_asked_lines_change():
    made = with_overrides(
        ONE, symbols=["NASDAQ", "SP500"], start_date="2001-02-03", end_date="2010-01-01", seed=9, epochs=2
    )
    assert changed_lines(ONE, made) == [
        "symbols: [NASDAQ, SP500]",
        "start_date: 2001-02-03",
        "end_date: 2010-01-01",
        "epochs: 2",
        "seed: 9",
    ]
    assert made.symbols == ("NASDAQ", "SP500")
    assert made.training_data.start_date == date(2001, 2, 3)
    assert made.training_data.end_date == date(2010, 1, 1)
    assert (made.training.seed, made.training.epochs) == (9, 2)
    expected = dataclasses.replace(
        ONE,
        text=made.text,
        training_data=made.training_data,
        training=dataclasses.replace(ONE.training, seed=9, epochs=2),
    )
    assert made == expected


def test_keys_that_were_absent_are_added():
    text = (
        starter("x")
        .replace("  start_date: 1999-01-01\n  end_date: 2012-12-31\n", "")
        .replace("  seed: 7\n", "")
    )
    made = with_overrides(parse_strategy(text), end_date="2005-05-05", seed=3)
    assert made.training_data.end_date == date(2005, 5, 5)
    assert made.training.seed == 3


def test_a_timeframe_moves_a_strategy_of_one_timeframe_with_its_inputs():
    text = starter("x").replace("momentum, timeframes: all", "momentum, timeframes: [1d]")
    made = with_overrides(parse_strategy(text), timeframes="4h")
    assert made.timeframes == (Timeframe.H4,)
    assert [item.timeframes for item in made.nn_inputs] == [(Timeframe.H4,)] * 2


def test_inputs_without_timeframes_need_no_change():
    text = starter("x").replace(", timeframes: all", "")
    made = with_overrides(parse_strategy(text), timeframes=[Timeframe.H1])
    assert [item.timeframes for item in made.nn_inputs] == [(Timeframe.H1,)] * 2
    assert changed_lines(parse_strategy(text), made) == ["timeframes: [1h]"]


@pytest.mark.parametrize("asked", ["1h", ["1h"], ["1h", "1d"], ["1d", "1h"], Timeframe.H1])
def test_a_strategy_of_several_timeframes_accepts_its_own(asked):
    assert with_overrides(TWO, timeframes=asked) is TWO


@pytest.mark.parametrize("asked", ["1d", "4h", ["1h", "4h"], ["1h", "1d", "4h"], []])
def test_a_strategy_of_several_timeframes_cannot_be_moved(asked):
    with pytest.raises(InvalidInput, match="uses the timeframes 1h, 1d and trades 1h"):
        with_overrides(TWO, timeframes=asked)


def test_a_strategy_of_one_timeframe_does_not_become_one_of_two():
    with pytest.raises(InvalidInput, match="cannot be run on 1h, 4h"):
        with_overrides(ONE, timeframes=["1h", "4h"])


def test_an_unknown_timeframe_is_refused():
    with pytest.raises(InvalidInput, match="Unknown timeframe '2d'"):
        with_overrides(ONE, timeframes="2d")


@pytest.mark.parametrize(
    "value", ["2005-01-02", "2005-01-02T00:00:00Z", date(2005, 1, 2), datetime(2005, 1, 2, tzinfo=UTC)]
)
def test_days_in_any_form(value):
    assert with_overrides(ONE, start_date=value).training_data.start_date == date(2005, 1, 2)


@pytest.mark.parametrize("value", ["2005-01-02T14:00:00Z", "2005-01-02T00:00:00+02:00"])
def test_a_time_of_day_is_refused(value):
    with pytest.raises(InvalidInput, match=r"end_date '.*' has a time of day"):
        with_overrides(ONE, end_date=value)


def test_what_is_no_date():
    with pytest.raises(InvalidInput, match="'soon' is not a date"):
        with_overrides(ONE, end_date="soon")


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"symbols": ["../x"]}, "/training_data/symbols/0"),
        ({"start_date": "2020-01-01"}, "/training_data/end_date"),
        ({"seed": -1}, "/training/seed"),
    ],
)
def test_an_override_is_checked_like_the_document(asked, pointer):
    with pytest.raises(InvalidStrategy, match="one with overrides") as caught:
        with_overrides(ONE, **asked)
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_scalars_that_are_not_touched_stay_as_written():
    text = (
        starter("x")
        .replace("learning_rate: 0.002", "learning_rate: 2.0e-3")
        .replace(
            "description: RSI and distance from the Bollinger bands, read by a small network",
            "description: 2020-13-45  # not a date",
        )
    )
    made = with_overrides(parse_strategy(text), seed=1)
    assert changed_lines(parse_strategy(text), made) == ["seed: 1"]


def test_symbols_that_look_like_other_things_stay_text():
    made = with_overrides(ONE, symbols=["TRUE", "600519", "NO"])
    assert made.symbols == ("TRUE", "600519", "NO")
    assert '["TRUE", "600519", NO]' in made.text


@settings(max_examples=25, deadline=None)
@given(
    symbols=st.none() | st.lists(st.sampled_from(["A", "B", "1e5", "null", "^X"]), min_size=1, unique=True),
    timeframe=st.none() | st.sampled_from(list(Timeframe)),
    start=st.none() | st.dates(date(1990, 1, 1), date(2012, 1, 1)),
    seed=st.none() | st.integers(0, 2**32 - 1),
)
def test_law_overrides_do_what_they_say_and_do_it_once(symbols, timeframe, start, seed):
    asked = {"symbols": symbols, "timeframes": timeframe, "start_date": start, "seed": seed}
    made = with_overrides(ONE, **asked)
    assert made.symbols == (ONE.symbols if symbols is None else tuple(symbols))
    assert made.timeframes == (ONE.timeframes if timeframe is None else (timeframe,))
    assert made.training_data.start_date == (start or ONE.training_data.start_date)
    assert made.training.seed == (ONE.training.seed if seed is None else seed)
    assert made.training_data.end_date == ONE.training_data.end_date
    assert with_overrides(made, **asked) is made
    assert with_overrides(ONE, **asked).text == made.text
    assert parse_strategy(made.text) == made
