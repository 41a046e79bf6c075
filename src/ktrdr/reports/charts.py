"""The report's figures as Plotly documents: plain mappings, so that the same input gives the same bytes.

Colours work on light and on dark paper alike; texts that come from outside are escaped, because Plotly reads
a little HTML in names and hovers.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from ktrdr.bars import Bars, FloatArray
from ktrdr.fuzzy import LinguisticVariable
from ktrdr.indicators import compute
from ktrdr.market.resample import resample
from ktrdr.reports.data import ReportData
from ktrdr.reports.series import thinned_rows
from ktrdr.strategies.document import FuzzyInput, FuzzySetUse, Strategy

__all__ = ["CANDLES", "COLOURS", "Chart", "candle_chart", "equity_chart", "fuzzy_charts", "training_chart"]

COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6", "#06b6d4", "#84cc16", "#ef4444")
STRATEGY, BENCHMARK, LOSS = "#3b82f6", "#94a3b8", "#ef4444"
UP, DOWN = "#0d9488", "#e11d48"
INK, GRID = "#7c8798", "rgba(128,138,155,0.22)"
CANDLES = 6_000  # more are slow to draw in a browser; the newest are shown
_POINTS = 4_000
_FIRST_VIEW = 250


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure: ``name`` is the id of its place in the page, ``caption`` a sentence below it."""

    name: str
    title: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]
    caption: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)


def layout(height: int, **more: Any) -> dict[str, Any]:
    """What all figures share: transparent paper, quiet grid, legend above the plot, one hover line."""
    return {
        "height": height,
        "margin": {"l": 56, "r": 16, "t": 36, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "xanchor": "left", "yanchor": "bottom"},
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12}, "namelength": -1},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": STRATEGY},
        **more,
    }


def axis(**more: Any) -> dict[str, Any]:
    """A quiet axis."""
    return {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, **more}


def stamps(times: pl.Series, intraday: bool) -> list[str]:
    """UTC times as Plotly reads them."""
    written: list[str] = times.dt.strftime("%Y-%m-%d %H:%M" if intraday else "%Y-%m-%d").to_list()
    return written


def rounded(values: FloatArray | pl.Series, digits: int = 6) -> list[float]:
    """Significant digits enough for a screen; a report is not where numbers are kept."""
    return [float(f"{value:.{digits}g}") for value in np.asarray(values, dtype=np.float64).tolist()]


def is_intraday(data: ReportData) -> bool:
    """Whether stamps need a time of day."""
    return str(data.result["timeframe"])[-1] in "mh"


def equity_chart(data: ReportData) -> Chart:
    """Equity against buy and hold, drawdown below."""
    frame = data.equity
    rows = thinned_rows(frame["equity"].to_numpy(), _POINTS)
    shown = frame[rows]
    x = stamps(shown["time"], is_intraday(data))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": "Strategy", "x": x, "y": rounded(shown["equity"], 8),
            "line": {"color": STRATEGY, "width": 1.8}, "hovertemplate": "%{y:,.0f}",
        },
    ]  # fmt: skip
    if "benchmark" in frame.columns:
        traces.append({
            "type": "scatter", "mode": "lines", "name": "Buy and hold", "x": x,
            "y": rounded(shown["benchmark"], 8), "line": {"color": BENCHMARK, "width": 1.4},
            "hovertemplate": "%{y:,.0f}",
        })  # fmt: skip
    traces.append({
        "type": "scatter", "mode": "lines", "name": "Drawdown", "x": x, "yaxis": "y2", "showlegend": False,
        "y": rounded(100 * shown["drawdown"], 5), "line": {"color": LOSS, "width": 1}, "fill": "tozeroy",
        "fillcolor": "rgba(239,68,68,0.22)", "hovertemplate": "%{y:.1f} %",
    })  # fmt: skip
    figure = layout(
        460,
        xaxis=axis(type="date", anchor="y2", showgrid=False),
        yaxis=axis(domain=[0.34, 1.0], title={"text": "Equity"}, tickformat=",.0f"),
        yaxis2=axis(domain=[0.0, 0.26], title={"text": "Drawdown, %"}, nticks=4, rangemode="tozero"),
    )
    return Chart("equity", "Equity and drawdown", traces, figure)


def candle_chart(data: ReportData, bars: Bars) -> Chart:
    """Prices with entries and exits; opens on the newest stretch, the whole range is one tap away."""
    shown = bars[max(0, len(bars) - CANDLES) :]
    intraday = is_intraday(data)
    x = stamps(pl.Series(shown.time).cast(pl.Datetime("us", "UTC")), intraday)
    candles = {
        "type": "candlestick", "name": str(data.result["symbol"]), "x": x, "showlegend": False,
        "open": rounded(shown.open), "high": rounded(shown.high), "low": rounded(shown.low),
        "close": rounded(shown.close), "hoverinfo": "x+y",
        "increasing": {"line": {"color": UP, "width": 1}, "fillcolor": UP},
        "decreasing": {"line": {"color": DOWN, "width": 1}, "fillcolor": DOWN},
    }  # fmt: skip
    candles["name"] = html.escape(str(candles["name"]))
    start = max(0, len(x) - _FIRST_VIEW)
    first_view = slice(start, None)
    low, high = float(shown.low[first_view].min()), float(shown.high[first_view].max())
    pad = 0.05 * (high - low) or 0.01 * high
    figure = layout(
        480,
        hovermode="closest",
        dragmode="pan",
        xaxis=axis(
            type="date",
            rangeslider={"visible": False},
            range=[x[start], x[-1]],
            rangeselector=_selector(intraday),
            rangebreaks=[{"bounds": ["sat", "mon"]}] if _rests_at_weekends(shown, intraday) else [],
        ),
        yaxis=axis(title={"text": "Price"}, range=[low - pad, high + pad]),
    )
    figure["margin"] = figure["margin"] | {"t": 44, "b": 72}
    figure["legend"] = figure["legend"] | {"y": -0.1, "yanchor": "top"}  # above is the place of the buttons
    caption = "Drag to move, use the buttons for longer stretches; prices rescale to what is visible."
    if len(shown) < len(bars):
        caption += f" The newest {len(shown):,} of {len(bars):,} bars."
    traces = [candles, *_trade_markers(data.trades, int(shown.time[0]), intraday)]
    return Chart("candles", "Prices and trades", traces, figure, caption, frozenset({"rescale"}))


def _rests_at_weekends(bars: Bars, intraday: bool) -> bool:
    """Daily bars without a Saturday or Sunday: their weekends need no room."""
    weekday = (bars.time // 86_400_000_000 + 3) % 7  # 1970-01-01 was a Thursday
    return not intraday and bool((weekday < 5).all())


def _selector(intraday: bool) -> dict[str, Any]:
    steps = [(1, "week", "1w"), (1, "month", "1m"), (3, "month", "3m")] if intraday else []
    steps += [] if intraday else [(3, "month", "3m"), (1, "year", "1y"), (3, "year", "3y")]
    buttons: list[dict[str, Any]] = []
    for count, step, label in steps:
        days = {"week": 7, "month": 1, "year": 1}[step] * count
        unit = "day" if step == "week" else step
        buttons.append({"count": days, "step": unit, "stepmode": "backward", "label": label})
    return {
        "buttons": [*buttons, {"step": "all", "label": "all"}],
        "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom",
        "bgcolor": "rgba(128,138,155,0.15)", "activecolor": "rgba(59,130,246,0.45)",
    }  # fmt: skip


def _trade_markers(trades: pl.DataFrame, since: int, intraday: bool) -> list[dict[str, Any]]:
    visible = trades.filter(pl.col("entry_time").to_physical() >= since)
    kinds = (
        ("Long", pl.col("side") == "long", "triangle-up", "#2563eb"),
        ("Short", pl.col("side") == "short", "triangle-down", "#d97706"),
    )
    markers = [
        _markers(name, visible.filter(which), "entry", symbol, colour, intraday)
        for name, which, symbol, colour in kinds
    ]
    markers.append(_markers("Exit, won", visible.filter(pl.col("net") > 0), "exit", "circle", UP, intraday))
    markers.append(_markers("Exit, lost", visible.filter(pl.col("net") <= 0), "exit", "x", DOWN, intraday))
    return [trace for trace in markers if trace["x"]]


def _markers(
    name: str, trades: pl.DataFrame, end: str, symbol: str, colour: str, intraday: bool
) -> dict[str, Any]:
    if end == "entry":
        text = [
            f"{side} {size:,.4g} at {price:,.5g}"
            for side, size, price in trades.select("side", "size", "entry_price").rows()
        ]
    else:
        columns = trades.select("reason", "exit_price", "net").rows()
        text = [f"{reason.replace('_', ' ')} at {price:,.5g}: {net:+,.2f}" for reason, price, net in columns]
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": stamps(trades[f"{end}_time"], intraday),
        "y": rounded(trades[f"{end}_price"]), "text": [html.escape(line) for line in text],
        "hovertemplate": "%{x}<br>%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": 10, "color": colour, "line": {"color": "#ffffff", "width": 1}},
    }  # fmt: skip


def training_chart(epochs: Sequence[Any]) -> Chart | None:
    """Loss by epoch, and the epoch whose weights were kept; None without a history."""
    rows = [e for e in epochs if e.get("epoch") is not None]
    if not rows:
        return None
    x = [int(e["epoch"]) for e in rows]
    curves = (
        ("train_loss", "Training loss", STRATEGY, "y"),
        ("val_loss", "Validation loss", "#f59e0b", "y"),
        ("val_accuracy", "Validation accuracy", "#10b981", "y2"),
    )
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines+markers" if len(rows) < 3 else "lines", "name": label, "x": x,
            "y": [None if e.get(key) is None else round(float(e[key]), 6) for e in rows], "yaxis": where,
            "line": {"color": colour, "width": 1.8, "dash": "dot" if where == "y2" else "solid"},
            "hovertemplate": "%{y:.4f}",
        }
        for key, label, colour, where in curves
        if any(e.get(key) is not None for e in rows)
    ]  # fmt: skip
    losses = [(float(e["val_loss"]), int(e["epoch"])) for e in rows if e.get("val_loss") is not None]
    figure = layout(
        320,
        xaxis=axis(title={"text": "Epoch"}, rangemode="tozero"),
        yaxis=axis(title={"text": "Loss"}),
        yaxis2=axis(
            title={"text": "Accuracy"}, overlaying="y", side="right", showgrid=False, tickformat=".0%"
        ),
    )
    figure["margin"] = figure["margin"] | {"r": 64, "t": 52}
    caption = ""
    if losses:
        best = min(losses)[1]
        figure["shapes"] = [{
            "type": "line", "x0": best, "x1": best, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": INK, "width": 1, "dash": "dash"},
        }]  # fmt: skip
        caption = f"Dashed: epoch {best}, the lowest validation loss."
    return Chart("training", "Training", traces, figure, caption)


def fuzzy_charts(strategy: Strategy, bars: Bars | None) -> tuple[Chart, ...]:
    """One small figure per fuzzy set: its membership functions over the values that occurred."""
    charts = []
    for number, use in enumerate(strategy.fuzzy_sets.values()):
        values = _values_of(strategy, use, bars)
        low, high = _value_range(use.variable, values)
        charts.append(_fuzzy_chart(f"fuzzy-{number}", use, low, high, values))
    return tuple(charts)


def _fuzzy_chart(name: str, use: FuzzySetUse, low: float, high: float, values: FloatArray | None) -> Chart:
    grid = np.linspace(low, high, 201)
    grades = use.variable.memberships(grid)
    traces: list[dict[str, Any]] = []
    if values is not None and len(values):
        counts, edges = np.histogram(values, bins=60, range=(low, high))
        traces.append({
            "type": "bar", "name": "values seen", "x": rounded((edges[1:] + edges[:-1]) / 2, 5),
            "y": rounded(counts / max(1, counts.max()), 3), "marker": {"color": "rgba(128,138,155,0.25)"},
            "hoverinfo": "skip",
        })  # fmt: skip
    traces += [
        {
            "type": "scatter", "mode": "lines", "name": html.escape(label), "x": rounded(grid, 5),
            "y": rounded(grades[:, i], 4), "line": {"color": COLOURS[i % len(COLOURS)], "width": 2},
            "fill": "tozeroy", "fillcolor": _faint(COLOURS[i % len(COLOURS)]), "hovertemplate": "%{y:.2f}",
        }
        for i, label in enumerate(use.variable.labels)
    ]  # fmt: skip
    figure = layout(
        280,
        xaxis=axis(range=[low, high], showgrid=False),
        yaxis=axis(range=[0, 1.05], nticks=4, title={"text": "Membership"}),
        bargap=0,
    )
    figure["margin"] = figure["margin"] | {"t": 56}
    source = use.indicator if use.output is None else f"{use.indicator}.{use.output}"
    return Chart(name, f"{use.name} on {source}", traces, figure)


def _values_of(strategy: Strategy, use: FuzzySetUse, bars: Bars | None) -> FloatArray | None:
    """The indicator's known values over the traded bars, on the timeframe where the network reads the set."""
    if bars is None or not len(bars):
        return None
    read = [
        t
        for i in strategy.nn_inputs
        if isinstance(i, FuzzyInput) and i.fuzzy_set == use.name
        for t in i.timeframes
    ]
    if read and bars.timeframe not in read:
        bars = resample(bars, read[0])
    indicator = strategy.indicators[use.indicator]
    outputs = compute(indicator.type, bars, **indicator.params)
    values = outputs[use.output] if use.output is not None else next(iter(outputs.values()))
    return values[np.isfinite(values)]


def _value_range(variable: LinguisticVariable, values: FloatArray | None) -> tuple[float, float]:
    """What to show: all but the rarest values, widened to the finite edges of the sets nearby."""
    if values is not None and len(values) > 10:
        low, high = (float(q) for q in np.quantile(values, [0.002, 0.998]))
    else:
        edges = [edge for _, function in variable.sets for edge in function.support if np.isfinite(edge)]
        low, high = (min(edges), max(edges)) if edges else (-1.0, 1.0)
    if not low < high:
        low, high = low - 1.0, high + 1.0
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.10)"
