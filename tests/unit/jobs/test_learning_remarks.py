"""Warnings about trainings whose scores say little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ktrdr.bars import Bars
from ktrdr.jobs.learning_remarks import remarks_on_learning
from ktrdr.jobs.learning_set import LearningSet, build_learning_set
from ktrdr.strategies import Strategy, parse_strategy
from ktrdr.timeframe import Timeframe

Drained = Callable[[Any], tuple[list[Any], Any]]


@pytest.fixture
def learn(strategy: Strategy, bars_of: Callable[..., Bars], drained: Drained) -> Callable[..., LearningSet]:
    def build(rows: int, find: str = "", put: str = "") -> LearningSet:
        edited = parse_strategy(strategy.text.replace(find, put)) if find else strategy
        market = {"AAA": {Timeframe.D1: bars_of(rows=rows)}}
        return drained(build_learning_set(edited, market))[1]

    return build


def test_enough_rows_of_every_class_need_no_remark(learn: Callable[..., LearningSet]) -> None:
    assert list(remarks_on_learning(learn(900))) == []


def test_a_small_part_is_told_with_what_chance_does(learn: Callable[..., LearningSet]) -> None:
    data = learn(60)
    validation, test = remarks_on_learning(data)
    rows = data.counts.validation
    assert validation.startswith(
        f"The validation part has {rows} rows; by chance alone an accuracy moves by "
    )
    assert f"{50 / rows**0.5:.0f} points or more, so which epoch was best is mostly chance" in validation
    assert f"The test part has {data.counts.test} rows" in test


def test_a_class_without_rows_is_told(learn: Callable[..., LearningSet]) -> None:
    told = list(remarks_on_learning(learn(900, "threshold: 0.005", "threshold: 0.9")))
    assert [line.partition(",")[0] for line in told] == [
        "No training row is labelled BUY",
        "No training row is labelled SELL",
    ]


def test_an_absent_test_part_is_told(learn: Callable[..., LearningSet]) -> None:
    told = list(remarks_on_learning(learn(900, "validation: 0.2, test: 0.2", "validation: 0.4, test: 0.0")))
    assert told == ["The test part has no rows: nothing is known of the model outside its training part."]
