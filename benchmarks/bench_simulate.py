"""``simulate()`` alone over 1,000,000 bars: equity, trades and statistics included, as workers get them.

Run: ``python benchmarks/bench_simulate.py [BARS]``. A seeded walk; signals where a mean of 20 closes crosses one of
100, which makes a trade every 150 bars. CPU seconds of one process, median of 15 runs after one that compiles.
Goal: 100 M bars/s long or in cash with costs. Rows for stops, shorts and costs by quotes show what these add.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np

from ktrdr.backtesting import Costs, PositionRules, Result, SimulationConfig, Sizing, Stops, simulate
from ktrdr.bars import Bars
from ktrdr.timeframe import Timeframe
from table import Row

BARS, RUNS = 1_000_000, 15
BARS_PER_YEAR = 365.25 * 1_440
COSTS = Costs(commission=0.00005, slippage_bps=0.2)
WHOLE = Sizing(lot_step=0)
CASES = {
    "long_flat": ("long or in cash, costs", SimulationConfig(sizing=WHOLE, costs=COSTS)),
    "long_short": (
        "long and short, costs",
        SimulationConfig(sizing=WHOLE, costs=COSTS, positions=PositionRules(allow_short_from_flat=True)),
    ),
    "stops": (
        "long and short, costs, stop, target, trailing stop",
        SimulationConfig(
            sizing=WHOLE,
            costs=COSTS,
            stops=Stops(stop_loss=0.01, take_profit=0.02, trailing_stop=0.012),
            positions=PositionRules(allow_short_from_flat=True),
        ),
    ),
}


def random_walk(rows: int) -> Bars:
    """Minute bars of a seeded walk."""
    random = np.random.default_rng(0)
    close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.001, rows)))
    opened = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(opened, close) * (1.0 + 0.0005 * random.random(rows))
    low = np.minimum(opened, close) * (1.0 - 0.0005 * random.random(rows))
    stamps = np.arange(rows, dtype=np.int64) * 60_000_000
    return Bars("BENCH", Timeframe.M1, stamps, opened, high, low, close, np.ones(rows))


def crossings(bars: Bars) -> np.ndarray:
    """+1 while the fast mean is above the slow one, else -1; the first 100 bars keep still."""
    total = np.cumsum(bars.close)
    signals = np.zeros(len(bars), dtype=np.int8)
    fast = (total[100:] - total[80:-20]) / 20
    slow = (total[100:] - total[:-100]) / 100
    signals[100:] = np.where(fast > slow, 1, -1)
    return signals


def measure(bars: Bars, config: SimulationConfig, runs: int) -> tuple[float, Result]:
    """Median CPU seconds of one simulation, and its result."""
    signals = crossings(bars)
    result = simulate(bars, signals, config, bars_per_year=BARS_PER_YEAR)
    seconds = []
    for _ in range(runs):
        begin = time.process_time()
        result = simulate(bars, signals, config, bars_per_year=BARS_PER_YEAR)
        seconds.append(time.process_time() - begin)
    return statistics.median(seconds), result


def rows(*, tiny: bool = False, count: int = BARS) -> Iterator[Row]:
    """One row per case."""
    bars = random_walk(5_000 if tiny else count)
    for key, (words, config) in CASES.items():
        seconds, result = measure(bars, config, 1 if tiny else RUNS)
        yield Row(
            key=f"simulate.{key}",
            what=f"simulate(): {len(bars):,} bars, {words}",
            measured=len(bars) / seconds / 1e6 if seconds else 0.0,
            unit="M bars/s",
            target=100.0 if key == "long_flat" else None,
            better="higher",
            cpu_s=seconds,
            note=f"{len(result.trades):,} trades, statistics included",
        )


if __name__ == "__main__":
    for row in rows(count=int(sys.argv[1]) if len(sys.argv) > 1 else BARS):
        print(f"{row.what}: {row.measured:.1f} {row.unit}, {1_000 * (row.cpu_s or 0):.2f} ms ({row.note})")
