"""The statistics table of a backtest, strategy beside buy-and-hold."""

from __future__ import annotations

from ktrdr.cli.client import Json
from ktrdr.cli.output import Output

__all__ = ["print_statistics"]


def print_statistics(out: Output, result: Json) -> None:
    """Print the table of ``result`` (the ``result`` artifact of a backtest), and on stderr what to know about it."""
    from ktrdr.reports.table import statistics_rows  # lazy: reports load NumPy

    out.result(
        None,
        f"{result['strategy_name']} on {result['symbol']} {result['timeframe']}, "
        f"{str(result['start'])[:10]} to {str(result['end'])[:10]}",
    )
    rows = statistics_rows(result["statistics"], result.get("benchmark") or {})
    out.table(
        None, ("", "strategy", "buy and hold"), [(row.label, row.strategy, row.benchmark) for row in rows]
    )
    for warning in result.get("warnings") or ():
        out.note(f"Warning: {warning}")
