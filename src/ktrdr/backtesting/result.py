"""What a simulation leaves behind: trades, fills, equity, statistics. Frozen; the arrays are read-only.

Legend: ``T`` = bars from the first one after warm-up, in time order; ``N`` = closed trades, ``F`` = fills,
both in the order in which they happened. Rows count from the first of the T bars.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ktrdr.backtesting.config import SimulationConfig
from ktrdr.backtesting.kernel import REASONS
from ktrdr.backtesting.performance import Statistic
from ktrdr.bars import FloatArray, IntArray
from ktrdr.timeframe import Timeframe

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

__all__ = ["Fills", "OpenPosition", "Result", "Trades"]


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Closed trades, one column each of shape (N,).

    Parameters
    ----------
    entry_row, exit_row, entry_time, exit_time
        The bars of entry and exit, and their open times in microseconds.
    side
        int8, +1 long, -1 short.
    size
        Units, unsigned.
    entry_price, exit_price
        Prices paid and received: with slippage and half spread. The mean price where entries were added.
    gross, costs, net
        Money: price difference, commissions, and what remains.
    slippage
        Money lost to slippage and spread, already inside ``gross``.
    mae, mfe
        Worst and best excursion from the entry price as a rate of it (<= 0 and >= 0). The extremes of the
        bar in which a stop or target was hit do not count, since their order is unknown; the exit does.
    bars_held
        Closes at which the position was open.
    reason
        int8, index into ``REASONS``: what closed it.
    confidence
        Of the decision that opened it; NaN if none was given.
    """

    entry_row: IntArray
    exit_row: IntArray
    entry_time: IntArray
    exit_time: IntArray
    side: npt.NDArray[np.int8]
    size: FloatArray
    entry_price: FloatArray
    exit_price: FloatArray
    gross: FloatArray
    costs: FloatArray
    net: FloatArray
    slippage: FloatArray
    mae: FloatArray
    mfe: FloatArray
    bars_held: IntArray
    reason: npt.NDArray[np.int8]
    confidence: FloatArray

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.net)


@dataclass(frozen=True, slots=True, eq=False)
class Fills:
    """Executions, one column each of shape (F,).

    ``units`` is signed, ``position`` the units held after the fill, ``reason`` an index into ``REASONS``.
    """

    row: IntArray
    units: FloatArray
    price: FloatArray
    commission: FloatArray
    slippage: FloatArray
    position: FloatArray
    reason: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class OpenPosition:
    """A position left open at the end: signed ``units``; ``unrealised`` includes the costs of its entries."""

    units: float
    entry_price: float
    entry_row: int
    unrealised: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One simulation.

    Parameters
    ----------
    symbol, timeframe, config
        What was simulated, and how.
    time_T
        (T,) open times of the bars in microseconds.
    equity_T
        (T,) equity at each close; the first is the initial capital.
    trades, fills, open_position
        What was traded.
    counts
        How often a rule bit: entries of size zero, cut, too soon after the last signal, without an ATR yet;
        bars that touched stop and target; stops and targets filled at a gap.
    statistics
        By name; see :data:`ktrdr.backtesting.performance.STATISTICS`. None is "not defined".
    notes
        What whoever made the signals knows about them and the simulator cannot; they open :meth:`warnings`.
    """

    symbol: str
    timeframe: Timeframe
    config: SimulationConfig
    time_T: IntArray
    equity_T: FloatArray
    trades: Trades
    fills: Fills
    open_position: OpenPosition | None
    counts: Mapping[str, int]
    statistics: Mapping[str, Statistic]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _freeze(self)

    def __repr__(self) -> str:
        total = self.statistics["total_return"]
        earned = "" if total is None else f", {total:+.2%}"
        return f"Result({self.symbol} {self.timeframe}, {len(self.time_T):,} bars, {len(self.trades)} trades{earned})"

    @property
    def position_T(self) -> FloatArray:  # noqa: N802  (the shape suffix is part of the name)
        """(T,) signed units held after each close: the position that the last fill left."""
        done_T = np.searchsorted(self.fills.row, np.arange(len(self.time_T)), side="right")
        position: FloatArray = np.concatenate([[0.0], self.fills.position])[done_T]
        return position

    def warnings(self) -> tuple[str, ...]:
        """What a reader should know before trusting the figures; one sentence each."""
        counted = (text.format(n=f"{self.counts[name]:,}") for name, text in _WARNINGS if self.counts[name])
        return (*self.notes, *counted)

    def drawdown(self) -> FloatArray:
        """(T,) how far each close lies below the running peak, as a rate <= 0."""
        result: FloatArray = self.equity_T / np.maximum.accumulate(self.equity_T) - 1.0
        return result

    def digest(self) -> str:
        """SHA-256 over the arrays and the configuration.

        Independent of symbol, platform byte order, file format and time of the run. Statistics follow from
        what is covered and are not part of it.
        """
        sha = hashlib.sha256(json.dumps(self.config.to_json(), sort_keys=True).encode())
        sha.update(self.timeframe.encode())
        arrays = [self.time_T, self.equity_T]
        for part in (self.trades, self.fills):
            arrays += [getattr(part, f.name) for f in fields(part)]
        for array in arrays:
            sha.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
        return sha.hexdigest()

    def trades_frame(self) -> pl.DataFrame:
        """The trades as a polars frame: times as UTC datetimes, side and reason as words."""
        import polars as pl  # lazy: the simulator itself does not need it

        trades = self.trades
        columns = {f.name: getattr(trades, f.name) for f in fields(trades)}
        columns["side"] = np.where(trades.side > 0, "long", "short")
        columns["reason"] = np.array(REASONS)[trades.reason]
        frame = pl.DataFrame(columns, schema_overrides={"side": pl.String, "reason": pl.String})
        return frame.with_columns(
            _utc(pl, "entry_time"), _utc(pl, "exit_time"), pl.col("confidence").fill_nan(None)
        )

    def equity_frame(self, benchmark: Result | None = None) -> pl.DataFrame:
        """The equity curve as a polars frame: ``time, equity, drawdown, position`` and, if given, ``benchmark``."""
        import polars as pl  # lazy: the simulator itself does not need it

        columns: dict[str, Any] = {"time": self.time_T, "equity": self.equity_T}
        if benchmark is not None:
            columns["benchmark"] = benchmark.equity_T
        columns |= {"drawdown": self.drawdown(), "position": self.position_T}
        return pl.DataFrame(columns).with_columns(_utc(pl, "time"))

    def plot(self) -> Figure:
        """Equity over drawdown, as a matplotlib figure (shown by a notebook, saved by ``savefig``).

        Raises
        ------
        MissingExtra
            If matplotlib is not installed.
        """
        from ktrdr.backtesting.plot import plot_result  # lazy: matplotlib is an extra

        return plot_result(self)


_WARNINGS = (
    (
        "entries_of_size_zero",
        "{n} entries were dropped because their size rounded to 0 (sizing.lot_step, equity).",
    ),
    ("entries_cut", "{n} entries were smaller than asked for because equity did not fund them."),
    ("entries_without_atr", "{n} entries were dropped because no ATR was known yet."),
    ("stop_and_target_touched", "{n} bars touched stop and target; the stop was assumed to come first."),
)


def _utc(pl: Any, name: str) -> Any:
    return pl.col(name).cast(pl.Datetime("us", "UTC"))


def _freeze(holder: object) -> None:
    for f in fields(holder):  # type: ignore[arg-type]
        value = getattr(holder, f.name)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
