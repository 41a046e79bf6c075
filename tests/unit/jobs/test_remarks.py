"""A backtest that traded nothing says why, in the terms of the strategy document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ktrdr.backtesting import SimulationConfig, simulate
from ktrdr.bars import Bars
from ktrdr.jobs.backtest import backtest_model
from ktrdr.jobs.remarks import remarks_on
from ktrdr.models.decision import Decisions
from ktrdr.strategies import parse_strategy
from ktrdr.timeframe import Timeframe

MakeBars = Callable[..., Bars]


def said(bars: Bars, signal: int, confidence: float = 0.4) -> list[str]:
    """What is remarked where the model says the same at every bar."""
    signal_T = np.full(len(bars), signal, dtype=np.int8)
    decisions = Decisions(signal_T, np.full(len(bars), confidence))
    result = simulate(bars, signal_T, SimulationConfig())
    year = 365.25
    return list(
        remarks_on(result, bars, None, decisions, threshold=0.5, rows_without_features=0, bars_per_year=year)
    )


def test_never_sure_enough(bars_of: MakeBars) -> None:
    (told,) = said(bars_of(), 0, confidence=0.4126)
    assert "probability of 0.5 that decisions.confidence_threshold asks for" in told
    assert "the highest of any answer was 0.413" in told
    assert "600 bars" in told


def test_only_what_the_rules_forbid(bars_of: MakeBars) -> None:
    (told,) = said(bars_of(), -1)
    assert "SELL at 600 bars and BUY at none" in told
    assert "decisions.allow_short_from_flat" in told


def test_nothing_to_remark_where_something_was_traded(bars_of: MakeBars) -> None:
    assert said(bars_of(), 1) == []


def test_nothing_to_remark_where_the_model_was_never_asked(bars_of: MakeBars) -> None:
    assert said(bars_of(), 0, confidence=float("nan")) == []


def test_the_backtest_of_a_shy_model_warns(trained: Any, bars_of: MakeBars, drained: Any) -> None:
    text = trained.bundle.manifest.strategy
    assert "confidence_threshold: 0.0" in text
    strategy = parse_strategy(text.replace("confidence_threshold: 0.0", "confidence_threshold: 1.0"))
    _, backtest = drained(backtest_model(trained.bundle, {Timeframe.D1: bars_of()}, strategy=strategy))
    assert len(backtest.result.trades) == 0
    assert any(told.startswith("No trade was made") for told in backtest.result.warnings())


@pytest.mark.parametrize("seed", [7, 1])
def test_the_starter_trades_as_it_stands(seed: int) -> None:
    """A newcomer's first strategy of his own must not end in an empty table."""
    import ktrdr  # the notebook's face: the same job code
    from ktrdr.strategies import starter

    bars = ktrdr.load_bars("SP500", "1d")
    model = ktrdr.train(parse_strategy(starter("mine").replace("seed: 7", f"seed: {seed}")), bars)
    assert len(ktrdr.backtest(model, bars, start="2013-01-01").trades) >= 20
