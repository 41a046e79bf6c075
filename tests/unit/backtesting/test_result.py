from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from ktrdr.backtesting import Costs, SimulationConfig, buy_and_hold, simulate
from ktrdr.backtesting.identities import check_identities, check_prefix
from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput
from ktrdr.timeframe import Timeframe


def walk(count: int = 300, symbol: str = "X") -> tuple[Bars, np.ndarray]:
    rng = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    high, low = close * 1.01, close * 0.99
    time = 1_420_070_400_000_000 + np.arange(count) * 86_400_000_000
    bars = Bars(symbol, Timeframe.D1, time, close, high, low, close, np.ones(count))
    return bars, rng.choice([-1, 0, 0, 1], count).astype(np.int8)


CONFIG = SimulationConfig(costs=Costs(commission=0.001))


@pytest.fixture(scope="module")
def result():
    bars, signals = walk()
    return simulate(bars, signals, CONFIG, bars_per_year=252.0)


def test_digest_covers_arrays_and_configuration_and_nothing_else(result) -> None:
    bars, signals = walk(symbol="OTHER")
    assert simulate(bars, signals, CONFIG, bars_per_year=365.0).digest() == result.digest()
    other = dataclasses.replace(CONFIG, risk_free_rate=0.01)
    assert simulate(bars, signals, other, bars_per_year=252.0).digest() != result.digest()
    changed = signals.copy()
    changed[np.flatnonzero(signals == 1)[0]] = 0
    assert simulate(bars, changed, CONFIG, bars_per_year=252.0).digest() != result.digest()


def test_a_result_is_frozen(result) -> None:
    with pytest.raises(ValueError, match="read-only"):
        result.equity_T[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        result.trades.net[0] = 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.symbol = "Y"


def test_trades_frame(result) -> None:
    frame = result.trades_frame()
    assert len(frame) == len(result.trades) > 10
    assert frame["entry_time"].dtype == pl.Datetime("us", "UTC")
    assert frame["entry_time"][0] == datetime.fromtimestamp(int(result.trades.entry_time[0]) / 1e6, UTC)
    assert set(frame["side"]) == {"long"}
    assert set(frame["reason"]) <= {"signal", "end"}
    assert frame["confidence"].null_count() == len(frame)
    np.testing.assert_array_equal(frame["net"].to_numpy(), result.trades.net)


def test_frames_of_a_result_without_trades() -> None:
    bars, signals = walk()
    empty = simulate(bars, np.zeros_like(signals), CONFIG, bars_per_year=252.0)
    frame = empty.trades_frame()
    assert len(frame) == 0
    assert frame["side"].dtype == pl.String
    assert frame["reason"].dtype == pl.String
    assert empty.warnings() == ()


def test_equity_frame(result) -> None:
    bars, _ = walk()
    frame = result.equity_frame()
    assert frame.columns == ["time", "equity", "drawdown", "position"]
    assert frame["drawdown"].min() == pytest.approx(result.statistics["max_drawdown"])
    benchmark = buy_and_hold(bars, CONFIG, bars_per_year=252.0)
    both = result.equity_frame(benchmark)
    assert both.columns == ["time", "equity", "benchmark", "drawdown", "position"]
    assert both["benchmark"][0] == 100_000.0


def test_repr_says_what_matters(result) -> None:
    assert repr(result).startswith("Result(X 1d, 300 bars, ")


def test_plot_draws_equity_and_drawdown(result) -> None:
    figure = result.plot()
    equity, drawdown = figure.axes
    assert equity.get_ylabel() == "equity"
    assert drawdown.get_ylabel() == "drawdown, %"
    np.testing.assert_array_equal(equity.lines[0].get_ydata(), result.equity_T)


def test_plot_without_matplotlib_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "sys.modules['matplotlib.figure'] = None\n"
        "import numpy as np\n"
        "from ktrdr.backtesting import simulate\n"
        "from ktrdr.bars import Bars\n"
        "from ktrdr.timeframe import Timeframe\n"
        "p = np.ones(3)\n"
        "bars = Bars('X', Timeframe.D1, np.arange(3), p, p, p, p, p)\n"
        "result = simulate(bars, [1, 0, 0], bars_per_year=252.0)\n"
        "try:\n    result.plot()\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "pip install 'ktrdr[report]'" in done.stdout


def test_the_simulator_loads_no_heavy_library() -> None:
    code = (
        "import sys, ktrdr.backtesting\n"
        "heavy = {'polars', 'pandas', 'matplotlib', 'torch', 'plotly', 'talib'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def test_the_checker_notices_a_cent(result) -> None:
    bars, _ = walk()
    check_identities(result, bars)
    equity = result.equity_T.copy()
    equity[150] += 0.01
    with pytest.raises(InvalidInput, match=r"row 150: cash \+ position x close = equity: off by 0\.01"):
        check_identities(dataclasses.replace(result, equity_T=equity), bars)


def test_the_checker_notices_a_lost_trade_and_a_wrong_fill(result) -> None:
    bars, _ = walk()
    fields = {f.name: getattr(result.trades, f.name)[:-1] for f in dataclasses.fields(result.trades)}
    fewer = dataclasses.replace(result, trades=type(result.trades)(**fields))
    with pytest.raises(InvalidInput, match="initial \\+ net trades"):
        check_identities(fewer, bars)
    position = result.fills.position.copy()
    position[3] += 1
    wrong = dataclasses.replace(result, fills=dataclasses.replace(result.fills, position=position))
    with pytest.raises(InvalidInput, match="sum of fills = position"):
        check_identities(wrong, bars)


def test_the_checker_wants_the_bars_of_the_result(result) -> None:
    bars, _ = walk()
    with pytest.raises(InvalidInput, match="does not lie within"):
        check_identities(result, bars[:200])
    with pytest.raises(InvalidInput, match="does not lie within"):
        check_identities(result, bars[5:])


def test_the_prefix_check_notices_a_look_ahead() -> None:
    bars, signals = walk()
    check_prefix(bars, signals, CONFIG, 100)

    class Peeking(np.ndarray):
        """Signals that change when the end is cut off, as a model with look-ahead would give."""

        def __getitem__(self, index):
            part = np.asarray(self)[index]
            return -part if isinstance(index, slice) and index.stop == 100 else part

    with pytest.raises(InvalidInput, match="depends on bars after it"):
        check_prefix(bars, signals.view(Peeking), CONFIG, 100)
