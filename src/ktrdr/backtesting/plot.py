"""A quick look at a result; the full picture is in ``ktrdr.reports``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ktrdr.backtesting.result import Result
from ktrdr.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_result"]


def plot_result(result: Result) -> Figure:
    """Equity above drawdown; see :meth:`Result.plot`."""
    try:
        from matplotlib.figure import Figure  # lazy: an optional extra; no pyplot, so no display is touched
    except ImportError:
        raise MissingExtra("A plot", "report") from None
    time = result.time_T.astype("datetime64[us]")
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top.plot(time, result.equity_T, color="#2563eb", linewidth=1.2)
    top.set_ylabel("equity")
    top.set_title(f"{result.symbol} {result.timeframe}", loc="left")
    bottom.fill_between(time, 100 * result.drawdown(), 0.0, color="#dc2626", alpha=0.35, linewidth=0)
    bottom.set_ylabel("drawdown, %")
    for axes in (top, bottom):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure
