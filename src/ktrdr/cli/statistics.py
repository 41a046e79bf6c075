"""What an operation came to: the statistics table of a backtest, the summary of anything else."""

from __future__ import annotations

from ktrdr.cli.client import Json
from ktrdr.cli.output import Output

__all__ = ["print_statistics", "print_summary", "print_warnings"]


def print_summary(out: Output, operation: Json) -> None:
    """Print the figures of a finished operation, names first, and on stderr what to know about them."""
    summary = dict(operation["result_summary"] or {})
    warnings = summary.pop("warnings", None)
    names = {key: summary[key] for key in ("model_id",) if key in summary}
    out.mapping(operation, {"operation": operation["operation_id"], **names, **summary})
    print_warnings(out, warnings)


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
    print_warnings(out, result.get("warnings"))


def print_warnings(out: Output, warnings: list[str] | None) -> None:
    """Print on stderr what a reader must know before trusting the figures."""
    for warning in warnings or ():
        out.note(f"Warning: {warning}")
