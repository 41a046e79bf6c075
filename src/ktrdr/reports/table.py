"""Statistics as rows of text, for the terminal and for the report alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["StatisticRow", "format_statistic", "statistics_rows"]

MISSING = "–"


@dataclass(frozen=True, slots=True)
class StatisticRow:
    """One line: what it is, the strategy's value, that of buying and holding. ``group`` heads the line's block."""

    name: str
    label: str
    strategy: str
    benchmark: str
    group: str


def _percent(value: float) -> str:
    return f"{100 * value:,.2f} %"


def _signed_percent(value: float) -> str:
    return f"{100 * value:+,.2f} %"


def _number(value: float) -> str:
    return f"{value:,.2f}"


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


_Format = Callable[[float], str]
_ROWS: tuple[tuple[str, str, _Format, str], ...] = (
    ("total_return", "Total return", _signed_percent, "Return"),
    ("annual_return", "Annual return", _signed_percent, "Return"),
    ("cagr", "CAGR", _signed_percent, "Return"),
    ("final_equity", "Final equity", _money, "Return"),
    ("volatility", "Volatility (annual)", _percent, "Risk"),
    ("max_drawdown", "Max drawdown", _signed_percent, "Risk"),
    ("max_drawdown_duration", "Longest drawdown (bars)", _count, "Risk"),
    ("exposure", "Time in market", _percent, "Risk"),
    ("turnover", "Turnover (x a year)", _number, "Risk"),
    ("sharpe_ratio", "Sharpe ratio", _number, "Ratios"),
    ("probabilistic_sharpe_ratio", "P(Sharpe > 0)", _percent, "Ratios"),
    ("sortino_ratio", "Sortino ratio", _number, "Ratios"),
    ("calmar_ratio", "Calmar ratio", _number, "Ratios"),
    ("omega_ratio", "Omega ratio", _number, "Ratios"),
    ("alpha", "Alpha (annual)", _signed_percent, "Ratios"),
    ("beta", "Beta", _number, "Ratios"),
    ("total_trades", "Trades", _count, "Trades"),
    ("win_rate", "Win rate", _percent, "Trades"),
    ("profit_factor", "Profit factor", _number, "Trades"),
    ("expectancy", "Expectancy per trade", _money, "Trades"),
    ("sqn", "SQN", _number, "Trades"),
    ("average_bars_held", "Average bars held", _number, "Trades"),
    ("best_trade", "Best trade", _money, "Trades"),
    ("worst_trade", "Worst trade", _money, "Trades"),
    ("total_commission", "Commission paid", _money, "Costs"),
    ("total_slippage", "Slippage and spread paid", _money, "Costs"),
)
_FORMATS = {name: show for name, _, show, _ in _ROWS}


def format_statistic(name: str, value: Any) -> str:
    """The value as people read it; an en dash where it is not defined."""
    return MISSING if value is None else _FORMATS.get(name, _number)(float(value))


def statistics_rows(statistics: Mapping[str, Any], benchmark: Mapping[str, Any]) -> tuple[StatisticRow, ...]:
    """The rows of the statistics table, strategy beside buy and hold, in the order to show them.

    Both mappings are those of a result document; a figure that one lacks is shown as not defined.
    """
    return tuple(
        StatisticRow(
            name=name,
            label=label,
            strategy=format_statistic(name, statistics.get(name)),
            benchmark=format_statistic(name, benchmark.get(name)),
            group=group,
        )
        for name, label, _, group in _ROWS
    )
