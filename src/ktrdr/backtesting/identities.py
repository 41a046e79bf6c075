"""Laws that every result obeys, checked from the fills up; used by tests and by anyone in doubt.

Equity is rebuilt from nothing but initial capital, fills and closes, so a slip of the kernel's accounting
cannot hide.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ktrdr.backtesting.config import SimulationConfig
from ktrdr.backtesting.engine import simulate
from ktrdr.backtesting.result import Result
from ktrdr.bars import Bars, FloatArray
from ktrdr.errors import FieldError, InvalidInput

__all__ = ["check_identities", "check_prefix"]


def check_identities(result: Result, bars: Bars, *, tolerance: float = 1e-9) -> None:
    """Hold a result against its accounting identities.

    1. cash + position x close = equity, at each bar;
    2. initial capital + sum of net trade profits + unrealised profit = final equity;
    3. the running sum of the fills = the position, flat between trades;
    4. gross - costs = net in each trade, and commissions of fills = costs of trades (+ of the open position).

    Parameters
    ----------
    result, bars
        The bars may reach beyond the result's; they are matched by time.
    tolerance
        Relative to the largest equity or traded value; rounding of sums, not of money.

    Raises
    ------
    InvalidInput
        If a bar of the result is not among the bars, or an identity fails: which, where and by how much.
    """
    rows = np.searchsorted(bars.time, result.time_T)
    if rows[-1] >= len(bars) or not np.array_equal(bars.time[rows], result.time_T):
        raise InvalidInput(f"The result of {result.symbol} does not lie within the bars given.")
    fills, trades = result.fills, result.trades
    scale = max(float(np.abs(result.equity_T).max()), result.config.initial_capital)
    cash = result.config.initial_capital - np.cumsum(fills.units * fills.price + fills.commission)
    bar_cash_T = _after_fills(result, cash, result.config.initial_capital)
    position_T = _after_fills(result, np.cumsum(fills.units), 0.0)
    unrealised = result.open_position.unrealised if result.open_position else 0.0
    final = result.config.initial_capital + math.fsum(trades.net) + unrealised
    size = max(1.0, float(np.abs(fills.units).max(initial=0.0)))
    still_open = _open_costs(result)
    traded = max(scale, float(np.abs(fills.units * fills.price).max(initial=0.0)))
    checks: list[tuple[str, Any, Any, float]] = [
        (
            "cash + position x close = equity",
            bar_cash_T + position_T * bars.close[rows],
            result.equity_T,
            traded,
        ),
        ("initial + net trades + unrealised = final equity", final, result.equity_T[-1], traded),
        ("sum of fills = position", position_T, result.position_T, size),
        ("sum of fills = position after each fill", np.cumsum(fills.units), fills.position, size),
        ("gross - costs = net", trades.gross - trades.costs, trades.net, traded),
        ("commissions = costs", math.fsum(fills.commission), math.fsum(trades.costs) + still_open, traded),
    ]
    errors = [error for check in checks for error in _difference(*check, tolerance)]
    if errors:
        raise InvalidInput(f"The result of {result.symbol} breaks its accounting identities:", errors)


def check_prefix(
    bars: Bars,
    signals: npt.NDArray[np.int8],
    config: SimulationConfig,
    cut: int,
    *,
    first: int = 0,
) -> None:
    """Hold the simulator against the prefix law: what happened by bar ``cut`` does not depend on later bars.

    Equity before the last bar of the shorter run is compared bit for bit, and so is every trade closed before
    it (at the last bar an open position is closed if ``config.at_end`` says so).

    Raises
    ------
    InvalidInput
        If the two runs differ.
    """
    whole = simulate(bars, signals, config, bars_per_year=252.0, first=first)
    part = simulate(bars[:cut], signals[:cut], config, bars_per_year=252.0, first=first)
    last = cut - first - 1
    done = [int(np.searchsorted(run.trades.exit_row, last)) for run in (whole, part)]
    same = np.array_equal(whole.equity_T[:last], part.equity_T[:last]) and done[0] == done[1]
    same = same and all(
        np.array_equal(getattr(whole.trades, name)[: done[0]], getattr(part.trades, name)[: done[0]])
        for name in ("entry_row", "exit_row", "entry_price", "exit_price", "size", "net", "reason")
    )
    if not same:
        raise InvalidInput(f"The result up to bar {cut} of {bars.symbol} depends on bars after it.")


def _after_fills(result: Result, values: FloatArray, before: float) -> FloatArray:
    """(T,) the value after the last fill at or before each bar."""
    done_T = np.searchsorted(result.fills.row, np.arange(len(result.time_T)), side="right")
    after: FloatArray = np.concatenate([[before], values])[done_T]
    return after


def _open_costs(result: Result) -> float:
    """Commissions of the entries of the position left open."""
    if result.open_position is None:
        return 0.0
    closed = np.flatnonzero(result.fills.position == 0.0)
    since = int(closed[-1]) + 1 if len(closed) else 0
    # a flip leaves no flat fill behind only if the position never was 0, which the kernel does not do
    return math.fsum(result.fills.commission[since:])


def _difference(name: str, left: Any, right: Any, scale: float, tolerance: float) -> list[FieldError]:
    difference = np.atleast_1d(np.abs(np.asarray(left) - np.asarray(right)))
    bad = np.flatnonzero(~(difference <= tolerance * scale))
    if not len(bad):
        return []
    row = int(bad[0])
    return [FieldError(f"row {row}", f"{name}: off by {difference[row]:g} ({len(bad)} rows)")]
