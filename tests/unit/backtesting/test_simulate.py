"""Small runs whose every figure can be worked out on paper."""

from __future__ import annotations

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
    buy_and_hold,
    simulate,
)
from ktrdr.backtesting.identities import check_identities
from ktrdr.backtesting.kernel import REASONS
from ktrdr.bars import Bars, Quotes
from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.timeframe import Timeframe

FREE = Costs()
SHORTS = PositionRules(allow_short_from_flat=True)


def bars_of(*rows: tuple[float, float, float, float], quotes: Quotes | None = None) -> Bars:
    """Bars from (open, high, low, close) rows, one day each."""
    open_, high, low, close = np.array(rows, dtype=float).T
    time = np.arange(len(rows)) * 86_400_000_000
    return Bars("X", Timeframe.D1, time, open_, high, low, close, np.ones(len(rows)), quotes=quotes)


def flat(*prices: float) -> Bars:
    """Bars that open, stay and close at one price."""
    return bars_of(*[(p, p, p, p) for p in prices])


def run(bars: Bars, signals: list[int], first: int = 0, **kwargs) -> Result:
    config = SimulationConfig(**{"initial_capital": 1_000.0, "at_end": "hold"} | kwargs)
    result = simulate(bars, np.array(signals, dtype=np.int8), config, bars_per_year=252.0, first=first)
    check_identities(result, bars)
    return result


def reasons(result: Result) -> list[str]:
    return [REASONS[code] for code in result.trades.reason]


def test_orders_fill_at_the_next_open_and_equity_is_marked_to_the_close() -> None:
    bars = bars_of((10, 10, 10, 10), (20, 26, 19, 25), (30, 30, 30, 30), (40, 45, 35, 45))
    result = run(bars, [1, 0, -1, 0])
    trades = result.trades
    assert (trades.entry_row[0], trades.exit_row[0]) == (1, 3)
    assert (trades.entry_price[0], trades.exit_price[0], trades.size[0]) == (20.0, 40.0, 50.0)
    assert result.equity_T.tolist() == [1_000, 50 * 25, 50 * 30, 50 * 40]
    assert result.position_T.tolist() == [0, 50, 50, 0]
    assert trades.bars_held[0] == 2
    assert trades.mae[0] == pytest.approx(-1 / 20)
    assert trades.mfe[0] == pytest.approx(20 / 20)  # the exit at 40 beats the high of 30
    assert result.statistics["exposure"] == 0.5
    assert result.statistics["turnover"] == pytest.approx(3_000 / np.mean(result.equity_T) * 252 / 3)


def test_a_decision_on_the_last_bar_opens_nothing() -> None:
    result = run(flat(10, 10, 10), [0, 0, 1])
    assert len(result.fills) == 0
    assert result.open_position is None
    assert result.statistics["win_rate"] is None
    assert result.statistics["sharpe_ratio"] is None


def test_an_open_position_is_closed_at_the_last_close_with_costs() -> None:
    bars, costs = flat(10, 10, 12), Costs(commission_fixed=1.0)
    result = run(bars, [1, 0, 0], costs=costs, at_end="close")
    assert reasons(result) == ["end"]
    assert result.trades.size[0] == 99  # (1000 - 1) / 10, whole units
    assert result.trades.costs[0] == 2.0
    assert result.equity_T[-1] == 1_000 + 99 * 2 - 2
    assert result.position_T[-1] == 0
    assert result.trades.bars_held[0] == 2
    assert result.statistics["exposure"] == pytest.approx(2 / 3)
    held = run(bars, [1, 0, 0], costs=costs)
    assert held.open_position is not None
    assert held.open_position.unrealised == 99 * 2 - 1
    assert held.equity_T[-1] == 1_000 + 99 * 2 - 1
    assert held.statistics["total_trades"] == 0
    assert held.statistics["exposure"] == pytest.approx(2 / 3)


def test_fraction_is_sized_net_of_its_own_costs() -> None:
    costs = Costs(commission=0.01, commission_per_unit=0.1, commission_fixed=5.0)
    result = run(flat(10, 10, 10), [1, 0, 0], costs=costs, sizing=Sizing(lot_step=0))
    units = (1_000 - 5) / (10 * 1.01 + 0.1)
    assert result.fills.units[0] == pytest.approx(units)
    assert result.fills.units[0] * 10 + result.fills.commission[0] == pytest.approx(1_000)
    minimum = run(flat(10, 10, 10), [1, 0, 0], costs=Costs(commission_minimum=50), sizing=Sizing(lot_step=0))
    assert minimum.fills.units[0] == pytest.approx(95)
    assert minimum.fills.commission[0] == 50


@pytest.mark.parametrize(
    ("sizing", "units", "cut"),
    [
        (Sizing(fraction=0.5), 50, 0),
        (Sizing(type="units", units=7.5, lot_step=0.5), 7.5, 0),
        (Sizing(type="units", units=0.3, lot_step=0.1), 0.3, 0),
        (Sizing(type="units", units=200), 100, 1),
        (Sizing(type="cash", cash=333), 33, 0),
        (Sizing(type="cash", cash=3_333), 100, 1),
        (Sizing(type="risk", risk=0.01), 10, 0),  # 10 of 1000 at 1 a unit
        (Sizing(type="risk", risk=0.5), 100, 1),
    ],
)
def test_sizing(sizing: Sizing, units: float, cut: int) -> None:
    result = run(flat(10, 10, 10), [1, 0, 0], sizing=sizing, stops=Stops(stop_loss=0.1))
    assert result.fills.units[0] == pytest.approx(units)
    assert result.counts["entries_cut"] == cut


def test_a_size_of_zero_is_counted_and_warned_about() -> None:
    result = run(flat(2_000, 2_000, 2_000), [1, 1, 0])
    assert len(result.fills) == 0
    assert result.counts["entries_of_size_zero"] == 2
    assert result.warnings() == (
        "2 entries were dropped because their size rounded to 0 (sizing.lot_step, equity).",
    )


def test_slippage_and_half_spread_make_every_fill_worse() -> None:
    half = np.array([0.1, 0.2, 0.3, 0.4])
    mid = np.full(4, 100.0)
    quotes = Quotes(*[mid - half] * 4, *[mid + half] * 4)
    bars = bars_of(*[(100, 100, 100, 100)] * 4, quotes=quotes)
    costs = Costs(slippage_bps=10, spread="quotes")
    result = run(bars, [1, -1, 0, 0], costs=costs, sizing=Sizing(type="units", units=1))
    assert result.trades.entry_price[0] == pytest.approx(100 + 0.1 + 0.2)
    assert result.trades.exit_price[0] == pytest.approx(100 - 0.1 - 0.3)
    assert result.trades.slippage[0] == pytest.approx(0.7)
    assert result.trades.gross[0] == pytest.approx(-0.7)
    assert result.statistics["total_slippage"] == pytest.approx(0.7)
    short = run(
        bars,
        [-1, 0, 0, 0],
        costs=costs,
        sizing=Sizing(type="units", units=1),
        positions=SHORTS,
        at_end="close",
    )
    assert short.trades.entry_price[0] == pytest.approx(100 - 0.1 - 0.2)
    assert short.trades.exit_price[0] == pytest.approx(100 + 0.1 + 0.4)  # the close's spread


def test_short_profit() -> None:
    result = run(
        flat(10, 10, 8, 8),
        [-1, 1, 0, 0],
        positions=PositionRules(allow_short_from_flat=True, reversal="close_then_open"),
    )
    assert result.trades.side.tolist() == [-1]
    assert result.trades.net[0] == 200
    assert result.equity_T.tolist() == [1_000, 1_000, 1_200, 1_200]


def test_without_shorts_a_sell_only_closes() -> None:
    result = run(flat(10, 10, 10, 10, 10), [-1, 1, -1, -1, 0])
    assert result.trades.side.tolist() == [1]
    assert result.open_position is None


def test_flip_and_close_then_open() -> None:
    prices, signals = flat(10, 10, 10, 10, 10), [1, -1, -1, 0, 0]
    flip = run(prices, signals, positions=SHORTS)
    assert flip.position_T.tolist() == [0, 100, -100, -100, -100]
    rules = PositionRules(allow_short_from_flat=True, reversal="close_then_open")
    closing = run(prices, signals, positions=rules)
    assert closing.position_T.tolist() == [0, 100, 0, -100, -100]


def test_position_awareness_off_adds_to_the_position() -> None:
    prices, signals = flat(10, 10, 20, 20, 20), [1, 1, -1, 0, 0]
    sizing = Sizing(type="units", units=10)
    aware = run(prices, signals, sizing=sizing)
    assert aware.position_T.tolist() == [0, 10, 10, 0, 0]
    adding = run(prices, signals, sizing=sizing, positions=PositionRules(position_awareness=False))
    assert adding.position_T.tolist() == [0, 10, 20, 0, 0]
    assert adding.trades.entry_price[0] == 15.0
    assert adding.trades.entry_row[0] == 1


def test_additions_are_funded_by_what_is_left() -> None:
    rules = PositionRules(position_awareness=False)
    result = run(flat(10, 10, 10, 10), [1, 1, 1, 0], sizing=Sizing(fraction=0.6), positions=rules)
    assert result.position_T.tolist() == [0, 60, 100, 100]
    assert result.counts["entries_cut"] == 2
    assert result.counts["entries_of_size_zero"] == 1


def test_separation_restrains_entries_and_never_exits() -> None:
    rules = PositionRules(min_signal_separation_bars=3)
    result = run(flat(*[10] * 8), [1, -1, 1, 1, 1, 0, 0, 0], positions=rules)
    # exit decided at 1 in spite of the entry at 0; the next entry at 1 + 3
    assert result.trades.exit_row.tolist() == [2]
    assert result.position_T.tolist() == [0, 100, 0, 0, 0, 100, 100, 100]
    assert result.counts["entries_too_soon"] == 2


def test_separation_stops_the_entry_half_of_a_flip() -> None:
    rules = PositionRules(allow_short_from_flat=True, min_signal_separation_bars=2)
    result = run(flat(*[10] * 5), [1, -1, 0, -1, 0], positions=rules)
    assert result.position_T.tolist() == [0, 100, 0, 0, -100]


def test_max_holding() -> None:
    result = run(flat(*[10] * 6), [1, 1, 1, 1, 0, 0], stops=Stops(max_holding_bars=2))
    assert reasons(result)[0] == "time"
    assert result.trades.bars_held[0] == 2
    assert result.position_T.tolist() == [0, 100, 100, 0, 100, 100]


def test_stop_comes_before_target_in_one_bar_and_is_counted() -> None:
    bars = bars_of((100, 100, 100, 100), (100, 112, 88, 100), (100, 100, 100, 100))
    result = run(bars, [1, 0, 0], stops=Stops(stop_loss=0.1, take_profit=0.1))
    assert reasons(result) == ["stop_loss"]
    assert result.trades.exit_price[0] == pytest.approx(90)
    assert result.trades.exit_row[0] == 1
    assert result.trades.bars_held[0] == 0
    assert result.counts["stop_and_target_touched"] == 1
    assert "stop was assumed" in result.warnings()[0]


def test_exact_touch_is_a_touch() -> None:
    bars = bars_of((100, 100, 100, 100), (100, 100, 75, 100), (100, 100, 100, 100))
    assert reasons(run(bars, [1, 0, 0], stops=Stops(stop_loss=0.25))) == ["stop_loss"]
    bars = bars_of((100, 100, 100, 100), (100, 125, 100, 100), (100, 100, 100, 100))
    assert reasons(run(bars, [1, 0, 0], stops=Stops(take_profit=0.25))) == ["take_profit"]


@pytest.mark.parametrize(
    ("opened", "price", "reason"), [(80, 80, "stop_loss"), (130, 130, "take_profit"), (75, 75, "stop_loss")]
)
def test_gaps_fill_at_the_open(opened: float, price: float, reason: str) -> None:
    bars = bars_of((100, 100, 100, 100), (100, 100, 100, 100), (opened, 140, 70, 100), (100, 100, 100, 100))
    result = run(bars, [1, 0, 0, 0], stops=Stops(stop_loss=0.125, take_profit=0.25))
    assert reasons(result) == [reason]
    assert result.trades.exit_price[0] == price
    assert result.counts["gap_fills"] == 1


def test_an_open_exactly_at_the_stop_is_a_gap_fill() -> None:
    bars = bars_of((100, 100, 100, 100), (100, 100, 100, 100), (75, 80, 70, 75), (75, 75, 75, 75))
    result = run(bars, [1, 0, 0, 0], stops=Stops(stop_loss=0.25))
    assert (result.trades.exit_price[0], result.counts["gap_fills"]) == (75, 1)


def test_take_profit_does_not_slip_and_stop_does() -> None:
    up = bars_of((100, 100, 100, 100), (100, 120, 100, 100), (100, 100, 100, 100))
    costs = Costs(slippage=0.01)
    target = run(up, [1, 0, 0], costs=costs, stops=Stops(take_profit=0.1))
    assert target.trades.exit_price[0] == pytest.approx(101 * 1.1)
    down = bars_of((100, 100, 100, 100), (100, 100, 80, 100), (100, 100, 100, 100))
    stop = run(down, [1, 0, 0], costs=costs, stops=Stops(stop_loss=0.1))
    assert stop.trades.exit_price[0] == pytest.approx(101 * 0.9 * 0.99)


def test_trailing_stop_uses_extremes_through_the_bar_before() -> None:
    bars = bars_of(
        (100, 100, 100, 100),
        (100, 120, 95, 118),  # its own high does not raise the level: 90, not 108
        (118, 119, 109, 110),  # level 108
        (110, 110, 107, 109),  # touched
        (109, 109, 109, 109),
    )
    result = run(bars, [1, 0, 0, 0, 0], stops=Stops(trailing_stop=0.1))
    assert reasons(result) == ["trailing_stop"]
    assert result.trades.exit_row[0] == 3
    assert result.trades.exit_price[0] == pytest.approx(108)


def test_trailing_stop_of_a_short() -> None:
    bars = bars_of(
        (100, 100, 100, 100), (100, 104, 80, 82), (82, 87.9, 81, 85), (85, 89, 84, 85), (85, 85, 85, 85)
    )
    result = run(bars, [-1, 0, 0, 0, 0], stops=Stops(trailing_stop=0.1), positions=SHORTS)
    assert (result.trades.exit_row[0], result.trades.exit_price[0]) == (3, pytest.approx(88))


def test_atr_stops_use_the_atr_known_at_the_decision() -> None:
    rows = [(100, 102, 100, 102), (102, 104, 102, 104), (104, 104, 104, 104), (104, 130, 99, 104)]
    bars = bars_of(*rows, (104, 104, 104, 104))
    # ATR(2): true ranges 2, 2 -> unknown, unknown, then (2 + 0) / 2 = 1 at the third bar
    result = run(bars, [1, 1, 1, 0, 0], stops=Stops(stop_loss_atr=3.0, atr_period=2))
    assert result.counts["entries_without_atr"] == 2
    assert result.trades.entry_row[0] == 3
    assert result.trades.exit_price[0] == pytest.approx(104 - 3)
    assert "no ATR" in result.warnings()[0]


def test_the_signal_after_a_stop_out_may_enter_again() -> None:
    bars = bars_of((100, 100, 100, 100), (100, 100, 89, 95), (95, 95, 95, 95), (95, 95, 95, 95))
    result = run(bars, [1, 1, 0, 0], stops=Stops(stop_loss=0.1))
    assert result.trades.exit_row.tolist() == [1]
    assert result.open_position is not None
    assert result.open_position.entry_row == 2


def test_a_ruined_account_is_closed_and_trades_no_more() -> None:
    bars = flat(10, 10, 19, 25, 26, 26, 26)
    result = run(bars, [-1, 0, 0, 0, 1, 1, 0], positions=SHORTS)
    assert reasons(result) == ["ruin"]
    assert result.trades.exit_row[0] == 4
    assert result.equity_T.tolist() == [1_000, 1_000, 100, -500, -600, -600, -600]
    assert len(result.fills) == 2
    assert result.statistics["sharpe_ratio"] is None
    assert result.statistics["max_drawdown"] == pytest.approx(-1.6)


def test_a_ruined_account_trades_no_more_even_if_its_exit_left_something() -> None:
    bars = bars_of((10, 10, 10, 10), (10, 25, 10, 25), (12, 12, 12, 12), (12, 12, 12, 12), (12, 12, 12, 12))
    result = run(bars, [-1, 0, 1, 1, 0], positions=SHORTS)
    assert reasons(result) == ["ruin"]
    assert result.equity_T.tolist() == [1_000, -500, 800, 800, 800]
    assert len(result.fills) == 2
    assert result.counts["entries_of_size_zero"] == 0


def test_ruin_is_noticed_in_a_bar_with_a_signal_too() -> None:
    result = run(flat(10, 10, 25, 25, 25), [-1, 0, 1, 1, 0], positions=SHORTS)
    assert reasons(result) == ["ruin"]
    assert len(result.fills) == 2


def test_warm_up_bars_are_not_part_of_the_equity() -> None:
    bars = flat(1, 2, 10, 10, 20)
    result = run(bars, [1, 1, 1, 0, 0], first=2)
    assert result.time_T.tolist() == bars.time[2:].tolist()
    assert result.equity_T.tolist() == [1_000, 1_000, 2_000]
    assert result.trades.entry_row.tolist() == []
    assert result.open_position is not None
    assert result.open_position.entry_row == 1
    assert result.statistics["bars"] == 3


def test_confidence_is_that_of_the_deciding_bar() -> None:
    result = simulate(
        flat(10, 10, 10, 10), [1, 0, -1, 0], confidence=[0.9, 0.1, 0.2, 0.3], bars_per_year=252.0
    )
    assert result.trades.confidence.tolist() == [0.9]
    assert np.isnan(simulate(flat(10, 10, 10, 10), [1, 0, -1, 0], bars_per_year=252.0).trades.confidence[0])


def test_buy_and_hold_pays_the_same_costs_and_knows_no_stop() -> None:
    bars = bars_of((10, 10, 10, 10), (10, 10, 1, 5), (5, 30, 5, 20))
    config = SimulationConfig(
        initial_capital=1_000,
        costs=Costs(commission_fixed=10),
        sizing=Sizing(type="risk", risk=0.1),
        stops=Stops(stop_loss=0.1),
    )
    result = buy_and_hold(bars, config, bars_per_year=252.0)
    assert result.equity_T.tolist() == [1_000, 1_000 - 10 - 99 * 5, 1_000 + 990 - 20]
    later = buy_and_hold(bars, config, bars_per_year=252.0, first=1)
    assert later.trades.entry_price.tolist() == [5.0]


def test_bars_per_year_comes_from_the_calendar_by_default() -> None:
    result = simulate(flat(10, 11, 12, 11), [1, 0, 0, 0])
    assert result.statistics["bars_per_year"] == pytest.approx(365.25)


@pytest.mark.parametrize("chunk_bars", [1, 2, 7, 64, 1_000])
def test_chunking_changes_nothing(chunk_bars: int) -> None:
    rng = np.random.default_rng(3)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 500)))
    open_ = np.roll(close, 1)
    open_[0] = close[0]
    spread = np.abs(rng.normal(0, 0.01, 500))
    bars = Bars(
        "X", Timeframe.D1, np.arange(500) * 86_400_000_000, open_, np.maximum(open_, close) * (1 + spread),
        np.minimum(open_, close) * (1 - spread), close, np.ones(500),
    )  # fmt: skip
    signals = rng.choice([-1, 0, 1], 500).astype(np.int8)
    config = SimulationConfig(
        stops=Stops(stop_loss=0.02, trailing_stop=0.03, max_holding_bars=9),
        positions=SHORTS,
        costs=Costs(commission=0.001),
    )
    whole = simulate(bars, signals, config, bars_per_year=252.0)
    run = BacktestingEngine(config, chunk_bars=chunk_bars).run(bars, signals, bars_per_year=252.0)
    seen = []
    while True:
        try:
            seen.append(next(run))
        except StopIteration as stop:
            part = stop.value
            break
    assert part.digest() == whole.digest()
    assert part.statistics == whole.statistics
    assert [p.bars_done for p in seen] == [*range(chunk_bars, 500, chunk_bars), 500]
    assert {p.bars_total for p in seen} == {500}
    last = seen[-1]
    assert last.time == bars.time[-1]
    assert last.total_trades >= len(whole.trades) - 1
    assert last.profit == pytest.approx(last.equity - 100_000)
    assert last.win_rate == pytest.approx(np.mean(whole.trades.net[: last.total_trades] > 0))
    assert seen[0].win_rate is None or seen[0].total_trades > 0


def test_many_trades_outgrow_the_first_log() -> None:
    count = 9_000
    signals = np.tile(np.array([1, -1], dtype=np.int8), count // 2)
    bars = flat(*[10.0] * count)
    result = run(bars, signals.tolist(), positions=SHORTS)
    assert len(result.fills) > 8_000
    assert len(result.trades) > 4_000


@pytest.mark.parametrize(
    ("signals", "kwargs", "words"),
    [
        ([1, 0], {}, "3 integers"),
        ([1.0, 0.0, 0.0], {}, "float64"),
        ([1, 0, 2], {}, "row 2: must be \\+1, 0 or -1, got 2"),
        ([1, 0, 0], {"confidence": [1.0]}, "confidence must be 3"),
        ([1, 0, 0], {"first": -1}, "first must lie in 0..3"),
        ([1, 0, 0], {"first": 4}, "first must lie in 0..3"),
        ([1, 0, 0], {"config": SimulationConfig(costs=Costs(spread="quotes"))}, "no bid and ask"),
    ],
)
def test_input_that_does_not_fit_is_refused(signals, kwargs, words) -> None:
    with pytest.raises(InvalidInput, match=words):
        simulate(flat(1, 1, 1), signals, bars_per_year=252.0, **kwargs)


def test_too_few_bars_says_how_many() -> None:
    with pytest.raises(TooFewBars, match="1 of 3 are left after a warm-up of 2"):
        simulate(flat(1, 1, 1), [0, 0, 0], first=2, bars_per_year=252.0)
    with pytest.raises(InvalidInput, match="chunk_bars"):
        BacktestingEngine(SimulationConfig(), chunk_bars=0)


def test_the_callers_arrays_stay_writable() -> None:
    signals = np.array([1, 0, 0], dtype=np.int8)
    confidence = np.ones(3)
    simulate(flat(1, 1, 1), signals, confidence=confidence, bars_per_year=252.0)
    assert signals.flags.writeable
    assert confidence.flags.writeable
    assert (signals.tolist(), confidence.tolist()) == ([1, 0, 0], [1.0, 1.0, 1.0])
