"""A simulation that was interrupted and goes on gives the bits of one that was not, wherever it was interrupted."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from ktrdr.backtesting import (
    BacktestingEngine,
    Costs,
    PositionRules,
    Result,
    SimulationConfig,
    Sizing,
    Stops,
)
from ktrdr.backtesting.state import SimulationState
from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput
from ktrdr.snapshot import Snapshot, pack, unpack
from ktrdr.timeframe import Timeframe

ROWS, FIRST = 4_000, 20
BOTH_WAYS = PositionRules(allow_short_from_flat=True, reversal="flip")
CONFIGS = {
    "plain": SimulationConfig(),
    "both ways, every bar": SimulationConfig(sizing=Sizing(lot_step=0), positions=BOTH_WAYS, at_end="hold"),
    "trailing stop, target, costs": SimulationConfig(
        costs=Costs(commission=0.0005, slippage=0.0002),
        stops=Stops(trailing_stop=0.01, take_profit=0.02, max_holding_bars=40),
        positions=BOTH_WAYS,
    ),
    "stops in ATRs, risk": SimulationConfig(
        sizing=Sizing(type="risk", risk=0.01),
        stops=Stops(stop_loss_atr=2.0, trailing_stop_atr=3.0, atr_period=10),
        positions=PositionRules(min_signal_separation_bars=5),
    ),
}


def market(rows: int = ROWS) -> tuple[Bars, Any, Any]:
    random = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.004, rows)))
    start = np.concatenate([[100.0], close[:-1]])
    spread = random.random(rows) * 0.004
    high, low = np.maximum(start, close) * (1 + spread), np.minimum(start, close) * (1 - spread)
    time = np.arange(rows, dtype=np.int64) * 3_600_000_000
    bars = Bars("X", Timeframe.H1, time, start, high, low, close, np.ones(rows))
    return bars, random.integers(-1, 2, rows).astype(np.int8), random.random(rows)


BARS, SIGNALS, CONFIDENCE = market()


def run(config: SimulationConfig, state: SimulationState, chunk: int = 100) -> Generator[Any, None, Result]:
    engine = BacktestingEngine(config, chunk_bars=chunk)
    return engine.run(BARS, SIGNALS, confidence=CONFIDENCE, bars_per_year=6_000.0, first=FIRST, state=state)


def drained(steps: Generator[Any, None, Result]) -> tuple[list[Any], Result]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


def begin(config: SimulationConfig, bars: int = ROWS - FIRST) -> SimulationState:
    return SimulationState(config.initial_capital, bars)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_from_every_chunk_the_rest_is_the_same_to_the_last_bit(name: str) -> None:
    config, stops, whole = CONFIGS[name], [], []
    state = begin(config)
    steps = run(config, state)
    while True:
        try:
            whole.append(next(steps))
        except StopIteration as end:
            result = end.value
            break
        stops.append(pack(state.snapshot()))
    assert len(whole) == 40
    assert len(result.trades) > (1024 if name.startswith("both ways") else 10), "the records had to grow"
    for place, stored in enumerate(stops):
        resumed = begin(config)
        resumed.restore(unpack(stored))
        seen, again = drained(run(config, resumed))
        assert seen == whole[place + 1 :], "only the remaining bars were simulated"
        assert again.digest() == result.digest()
        assert again.statistics == result.statistics
        assert again.counts == result.counts
        assert again.equity_T.tobytes() == result.equity_T.tobytes()


def test_the_chunks_of_the_rest_may_be_others() -> None:
    config = CONFIGS["trailing stop, target, costs"]
    state = begin(config)
    steps = run(config, state)
    next(steps)
    resumed = begin(config)
    resumed.restore(unpack(pack(state.snapshot())))
    assert drained(run(config, resumed, chunk=777))[1].digest() == drained(steps)[1].digest()


def test_the_state_of_another_simulation_is_refused() -> None:
    config = CONFIGS["plain"]
    state = begin(config)
    next(run(config, state))
    good = state.snapshot()
    with pytest.raises(InvalidInput, match="of 3980 bars, here are 10"):
        begin(config, 10).restore(good)
    other = {**good.values, "layout": {**good.values["layout"], "fills": [["row", "int32"]]}}
    with pytest.raises(InvalidInput, match="another layout"):
        begin(config).restore(Snapshot(other, good.arrays))
    cut = {**good.arrays, "trades": good.arrays["trades"][:-1]}
    for values, arrays in (({}, good.arrays), (good.values, {}), (good.values, cut)):
        with pytest.raises(InvalidInput, match="does not fit"):
            begin(config).restore(Snapshot(values, arrays))
