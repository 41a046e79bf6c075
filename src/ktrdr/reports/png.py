"""The same result as one picture, for chats and slides; drawn without a display."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ktrdr.errors import MissingExtra
from ktrdr.reports.charts import BENCHMARK, DOWN, LOSS, STRATEGY, UP
from ktrdr.reports.data import ReportData
from ktrdr.reports.series import thinned_rows
from ktrdr.reports.table import statistics_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["build_png"]

_POINTS = 6_000
_SHOWN = (
    *("total_return", "annual_return", "volatility", "sharpe_ratio", "sortino_ratio", "max_drawdown"),
    *("calmar_ratio", "exposure", "total_trades", "win_rate", "profit_factor", "total_commission"),
)
_INK, _SOFT = "#1e293b", "#64748b"


def build_png(data: ReportData) -> bytes:
    """Equity, drawdown, prices with trades, and the main statistics as a PNG file of 1500 x 1000 pixels.

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # lazy: an optional extra
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("A PNG report", "report") from None
    figure = Figure(figsize=(15, 10), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # makes savefig draw with Agg, whatever backend is configured
    parts: Any = figure.subfigures(1, 2, width_ratios=(3.4, 1), wspace=0.02)
    left, right = parts
    equity, drawdown, prices = left.subplots(3, 1, sharex=True, height_ratios=(3, 1, 2))
    _draw_equity(equity, data)
    _draw_drawdown(drawdown, data)
    _draw_prices(prices, data)
    for axes in (equity, drawdown, prices):
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_SOFT, labelsize=9)
    _write_title(left, data)
    _write_statistics(right, data)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})  # no version in the bytes
    return out.getvalue()


def _plain_text(text: str) -> str:
    """Dollar signs would start mathematics in matplotlib."""
    return text.replace("$", r"\$")


def _write_title(figure: Any, data: ReportData) -> None:
    start, end = data.span
    line = f"{data.name}   {data.result['symbol']} {data.result['timeframe']}, {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    note = data.sample_note()
    figure.suptitle(
        _plain_text(f"{line}   ({note.title.lower()})"), x=0.01, ha="left", fontsize=13, color=_INK
    )


def _times(frame: pl.DataFrame, column: str) -> Any:
    return frame[column].to_physical().to_numpy().astype("datetime64[us]")


def _draw_equity(axes: Axes, data: ReportData) -> None:
    frame = data.equity[thinned_rows(data.equity["equity"].to_numpy(), _POINTS)]
    time = _times(frame, "time")
    if "benchmark" in frame.columns:
        axes.plot(time, frame["benchmark"].to_numpy(), color=BENCHMARK, linewidth=1.2, label="Buy and hold")
    axes.plot(time, frame["equity"].to_numpy(), color=STRATEGY, linewidth=1.6, label="Strategy")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("Equity", color=_SOFT)
    axes.legend(
        loc="upper left", frameon=False, ncols=2, fontsize=9, bbox_to_anchor=(0, 1.08), borderaxespad=0
    )


def _draw_drawdown(axes: Axes, data: ReportData) -> None:
    frame = data.equity[thinned_rows(data.equity["drawdown"].to_numpy(), _POINTS)]
    values = 100 * frame["drawdown"].to_numpy()
    axes.fill_between(_times(frame, "time"), values, 0.0, color=LOSS, alpha=0.3, linewidth=0)
    axes.set_ylabel("Drawdown, %", color=_SOFT)
    axes.set_ylim(top=0)


def _draw_prices(axes: Axes, data: ReportData) -> None:
    bars, trades = data.traded_bars(), data.trades
    if bars is not None and len(bars):
        rows = thinned_rows(bars.close, _POINTS)
        axes.plot(bars.time[rows].astype("datetime64[us]"), bars.close[rows], color=_SOFT, linewidth=0.9)
    entry, out = _times(trades, "entry_time"), _times(trades, "exit_time")
    entry_price, exit_price = trades["entry_price"].to_numpy(), trades["exit_price"].to_numpy()
    long, won = (trades["side"] == "long").to_numpy(), trades["net"].to_numpy() > 0
    kinds: list[tuple[str, Any, Any, Any, str, str]] = [
        ("Long", entry, entry_price, long, "^", "#2563eb"),
        ("Short", entry, entry_price, ~long, "v", "#d97706"),
        ("Exit, won", out, exit_price, won, "o", UP),
        ("Exit, lost", out, exit_price, ~won, "x", DOWN),
    ]
    size = float(np.clip(3_000 / max(1, len(trades)), 8, 36))
    for label, time, price, which, marker, colour in kinds:
        if which.any():
            axes.scatter(
                time[which],
                price[which],
                marker=marker,
                color=colour,
                s=size,
                linewidths=1,
                label=label,
                zorder=3,
            )
    axes.set_ylabel("Price", color=_SOFT)
    if len(trades):
        axes.legend(
            loc="upper left", frameon=False, ncols=4, fontsize=9, bbox_to_anchor=(0, 1.1), borderaxespad=0
        )


def _write_statistics(figure: Figure | Any, data: ReportData) -> None:
    axes = figure.subplots()
    axes.axis("off")
    rows = [row for row in statistics_rows(data.statistics, data.benchmark) if row.name in _SHOWN]
    axes.text(
        0.62, 1.0, "Strategy", ha="right", va="top", fontsize=9.5, color=_SOFT, transform=axes.transAxes
    )
    axes.text(
        1.0, 1.0, "Buy and hold", ha="right", va="top", fontsize=9.5, color=_SOFT, transform=axes.transAxes
    )
    for number, row in enumerate(rows, start=1):
        y = 1.0 - number * 0.052
        axes.text(0.0, y, row.label, ha="left", va="top", fontsize=9.5, color=_SOFT, transform=axes.transAxes)
        y -= 0.0225
        axes.text(
            0.62, y, row.strategy, ha="right", va="top", fontsize=11, color=_INK, transform=axes.transAxes
        )
        axes.text(
            1.0, y, row.benchmark, ha="right", va="top", fontsize=11, color=_SOFT, transform=axes.transAxes
        )
