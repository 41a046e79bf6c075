"""The simulator's arithmetic: what happens to one position, bar by bar, as plain functions over records.

Written in the subset of Python that Numba compiles; with ``NUMBA_DISABLE_JIT=1`` the interpreter runs the same
source, and a test holds the two together. The order of events inside bar t:

1. the order decided at the close of t-1 fills at the open of t (exit first, then entry);
2. a stop or target that the open has passed fills at the open;
3. stop, target and trailing stop rest on low and high; the stop wins when both are touched; a trailing
   level uses the extremes through t-1 (on the entry bar: the entry price);
4. equity is marked to the close of t;
5. the signal of t, known at that close, becomes the order for t+1.

Nothing happens between two events but marking, so the loop jumps from event to event.
Shape suffix: ``T`` = bars in time order. "Signed" prices are price x side, so that more is better for
longs and shorts alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit

from ktrdr.bars import FloatArray

__all__ = ["FILL", "REASONS", "STATE", "TRADE", "Market", "Rules", "advance", "finish", "new_state"]

REASONS = ("signal", "stop_loss", "take_profit", "trailing_stop", "time", "end", "ruin", "entry")
SIGNAL, STOP_LOSS, TAKE_PROFIT, TRAILING_STOP, TIME, END, RUIN, ENTRY = range(8)

EXIT_ORDER, BUY_ORDER, SELL_ORDER = 1, 2, 4  # bits of the pending order
FRACTION, UNITS, CASH, RISK = range(4)
NEVER = -(2**62)
ROOM = 4  # records one step may add: an exit and an entry at the open, then a stop; and the close at the end
LOOK_AHEAD = 512  # bars; bounds what is looked at twice when a stop comes before the next signal

TRADE = np.dtype(
    (
        np.record,
        [(name, "i8") for name in ("entry_row", "exit_row", "bars_held", "reason")]
        + [(name, "f8") for name in ("units", "entry_price", "exit_price", "gross", "costs", "net")]
        + [(name, "f8") for name in ("slippage", "mae", "mfe", "confidence")],
    )
)
FILL = np.dtype(
    (
        np.record,
        [("row", "i8"), ("reason", "i8")]
        + [(name, "f8") for name in ("units", "price", "commission", "slippage", "position")],
    )
)
COUNTERS = (
    "entries_of_size_zero",
    "entries_cut",
    "entries_too_soon",
    "entries_without_atr",
    "stop_and_target_touched",
    "gap_fills",
)
STATE = np.dtype(
    (
        np.record,
        [(name, "f8") for name in ("cash", "units", "entry_price", "entry_costs", "entry_slippage")]
        + [(name, "f8") for name in ("stop", "target", "extreme", "trail_gap", "traded", "commissions")]
        + [(name, "f8") for name in ("slippage", "confidence", "pending_confidence", "pending_atr")]
        + [(name, "i8") for name in ("pending", "pending_reason", "entry_row", "last_signal_row")]
        + [(name, "i8") for name in ("bars_held", "ruined", "fills", "trades", "wins", *COUNTERS)],
    )
)


class Market(NamedTuple):
    """Prices and signals, each (T,); ``atr`` and the half spreads are empty where they are not used."""

    open: Any
    high: Any
    low: Any
    close: Any
    signal: Any
    confidence: Any
    atr: Any
    half_open: Any
    half_close: Any


class Rules(NamedTuple):
    """:class:`~ktrdr.backtesting.config.SimulationConfig` as numbers; infinity stands for "not set"."""

    sizing: int
    amount: float
    lot_step: float
    rate: float
    per_unit: float
    fixed: float
    minimum: float
    slippage: float
    quoted: bool
    stop: float
    target: float
    trail: float
    stop_atr: float
    target_atr: float
    trail_atr: float
    uses_atr: bool
    resting: bool
    max_holding: int
    aware: bool
    shorts: bool
    separation: int
    flip: bool


def new_state(initial_capital: float) -> Any:
    """One state record, flat, holding the capital in cash; an array of shape (1,) of :data:`STATE`."""
    state = np.zeros(1, dtype=STATE)
    state[0].cash = initial_capital
    state[0].last_signal_row = NEVER
    return state


_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile with Numba, keep the machine code on disk; IEEE arithmetic as in NumPy, no fast-math."""
    made: _Function = njit(cache=True, error_model="numpy", nogil=True)(function)
    return made


@compiled
def commission(rules: Rules, units: float, price: float) -> float:
    """Money for one fill: rate, per unit and fixed parts, at least the minimum."""
    size = abs(units)
    return max(rules.minimum, rules.fixed + rules.rate * size * price + rules.per_unit * size)


@compiled
def affordable(rules: Rules, budget: float, price: float) -> float:
    """The most units whose value and entry commission together stay within ``budget``."""
    by_parts = (budget - rules.fixed) / (price * (1.0 + rules.rate) + rules.per_unit)
    by_minimum = (budget - rules.minimum) / price
    return max(0.0, min(by_parts, by_minimum))


@compiled
def stop_distance(rules: Rules, price: float, atr: float) -> float:
    """From the entry price to the nearest initial stop; infinite without one."""
    return min(price * rules.stop, atr * rules.stop_atr, price * rules.trail, atr * rules.trail_atr)


@compiled
def entry_size(rules: Rules, st: Any, reference: float, price: float) -> float:
    """Units to add at ``price``, unsigned, whole lots; counts what had to be cut."""
    equity = st.cash + st.units * reference
    room = equity - abs(st.units) * reference
    most = affordable(rules, room, price)
    if rules.sizing == FRACTION:
        wanted = affordable(rules, rules.amount * equity, price)
    elif rules.sizing == CASH:
        wanted = affordable(rules, rules.amount, price)
    elif rules.sizing == UNITS:
        wanted = rules.amount
    else:
        wanted = rules.amount * equity / stop_distance(rules, price, st.pending_atr)
    if wanted > most:
        st.entries_cut += 1
        wanted = most
    if rules.lot_step > 0.0:
        wanted = math.floor(wanted / rules.lot_step * (1.0 + 1e-12)) * rules.lot_step
    if not wanted > 0.0:
        st.entries_of_size_zero += 1
        return 0.0
    return wanted


@compiled
def record_fill(
    rules: Rules, st: Any, fills: Any, row: int, units: float, price: float, reference: float, reason: int
) -> float:
    """Book one execution of signed ``units``; returns its commission."""
    paid = commission(rules, units, price)
    lost = (price - reference) * units
    position = 0.0 if units == -st.units else st.units + units
    st.cash -= units * price + paid
    st.units = position
    st.traded += abs(units) * price
    st.commissions += paid
    st.slippage += lost
    fill = fills[st.fills]
    fill.row, fill.reason = row, reason
    fill.units, fill.price, fill.commission, fill.slippage = units, price, paid, lost
    fill.position = position
    st.fills += 1
    return paid


@compiled
def enter(rules: Rules, st: Any, fills: Any, t: int, side: float, opened: float, half: float) -> None:
    """Open a position, or add to it, at the open of ``t``; averages the entry price and sets the stops."""
    price = opened + side * (opened * rules.slippage + half)
    size = entry_size(rules, st, opened, price)
    if size == 0.0:
        return
    held = abs(st.units)
    atr = st.pending_atr
    if held == 0.0:
        st.entry_row = t
        st.entry_price = price
        st.entry_costs, st.entry_slippage = 0.0, 0.0
        st.confidence = st.pending_confidence
        st.extreme = side * price
        st.trail_gap = atr * rules.trail_atr
    else:
        st.entry_price = (st.entry_price * held + price * size) / (held + size)
    before = st.slippage
    st.entry_costs += record_fill(rules, st, fills, t, side * size, price, opened, ENTRY)
    st.entry_slippage += st.slippage - before
    signed = side * st.entry_price
    st.stop = signed - min(st.entry_price * rules.stop, atr * rules.stop_atr)
    st.target = signed + min(st.entry_price * rules.target, atr * rules.target_atr)


@compiled
def excursions(low: FloatArray, high: FloatArray, entry: float, exit_price: float) -> tuple[float, float]:
    """Lowest and highest price of the bars seen whole, the entry and the exit.

    Two comparisons run side by side, because each waits for its own last result.
    """
    lowest, highest = min(entry, exit_price), max(entry, exit_price)
    lowest_2, highest_2 = lowest, highest
    last = len(low) - 1
    for i in range(0, last, 2):
        lowest = low[i] if low[i] < lowest else lowest
        lowest_2 = low[i + 1] if low[i + 1] < lowest_2 else lowest_2
        highest = high[i] if high[i] > highest else highest
        highest_2 = high[i + 1] if high[i + 1] > highest_2 else highest_2
    if last >= 0:
        lowest, highest = min(lowest, low[last]), max(highest, high[last])
    return min(lowest, lowest_2), max(highest, highest_2)


@compiled
def leave(
    rules: Rules,
    st: Any,
    fills: Any,
    trades: Any,
    low_T: FloatArray,
    high_T: FloatArray,
    t: int,
    reference: float,
    half: float,
    last: int,
    reason: int,
) -> None:
    """Close the whole position at ``reference`` less costs; ``last`` is the last bar seen whole."""
    side = 1.0 if st.units > 0.0 else -1.0
    slip = 0.0 if reason == TAKE_PROFIT else reference * rules.slippage
    price = reference - side * (slip + half)
    units, entry, first, before = st.units, st.entry_price, st.entry_row, st.slippage
    paid = record_fill(rules, st, fills, t, -units, price, reference, reason)
    trade = trades[st.trades]
    trade.entry_row, trade.exit_row, trade.reason, trade.units = first, t, reason, units
    trade.bars_held = last - first + 1
    trade.entry_price, trade.exit_price = entry, price
    gross = (price - entry) * units
    costs = st.entry_costs + paid
    trade.gross, trade.costs, trade.net = gross, costs, gross - costs
    trade.slippage = st.entry_slippage + (st.slippage - before)
    trade.confidence = st.confidence
    lowest, highest = excursions(low_T[first : last + 1], high_T[first : last + 1], entry, price)
    worst, best = (lowest, highest) if side > 0.0 else (highest, lowest)
    trade.mae = side * (worst - entry) / entry
    trade.mfe = side * (best - entry) / entry
    st.bars_held += last - first + 1
    st.trades += 1
    if gross > costs:
        st.wins += 1


@compiled
def next_signal(signal_T: Any, t: int, end: int, buys: bool, sells: bool) -> int:
    """The first bar of ``t..end-1`` with a signal that matters; else ``end``."""
    if buys and sells:
        while t < end and signal_T[t] == 0:
            t += 1
    elif buys:
        while t < end and signal_T[t] <= 0:
            t += 1
    else:
        while t < end and signal_T[t] >= 0:
            t += 1
    return t


@compiled
def first_ruin(close_T: FloatArray, cash: float, units: float, t: int, end: int) -> int:
    """The first bar of ``t..end-1`` at whose close nothing is left of the equity; else ``end``."""
    while t < end and cash + units * close_T[t] > 0.0:
        t += 1
    return t


@compiled
def next_decision(rules: Rules, st: Any, signal_T: Any, close_T: FloatArray, t: int, end: int) -> int:
    """The first bar from ``t`` on whose close may change something: a signal, a deadline, ruin; else ``end``."""
    units = st.units
    if units == 0.0:
        return end if st.ruined else next_signal(signal_T, t, end, True, rules.shorts)
    end = min(end, st.entry_row + rules.max_holding - 1)
    end = next_signal(signal_T, t, end, units < 0.0 or not rules.aware, units > 0.0 or not rules.aware)
    return end if units > 0.0 else first_ruin(close_T, st.cash, units, t, end)


@compiled
def next_touch(
    rules: Rules,
    st: Any,
    open_T: FloatArray,
    high_T: FloatArray,
    low_T: FloatArray,
    t: int,
    end: int,
) -> tuple[int, float, int]:
    """The first bar of ``t..end-1`` that reaches stop, target or trailing stop, with fill price and reason.

    Returns ``(end, 0.0, 0)`` if none does. Moves the trailing extreme past every bar it looked at.
    """
    side = 1.0 if st.units > 0.0 else -1.0
    best_T, worst_T = (high_T, low_T) if side > 0.0 else (low_T, high_T)
    extreme, fixed, target, trail, trail_gap = st.extreme, st.stop, st.target, rules.trail, st.trail_gap
    for row in range(t, end):
        trailing = extreme - min(abs(extreme) * trail, trail_gap)
        stop = max(fixed, trailing)
        worst, best = side * worst_T[row], side * best_T[row]
        if worst <= stop or best >= target:
            reason = TRAILING_STOP if trailing > fixed else STOP_LOSS
            opened = side * open_T[row]
            if opened <= stop or opened >= target:
                st.gap_fills += 1
                return row, open_T[row], reason if opened <= stop else TAKE_PROFIT
            if worst > stop:
                return row, side * target, TAKE_PROFIT
            if best >= target:
                st.stop_and_target_touched += 1
            return row, side * stop, reason
        extreme = max(extreme, best)
    st.extreme = extreme
    return end, 0.0, 0


@compiled
def decide(rules: Rules, st: Any, t: int, signal: int, close: float, atr: float, confidence: float) -> None:
    """Turn what is known at the close of ``t`` into the order for the next open."""
    side = 0 if st.units == 0.0 else (1 if st.units > 0.0 else -1)
    opens = signal > 0 or (signal < 0 and rules.shorts)
    if side != 0 and st.cash + st.units * close <= 0.0:
        st.pending, st.pending_reason, st.ruined = EXIT_ORDER, RUIN, 1
    elif side != 0 and signal == -side:
        st.pending, st.pending_reason = EXIT_ORDER, SIGNAL
        if rules.flip and opens:
            order_entry(rules, st, t, signal, atr, confidence)
        st.last_signal_row = t
    elif side != 0 and t - st.entry_row + 1 >= rules.max_holding:
        st.pending, st.pending_reason = EXIT_ORDER, TIME
    elif opens and not st.ruined and not (side == signal and rules.aware):
        order_entry(rules, st, t, signal, atr, confidence)


@compiled
def order_entry(rules: Rules, st: Any, t: int, signal: int, atr: float, confidence: float) -> None:
    """Add an entry to the pending order, unless a rule forbids it, which is counted."""
    if t - st.last_signal_row < rules.separation:
        st.entries_too_soon += 1
    elif not atr > 0.0:
        st.entries_without_atr += 1
    else:
        st.pending |= BUY_ORDER if signal > 0 else SELL_ORDER
        st.pending_confidence, st.pending_atr = confidence, atr
        st.last_signal_row = t


@compiled
def mark(close_T: FloatArray, st: Any, equity_T: FloatArray) -> None:
    """Mark a stretch of bars without fills to their closes."""
    cash, units = st.cash, st.units
    if units == 0.0:
        equity_T[:] = cash
    else:
        for i in range(len(equity_T)):
            equity_T[i] = cash + units * close_T[i]


@compiled
def advance(
    market: Market,
    rules: Rules,
    state: Any,
    equity_T: FloatArray,
    fills: Any,
    trades: Any,
    begin: int,
    end: int,
) -> int:
    """Simulate bars ``begin..end-1``, carrying ``state``; returns the first bar not done.

    All arrays share the rows of the market's. Records are appended at ``state.fills`` and ``state.trades``; when
    either array might not hold those of one more step, the loop stops early and wants larger ones.
    """
    open_T, high_T, low_T, close_T, signal_T, confidence_T, atr_T, half_T, _ = market
    st = state[0]
    t = begin
    while t < end and st.fills + ROOM <= len(fills) and st.trades + ROOM <= len(trades):
        pending = st.pending
        if pending:
            st.pending = 0
            half = half_T[t] if rules.quoted else 0.0
            if pending & EXIT_ORDER:
                leave(rules, st, fills, trades, low_T, high_T, t, open_T[t], half, t - 1, st.pending_reason)
            if pending & (BUY_ORDER | SELL_ORDER):
                enter(rules, st, fills, t, 1.0 if pending & BUY_ORDER else -1.0, open_T[t], half)
        horizon = min(end, t + LOOK_AHEAD)
        stop_at = next_decision(rules, st, signal_T, close_T, t, horizon)
        if rules.resting and st.units != 0.0:
            row, price, reason = next_touch(rules, st, open_T, high_T, low_T, t, min(stop_at + 1, horizon))
            if reason:
                mark(close_T[t:row], st, equity_T[t:row])
                half = half_T[row] if rules.quoted else 0.0
                leave(rules, st, fills, trades, low_T, high_T, row, price, half, row - 1, reason)
                t, stop_at = row, row
        after = min(stop_at + 1, horizon)
        mark(close_T[t:after], st, equity_T[t:after])
        if stop_at < horizon:
            atr = atr_T[stop_at] if rules.uses_atr else math.inf
            confidence = confidence_T[stop_at] if len(confidence_T) else math.nan
            decide(rules, st, stop_at, signal_T[stop_at], close_T[stop_at], atr, confidence)
        t = after
    return t


@compiled
def finish(
    market: Market,
    rules: Rules,
    state: Any,
    equity_T: FloatArray,
    fills: Any,
    trades: Any,
) -> None:
    """Close what is open at the last close; the last equity includes it."""
    st = state[0]
    last = len(market.close) - 1
    if st.units != 0.0:
        half = market.half_close[last] if rules.quoted else 0.0
        close = market.close[last]
        leave(rules, st, fills, trades, market.low, market.high, last, close, half, last, END)
        equity_T[last] = st.cash
