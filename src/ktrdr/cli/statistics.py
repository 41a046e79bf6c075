"""What an operation came to: the statistics table of a backtest, the summary of anything else."""

from __future__ import annotations

from ktrdr.cli.client import Json
from ktrdr.cli.output import Output

__all__ = ["print_statistics", "print_summary"]


def print_summary(out: Output, operation: Json) -> None:
    """Print the figures of a finished operation, names first."""
    summary = operation["result_summary"] or {}
    names = {key: summary[key] for key in ("model_id",) if key in summary}
    out.mapping(operation, {"operation": operation["operation_id"], **names, **summary})


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
