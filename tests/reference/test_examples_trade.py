"""Every example learns from the bundled data and trades on dates it never saw; the same job code as workers run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.bars import Bars
from ktrdr.jobs.backtest import backtest_model
from ktrdr.jobs.train import train_model
from ktrdr.market.resample import resample
from ktrdr.market.samples import load_sample
from ktrdr.strategies import StrategyLibrary, example_root, with_overrides
from ktrdr.timeframe import Timeframe

EXAMPLES = StrategyLibrary([example_root()])
NATIVE = {"SP500": Timeframe.D1, "NASDAQ": Timeframe.D1, "EURUSD": Timeframe.H1}


def bars_of(symbol: str, timeframe: Timeframe) -> Bars:
    bars = load_sample(symbol, NATIVE[symbol])
    return bars if timeframe == bars.timeframe else resample(bars, timeframe)


def drained(steps):
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def trained(strategy, tmp_path: Path):
    market = {
        symbol: {timeframe: bars_of(symbol, timeframe) for timeframe in strategy.timeframes}
        for symbol in strategy.symbols
    }
    model = drained(train_model(strategy, market, FileArtifactStore(tmp_path), device="cpu"))
    start = strategy.training_data.end_date + timedelta(days=1)
    return model, [
        drained(backtest_model(model.bundle, market[symbol], strategy=strategy, start=start)).result
        for symbol in strategy.symbols
    ]


@pytest.mark.parametrize("name", EXAMPLES.names())
def test_an_example_makes_twenty_trades_out_of_sample(name, tmp_path):
    strategy = EXAMPLES.get(name)
    _, results = trained(strategy, tmp_path)
    for result in results:
        assert result.statistics["total_trades"] >= 20


def test_neuro_mean_reversion_runs_on_daily_bars_too(tmp_path):
    strategy = with_overrides(EXAMPLES.get("neuro_mean_reversion"), timeframes="1d")
    model, (result,) = trained(strategy, tmp_path)
    assert model.summary["epochs_trained"] >= 1
    assert len(result.equity_T) > 50
