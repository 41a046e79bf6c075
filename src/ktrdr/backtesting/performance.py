"""All statistics of one simulation at once, from one pass over its equity.

The same quantities as the functions of :mod:`ktrdr.backtesting.statistics`; a test holds them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ktrdr.backtesting import statistics as st
from ktrdr.backtesting.moments import Drawdown, Moments, drawdown_of, moments_of
from ktrdr.bars import FloatArray, IntArray

__all__ = ["STATISTICS", "Account", "Statistic", "statistics_of"]

Statistic = float | int | None

STATISTICS = (
    *("total_return", "annual_return", "cagr", "volatility", "sharpe_ratio", "sortino_ratio"),
    *("max_drawdown", "max_drawdown_duration", "calmar_ratio", "omega_ratio", "probabilistic_sharpe_ratio"),
    *("alpha", "beta", "exposure", "turnover"),
    *("total_trades", "winning_trades", "losing_trades", "win_rate", "profit_factor", "expectancy", "sqn"),
    *("average_win", "average_loss", "best_trade", "worst_trade", "average_bars_held"),
    *("total_commission", "total_slippage", "initial_capital", "final_equity", "bars", "bars_per_year"),
)
"""The keys of :func:`statistics_of`, in the order in which they are shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Account:
    """What happened, as far as the statistics need it: closed trades (N,) and sums over all fills."""

    net: FloatArray
    bars_held: IntArray
    bars_in_market: int
    traded_value: float
    commission: float
    slippage: float


def statistics_of(
    equity_T: FloatArray,
    close_T: FloatArray,
    account: Account,
    *,
    bars_per_year: float | None,
    days: float,
    risk_free_rate: float = 0.0,
    minimum_return: float = 0.0,
) -> Mapping[str, Statistic]:
    """Every statistic by name (:data:`STATISTICS`); None where it is not defined.

    Parameters
    ----------
    equity_T, close_T
        (T,) equity and close of the same bars; the first equity is the initial capital.
    account
        Trades and sums over fills.
    bars_per_year
        A; without it everything annualised is None.
    days
        Calendar days from the first to the last bar.
    risk_free_rate, minimum_return
        Annual rates.
    """
    drawdown = drawdown_of(equity_T)
    values: dict[str, Statistic] = dict.fromkeys(STATISTICS)
    solvent = drawdown.lowest > 0.0
    if len(equity_T) > 1 and solvent:
        year = bars_per_year or math.nan
        moments = moments_of(
            equity_T, close_T, st.per_bar_rate(minimum_return, year) if bars_per_year else 0.0
        )
        values |= _without_year(moments)
        if bars_per_year:
            values |= _annualised(equity_T, moments, drawdown, account, bars_per_year, risk_free_rate)
    if solvent:
        values["cagr"] = st.cagr(equity_T, days)
    values |= _trade_statistics(account)
    return values | {
        "total_return": st.total_return(equity_T),
        "max_drawdown": drawdown.depth,
        "max_drawdown_duration": drawdown.duration_bars,
        "exposure": account.bars_in_market / len(equity_T),
        "initial_capital": float(equity_T[0]),
        "final_equity": float(equity_T[-1]),
        "bars": len(equity_T),
        "bars_per_year": bars_per_year,
    }


def _without_year(m: Moments) -> dict[str, Statistic]:
    moving = math.sqrt(m.benchmark_m2) > st.NOISE
    return {
        "omega_ratio": st.ratio(m.gains, m.shortfalls),
        "beta": m.covariance / m.benchmark_m2 if moving and m.n > 1 else None,
    }


def _annualised(
    equity_T: FloatArray,
    m: Moments,
    drawdown: Drawdown,
    account: Account,
    year: float,
    risk_free_rate: float,
) -> dict[str, Statistic]:
    growth = st.annual_return(equity_T, year)
    rf, root = st.per_bar_rate(risk_free_rate, year), math.sqrt(year)
    mar_excess = (m.gains - m.shortfalls) / m.n
    downside = math.sqrt(m.downside_m2)
    values: dict[str, Statistic] = {
        "annual_return": growth,
        "calmar_ratio": st.ratio(growth, -drawdown.depth),
        "sortino_ratio": mar_excess / downside * root if downside > st.NOISE else None,
        "turnover": account.traded_value * year / (m.mean_equity * m.n),
    }
    if m.n < 2:
        return values
    deviation = math.sqrt(m.m2 * m.n / (m.n - 1))
    values["volatility"] = deviation * root
    if deviation > st.NOISE:
        excess = m.mean - rf
        values["sharpe_ratio"] = excess / deviation * root
        values["probabilistic_sharpe_ratio"] = st.psr_from_moments(m.n, excess, m.m2, m.m3, m.m4, 0.0)
    if math.sqrt(m.benchmark_m2) > st.NOISE:
        slope = m.covariance / m.benchmark_m2
        values["alpha"] = (m.mean - rf - slope * (m.benchmark_mean - rf)) * year
    return values


def _trade_statistics(account: Account) -> dict[str, Statistic]:
    net_N = account.net
    wins, losses = net_N[net_N > 0], net_N[net_N < 0]
    return {
        "total_trades": len(net_N),
        "winning_trades": len(wins),
        "losing_trades": len(losses),
        "win_rate": st.win_rate(net_N),
        "profit_factor": st.profit_factor(net_N),
        "expectancy": st.expectancy(net_N),
        "sqn": st.sqn(net_N),
        "average_win": float(wins.mean()) if len(wins) else None,
        "average_loss": float(losses.mean()) if len(losses) else None,
        "best_trade": float(net_N.max()) if len(net_N) else None,
        "worst_trade": float(net_N.min()) if len(net_N) else None,
        "average_bars_held": float(account.bars_held.mean()) if len(net_N) else None,
        "total_commission": account.commission,
        "total_slippage": account.slippage,
    }
