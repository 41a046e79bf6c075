"""The HTML report: one file that needs no network, no server and no other file.

The same input gives the same bytes. Every text that comes from outside is escaped where it enters the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import polars as pl

from ktrdr.errors import MissingExtra
from ktrdr.reports.charts import Chart, candle_chart, equity_chart, fuzzy_charts, training_chart
from ktrdr.reports.data import ReportData
from ktrdr.reports.table import StatisticRow, format_statistic, statistics_rows

__all__ = ["TRADE_ROWS", "build_html"]

TRADE_ROWS = 500
# the page may run its own scripts and reach nothing else
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_TILES = (
    ("total_return", "Total return", True),
    ("sharpe_ratio", "Sharpe ratio", True),
    ("max_drawdown", "Max drawdown", False),
    ("annual_return", "Annual return", True),
    ("win_rate", "Win rate", False),
    ("total_trades", "Trades", False),
)


def build_html(data: ReportData) -> str:
    """The report as one HTML document.

    Raises
    ------
    MissingExtra
        If plotly, which brings the script that draws, is not installed.
    """
    script = plotly_script()
    bars = data.traded_bars()
    equity = equity_chart(data)
    candles = candle_chart(data, bars) if bars is not None and len(bars) else None
    fuzzy = fuzzy_charts(data.strategy, bars) if data.strategy is not None else ()
    training = training_chart(data.epochs)
    drawn = [chart for chart in (equity, candles, training, *fuzzy) if chart is not None]
    body = [
        _header(data),
        _note(data),
        _warnings(data),
        _tiles(data),
        _section(equity),
        _section(candles),
        _columns([_statistics(statistics_rows(data.statistics, data.benchmark)), _provenance(data)]),
        _trades(data.trades, str(data.result["timeframe"])),
        _heading("Fuzzy sets", "Membership functions over the values that occurred.") if fuzzy else "",
        _columns([_section(chart) for chart in fuzzy]),
        _section(training),
    ]
    return _page(data.name, "".join(body), drawn, script)


@lru_cache(maxsize=1)
def plotly_script() -> str:
    """plotly.js as the plotly package ships it."""
    try:
        from plotly.offline import get_plotlyjs  # lazy: an optional extra of several MB
    except ImportError:
        raise MissingExtra("An HTML report", "report") from None
    script: str = get_plotlyjs()
    return script


def _page(title: str, body: str, charts: Iterable[Chart], script: str) -> str:
    figures = [
        {"name": c.name, "data": c.data, "layout": c.layout, "rescale": "rescale" in c.tags} for c in charts
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · ktrdr report</title>\n<style>\n{_asset('report.css')}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n"
        f'<script type="application/json" id="figures">{script_json(figures)}</script>\n'
        f"<script>{script}</script>\n<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, nor open a comment there."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _asset(name: str) -> str:
    return files("ktrdr.reports").joinpath("page", name).read_text(encoding="utf-8")


def _header(data: ReportData) -> str:
    start, end = data.span
    line = f"{data.result['symbol']} · {data.result['timeframe']} · {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    described = data.strategy.description if data.strategy is not None else ""
    more = f"<p>{escape(described)}</p>\n" if described else ""
    return f"<header>\n<h1>{escape(data.name)}</h1>\n<p>{escape(line)}</p>\n{more}</header>\n"


def _note(data: ReportData) -> str:
    note = data.sample_note()
    return f'<div class="note {note.kind}"><strong>{escape(note.title)}</strong>{escape(note.text)}</div>\n'


def _warnings(data: ReportData) -> str:
    lines = "".join(f"<div>{escape(str(line))}</div>" for line in data.result.get("warnings") or ())
    return f'<div class="note caution"><strong>Mind</strong>{lines}</div>\n' if lines else ""


def _tiles(data: ReportData) -> str:
    tiles = []
    for name, label, signed in _TILES:
        value, other = data.statistics.get(name), data.benchmark.get(name)
        tone = "" if not signed or value is None else (" good" if value >= 0 else " bad")
        against = (
            ""
            if other is None or name in ("total_trades", "win_rate")
            else f'<div class="other">buy and hold {_shown(name, other)}</div>'
        )
        tiles.append(
            f'<div class="tile"><div class="label">{escape(label)}</div>'
            f'<div class="value{tone}">{_shown(name, value)}</div>{against}</div>\n'
        )
    return f'<div class="tiles">\n{"".join(tiles)}</div>\n'


def _shown(name: str, value: Any) -> str:
    return escape(format_statistic(name, value)).replace(" ", "\N{NO-BREAK SPACE}")


def _heading(title: str, text: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="caption">{escape(text)}</p></section>\n'


def _section(chart: Chart | None) -> str:
    if chart is None:
        return ""
    caption = f'<p class="caption">{escape(chart.caption)}</p>' if chart.caption else ""
    height = int(chart.layout["height"])
    return (
        f"<section><h2>{escape(chart.title)}</h2>"
        f'<div class="chart" id="{chart.name}" style="height:{height}px"></div>{caption}</section>\n'
    )


def _columns(parts: Iterable[str]) -> str:
    content = "".join(parts)
    return f'<div class="columns">\n{content}</div>\n' if content else ""


def _statistics(rows: Iterable[StatisticRow]) -> str:
    blocks: dict[str, list[StatisticRow]] = {}
    for row in rows:
        blocks.setdefault(row.group, []).append(row)
    bodies = "".join(
        f'<tbody class="group"><tr><th colspan="3">{escape(group)}</th></tr></tbody>\n<tbody>'
        + "".join(
            f"<tr><td>{escape(row.label)}</td><td>{escape(row.strategy)}</td><td>{escape(row.benchmark)}</td></tr>\n"
            for row in block
        )
        + "</tbody>\n"
        for group, block in blocks.items()
    )
    return (
        '<section><h2>Statistics</h2><div class="scroll" style="max-height:none"><table class="figures">\n<thead><tr><th></th>'
        f"<th>Strategy</th><th>Buy and hold</th></tr></thead>\n{bodies}</table></div></section>\n"
    )


def _provenance(data: ReportData) -> str:
    result = data.result
    start, end = data.span
    warmup = result.get("warmup") or {}
    pairs: list[tuple[str, str]] = [
        ("Instrument", f"{result['symbol']}, {result['timeframe']}"),
        ("First and last bar", f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"),
        ("Bars", f"{len(data.equity):,}"),
    ]
    if warmup:
        lost, before = warmup.get("bars_lost"), warmup.get("bars_before_start")
        pairs.append(("Warm-up", f"{lost} bars of the range lost, {before} bars before it used"))
    year = data.statistics.get("bars_per_year")
    pairs.append(("Bars per year", "not known" if year is None else f"{year:,.2f}"))
    pairs += _config_lines(result.get("config") or {})
    accuracy = ((data.training or {}).get("metrics") or {}).get("test_accuracy")
    if accuracy is not None:
        pairs.append(("Model's test accuracy", f"{100 * float(accuracy):.1f} %"))
    digests = [
        ("Model", result.get("model")),
        ("Result", result.get("digest")),
        ("Bars", None if data.bars is None else data.bars.digest()),
    ]
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in pairs)
    rows += "".join(
        f"<tr><td>{escape(name)} digest</td><td><code>{escape(str(digest))}</code></td></tr>\n"
        for name, digest in digests
        if digest
    )
    return f'<section><h2>Where it comes from</h2><table class="text"><tbody>\n{rows}</tbody></table></section>\n'


def _config_lines(config: Any) -> list[tuple[str, str]]:
    """The account in words: what differs from nothing."""
    lines = []
    if "initial_capital" in config:
        lines.append(("Initial capital", f"{float(config['initial_capital']):,.2f}"))
    for part, title in (("sizing", "Sizing"), ("costs", "Costs"), ("stops", "Stops"), ("positions", "Rules")):
        given = config.get(part) or {}
        shown = [
            f"{key.replace('_', ' ')} {_plain(value)}"
            for key, value in given.items()
            if _says(key, value, given)
        ]
        if given:
            lines.append((title, ", ".join(shown) or "none"))
    return lines


def _says(key: str, value: Any, given: Any) -> bool:
    if value is None or value in (0, "none"):
        return isinstance(value, bool)
    if key in ("fraction", "units", "cash", "risk"):
        return bool(given.get("type") == key)
    return not (
        key == "atr_period"
        and not any(given.get(f"{k}_atr") for k in ("stop_loss", "take_profit", "trailing_stop"))
    )


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _trades(trades: pl.DataFrame, timeframe: str) -> str:
    if not len(trades):
        return '<section><h2>Trades</h2><p class="caption">The strategy made no trade.</p></section>\n'
    stamp = "%Y-%m-%d %H:%M" if timeframe[-1] in "mh" else "%Y-%m-%d"
    shown = trades.sort("entry_time").tail(TRADE_ROWS)
    held = shown["bars_held"] if "bars_held" in shown.columns else pl.repeat(None, len(shown), eager=True)
    lines = zip(
        shown["entry_time"].dt.strftime(stamp), shown["exit_time"].dt.strftime(stamp), shown["side"], shown["size"],
        shown["entry_price"], shown["exit_price"], shown["net"], held, shown["reason"], strict=True,
    )  # fmt: skip
    body = "".join(_trade_row(*line) for line in lines)
    caption = f"{len(trades):,} trades"
    if len(shown) < len(trades):
        caption += f"; the newest {len(shown):,} are shown"
    heads = "".join(
        f"<th>{name}</th>"
        for name in ("Entry", "Exit", "Side", "Size", "In at", "Out at", "Net", "Bars", "Closed by")
    )
    return (
        f'<section><h2>Trades</h2><div class="scroll"><table>\n<thead><tr>{heads}</tr></thead>\n'
        f'<tbody>\n{body}</tbody></table></div><p class="caption">{escape(caption)}.</p></section>\n'
    )


def _trade_row(
    entry: str,
    out: str,
    side: str,
    size: float,
    entry_price: float,
    exit_price: float,
    net: float,
    held: int | None,
    reason: str,
) -> str:
    tone = "good" if net > 0 else "bad"
    return (
        f"<tr><td>{escape(entry)}</td><td>{escape(out)}</td><td>{escape(side)}</td><td>{size:,.10g}</td>"
        f'<td>{entry_price:,.6g}</td><td>{exit_price:,.6g}</td><td class="{tone}">{net:+,.2f}</td>'
        f"<td>{'' if held is None else held}</td><td>{escape(reason.replace('_', ' '))}</td></tr>\n"
    )
