"""The demo's figures from nothing but definitions: naive indicators and memberships, the network as sums and
products, the decision rule in words, the naive simulator, statistics as textbook formulas."""

from __future__ import annotations

import itertools
import math
import statistics
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

import ktrdr
from ktrdr.backtesting import SimulationConfig
from ktrdr.bars import Bars
from ktrdr.market.calendars import bars_per_year
from ktrdr.strategies.document import Strategy
from reference import naive_indicators
from reference.naive_membership import naive_grade
from reference.naive_simulator import NaiveSimulator

FIRST_UNSEEN = "2013-01-01"


@pytest.fixture(scope="module")
def demo() -> tuple[Strategy, Bars, Any, Any]:
    """What ``ktrdr demo`` runs: the model and its backtest on the dates it never saw."""
    strategy = ktrdr.load_strategy("sp500_trend")
    bars = ktrdr.load_bars("SP500", "1d")
    model = ktrdr.train(strategy, bars)
    return strategy, bars, model, ktrdr.backtest(model, bars, start=FIRST_UNSEEN)


def naive_outputs(strategy: Strategy, bars: Bars) -> dict[str, dict[str, list[float]]]:
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    candles = naive_indicators.Candles(*(column.tolist() for column in columns))
    outputs = {}
    for name, use in strategy.indicators.items():
        numbers = {key: value for key, value in use.params.items() if not isinstance(value, str)}
        assert set(use.params) - set(numbers) <= {"source"}
        assert use.params.get("source", "close") == "close"  # the naive ones read the close
        outputs[name] = getattr(naive_indicators, use.type)(candles, **numbers)
    return outputs


def naive_inputs(strategy: Strategy, bars: Bars) -> list[list[float]]:
    """Rows of memberships in the order of nn_inputs; NaN where an indicator is not known."""
    outputs = naive_outputs(strategy, bars)
    columns = []
    for entry in strategy.nn_inputs:
        use = strategy.fuzzy_sets[entry.fuzzy_set]
        of_indicator = outputs[use.indicator]
        values = of_indicator[use.output] if use.output else next(iter(of_indicator.values()))
        for _, function in use.variable.sets:
            columns.append([math.nan if math.isnan(v) else naive_grade(function, v) for v in values])
    return [list(row) for row in zip(*columns, strict=True)]


def naive_network(weights: dict[str, np.ndarray], row: list[float]) -> list[float]:
    """tanh layers and a softmax, one product at a time."""
    layers = sorted({name.rsplit(".", 1)[0] for name in weights})
    values = [float(np.float32(v)) for v in row]
    for number, layer in enumerate(layers):
        matrix, bias = weights[f"{layer}.weight"].tolist(), weights[f"{layer}.bias"].tolist()
        values = [
            math.fsum(w * v for w, v in zip(line, values, strict=True)) + b
            for line, b in zip(matrix, bias, strict=True)
        ]
        if number < len(layers) - 1:
            values = [math.tanh(v) for v in values]
    largest = max(values)
    powers = [math.exp(v - largest) for v in values]
    return [p / math.fsum(powers) for p in powers]


def naive_signals(
    strategy: Strategy, weights: dict[str, np.ndarray], bars: Bars
) -> tuple[list[int], list[float]]:
    signals, confidences = [], []
    for row in naive_inputs(strategy, bars):
        if any(math.isnan(v) for v in row):
            signals.append(0)
            confidences.append(math.nan)
            continue
        buy, hold, sell = naive_network(weights, row)
        confidence = max(buy, hold, sell)
        sure = confidence >= strategy.decisions.confidence_threshold
        signals.append((1 if confidence == buy else -1 if confidence == sell else 0) if sure else 0)
        confidences.append(confidence)
    return signals, confidences


def test_the_demo_is_what_its_definitions_say(demo: tuple[Strategy, Bars, Any, Any]) -> None:
    strategy, bars, model, result = demo
    weights = model.bundle.weights()
    signals, confidences = naive_signals(strategy, weights, bars)
    first = next(
        i for i, stamp in enumerate(bars.time) if stamp >= datetime(2013, 1, 1, tzinfo=UTC).timestamp() * 1e6
    )
    atr = naive_indicators.atr(
        naive_indicators.Candles(
            *(c.tolist() for c in (bars.open, bars.high, bars.low, bars.close, bars.volume))
        ),
        14,
    )["atr"]
    config = SimulationConfig.from_json(strategy.simulation_settings())
    naive = NaiveSimulator(bars[first:], signals[first:], config, atr[first:], confidences[first:]).run()
    np.testing.assert_allclose(result.equity_T, naive.equity, rtol=1e-9)
    assert len(result.trades) == len(naive.trades) >= 20

    equity, figures = naive.equity, result.statistics
    r = [after / before - 1 for before, after in itertools.pairwise(equity)]
    a = bars_per_year("XNYS", bars.timeframe, bars[first:].start, bars.end)
    mean, deviation = statistics.fmean(r), statistics.stdev(r)
    downside = math.sqrt(statistics.fmean([min(x, 0.0) ** 2 for x in r]))
    peak, deepest = equity[0], 0.0
    for value in equity:
        peak = max(peak, value)
        deepest = min(deepest, value / peak - 1)
    nets = [trade.net for trade in naive.trades]
    gains, losses = math.fsum(n for n in nets if n > 0), -math.fsum(n for n in nets if n < 0)
    annual = (equity[-1] / equity[0]) ** (a / len(r)) - 1
    expected = {
        "total_return": equity[-1] / equity[0] - 1,
        "annual_return": annual,
        "volatility": deviation * math.sqrt(a),
        "sharpe_ratio": mean / deviation * math.sqrt(a),
        "sortino_ratio": mean * a / (downside * math.sqrt(a)),
        "max_drawdown": deepest,
        "calmar_ratio": annual / abs(deepest),
        "win_rate": sum(n > 0 for n in nets) / len(nets),
        "profit_factor": gains / losses,
        "expectancy": statistics.fmean(nets),
        "sqn": math.sqrt(len(nets)) * statistics.fmean(nets) / statistics.stdev(nets),
        "total_trades": len(nets),
        "final_equity": equity[0] + math.fsum(nets),
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-7), name
