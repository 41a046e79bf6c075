"""The compiled simulator against a naive one, on random walks with gaps, stops, costs and every rule."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from ktrdr.backtesting import Costs, PositionRules, Result, SimulationConfig, Sizing, Stops, simulate
from ktrdr.backtesting.identities import check_identities, check_prefix
from ktrdr.backtesting.kernel import REASONS
from ktrdr.bars import Bars, Quotes
from ktrdr.indicators import compute
from ktrdr.timeframe import Timeframe
from reference.naive_simulator import NaiveSimulator


def random_bars(seed: int, count: int, *, wild: float = 0.01) -> Bars:
    """A walk with gaps between bars, wide ranges and a quoted spread."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, wild, count)))
    open_ = np.roll(close, 1) * np.exp(rng.normal(0, wild / 3, count) * (rng.random(count) < 0.3))
    open_[0] = close[0]
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0, wild, count)))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0, wild, count)))
    half = np.abs(rng.normal(0, 0.02, (4, count)))
    mids = (open_, high, low, close)
    quotes = Quotes(
        *(m - h for m, h in zip(mids, half, strict=True)), *(m + h for m, h in zip(mids, half, strict=True))
    )
    time = np.arange(count) * 3_600_000_000
    return Bars("WALK", Timeframe.H1, time, open_, high, low, close, np.ones(count), quotes=quotes)


def random_signals(seed: int, count: int, density: float) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    return (rng.choice([-1, 1], count) * (rng.random(count) < density)).astype(np.int8)


def naive_run(
    bars: Bars, signals: np.ndarray, config: SimulationConfig, first: int, confidence
) -> NaiveSimulator:
    atr = None
    if config.stops.uses_atr:
        atr = compute("atr", bars, period=config.stops.atr_period)["atr"][first:].tolist()
    return NaiveSimulator(
        bars[first:], signals[first:].tolist(), config, atr, confidence[first:].tolist()
    ).run()


def assert_same(result: Result, naive: NaiveSimulator) -> None:
    np.testing.assert_allclose(result.equity_T, naive.equity, rtol=1e-10, atol=1e-6)
    np.testing.assert_allclose(result.position_T, naive.held, rtol=1e-10, atol=1e-9)
    trades = result.trades
    assert len(trades) == len(naive.trades)
    for name in ("entry_row", "exit_row", "side", "bars_held"):
        assert getattr(trades, name).tolist() == [getattr(t, name) for t in naive.trades], name
    assert [REASONS[r] for r in trades.reason] == [t.reason for t in naive.trades]
    for name in ("size", "entry_price", "exit_price", "costs", "net", "slippage", "mae", "mfe", "confidence"):
        expected = [getattr(t, name) for t in naive.trades]
        np.testing.assert_allclose(getattr(trades, name), expected, rtol=1e-9, atol=1e-7, err_msg=name)
    assert {k: v for k, v in result.counts.items() if v} == naive.counts


def optional(strategy: hs.SearchStrategy) -> hs.SearchStrategy:
    return hs.none() | strategy


@hs.composite
def configs(draw: hs.DrawFn) -> SimulationConfig:
    rate = hs.sampled_from([0.005, 0.01, 0.03])
    times = hs.sampled_from([0.5, 1.0, 3.0])
    stops = Stops(
        stop_loss=draw(optional(rate)),
        take_profit=draw(optional(rate)),
        trailing_stop=draw(optional(rate)),
        stop_loss_atr=draw(optional(times)),
        take_profit_atr=draw(optional(times)),
        trailing_stop_atr=draw(optional(times)),
        atr_period=draw(hs.sampled_from([2, 14])),
        max_holding_bars=draw(optional(hs.sampled_from([1, 2, 7]))),
    )
    kinds = ["fraction", "units", "cash"] + (["risk"] if stops.has_stop_loss else [])
    sizing = Sizing(
        type=draw(hs.sampled_from(kinds)),
        fraction=draw(hs.sampled_from([0.25, 1.0])),
        units=draw(hs.sampled_from([0.5, 30.0, 5_000.0])),
        cash=draw(hs.sampled_from([50.0, 5_000.0])),
        risk=draw(hs.sampled_from([0.01, 0.5])),
        lot_step=draw(hs.sampled_from([0.0, 0.1, 1.0, 100.0])),
    )
    costs = Costs(
        commission=draw(hs.sampled_from([0.0, 0.001])),
        commission_per_unit=draw(hs.sampled_from([0.0, 0.01])),
        commission_fixed=draw(hs.sampled_from([0.0, 2.0])),
        commission_minimum=draw(hs.sampled_from([0.0, 5.0])),
        slippage=draw(hs.sampled_from([0.0, 0.0005])),
        spread=draw(hs.sampled_from(["none", "quotes"])),
    )
    positions = PositionRules(
        position_awareness=draw(hs.booleans()),
        allow_short_from_flat=draw(hs.booleans()),
        min_signal_separation_bars=draw(hs.sampled_from([0, 1, 5])),
        reversal=draw(hs.sampled_from(["flip", "close_then_open"])),
    )
    return SimulationConfig(
        initial_capital=draw(hs.sampled_from([500.0, 10_000.0])),
        sizing=sizing,
        costs=costs,
        stops=stops,
        positions=positions,
        at_end=draw(hs.sampled_from(["close", "hold"])),
    )


@settings(max_examples=120, deadline=None)
@given(
    config=configs(),
    seed=hs.integers(0, 10_000),
    density=hs.sampled_from([0.05, 0.3, 1.0]),
    first=hs.sampled_from([0, 20]),
    wild=hs.sampled_from([0.003, 0.01, 0.2]),
)
def test_kernel_does_what_the_rules_say(config, seed, density, first, wild) -> None:
    bars = random_bars(seed, 160, wild=wild)
    signals = random_signals(seed, 160, density)
    confidence = np.random.default_rng(seed).random(160)
    result = simulate(bars, signals, config, confidence=confidence, bars_per_year=6000.0, first=first)
    assert_same(result, naive_run(bars, signals, config, first, confidence))
    check_identities(result, bars)
    for cut in (first + 2, 61, 159):
        check_prefix(bars, signals, config, cut, first=first)


@pytest.mark.parametrize("seed", range(4))
def test_long_walks_through_many_chunks(seed: int) -> None:
    bars, signals = random_bars(seed, 3_000), random_signals(seed, 3_000, 0.02)
    config = SimulationConfig(
        sizing=Sizing(lot_step=0.0, fraction=0.5),
        costs=Costs(commission=0.0002, slippage_bps=1.0),
        stops=Stops(stop_loss=0.05, trailing_stop_atr=4.0, take_profit=0.08, max_holding_bars=600),
        positions=PositionRules(allow_short_from_flat=True, position_awareness=seed % 2 == 0),
    )
    confidence = np.full(3_000, np.nan)
    result = simulate(bars, signals, config, confidence=confidence, bars_per_year=6000.0)
    assert len(result.trades) > 20
    assert_same(result, naive_run(bars, signals, config, 0, confidence))
    check_identities(result, bars)


_DIGESTS = """
import sys
sys.path[:0] = [{tests!r}]
from reference.test_simulator_reference import digests
print(*digests())
"""


def digests() -> list[str]:
    """Digests and Sharpe ratios of a few runs with everything switched on, for comparison between processes."""
    found = []
    for seed in range(3):
        bars, signals = random_bars(seed, 1_500), random_signals(seed, 1_500, 0.1)
        config = SimulationConfig(
            sizing=Sizing(type="risk", risk=0.02, lot_step=0.1),
            costs=Costs(commission=0.0003, commission_minimum=1.0, slippage=0.0001, spread="quotes"),
            stops=Stops(stop_loss_atr=2.0, take_profit=0.05, trailing_stop=0.03, max_holding_bars=40),
            positions=PositionRules(allow_short_from_flat=True, min_signal_separation_bars=2),
        )
        result = simulate(bars, signals, config, bars_per_year=6000.0)
        found += [
            result.digest(),
            repr(result.statistics["sharpe_ratio"]),
            repr(result.statistics["max_drawdown"]),
        ]
    return found


@pytest.mark.parametrize("disabled", ["0", "1"])
def test_compiled_and_interpreted_kernels_agree_to_the_bit(disabled: str) -> None:
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS.format(tests=tests)],
        env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.split() == digests()
