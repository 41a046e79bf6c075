"""What a report is made of: the pieces a backtest leaves behind, as they come out of the artifact store."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self

import polars as pl

from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput
from ktrdr.strategies.document import Strategy

__all__ = ["ReportData", "SampleNote", "TrainingRange"]

_TRADE_COLUMNS = ("entry_time", "exit_time", "side", "size", "entry_price", "exit_price", "net", "reason")
_EQUITY_COLUMNS = ("time", "equity", "drawdown")


@dataclass(frozen=True, slots=True)
class TrainingRange:
    """Which prices a model has seen: symbols, and the first and last moment of their bars."""

    symbols: tuple[str, ...]
    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class SampleNote:
    """Whether the figures were earned on prices that the model had not seen."""

    kind: Literal["out-of-sample", "in-sample", "unknown"]
    title: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """The inputs of a report.

    Parameters
    ----------
    result
        The backtest's result document: ``strategy_name, symbol, timeframe, start, end, initial_capital,
        statistics, benchmark, warmup, config, digest, model``.
    trades, equity
        Frames as :meth:`ktrdr.backtesting.Result.trades_frame` and ``equity_frame`` give them.
    bars
        The bars that were traded, for the candles; None leaves these out. Bars outside the equity are ignored.
    strategy
        For the fuzzy sets; None leaves these out.
    history
        One mapping per epoch: ``epoch, train_loss, val_loss, val_accuracy``; by default the training
        document's.
    training
        The training's result document, for what the model has seen and how it scored.

    Raises
    ------
    InvalidInput
        If a key or column is missing; the message names it.
    """

    result: Mapping[str, Any]
    trades: pl.DataFrame
    equity: pl.DataFrame
    bars: Bars | None = None
    strategy: Strategy | None = None
    history: Sequence[Mapping[str, Any]] | None = None
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        keys = ("strategy_name", "symbol", "timeframe", "start", "end", "statistics")
        missing = [f"result.{key}" for key in keys if key not in self.result]
        missing += [f"trades.{name}" for name in _TRADE_COLUMNS if name not in self.trades.columns]
        missing += [f"equity.{name}" for name in _EQUITY_COLUMNS if name not in self.equity.columns]
        if missing:
            raise InvalidInput(f"A report cannot be made: {', '.join(missing)} missing.")
        if not len(self.equity):
            raise InvalidInput("A report cannot be made: the equity curve has no rows.")

    @classmethod
    def from_artifacts(
        cls,
        result: bytes,
        trades: bytes,
        equity: bytes,
        *,
        bars: Bars | None = None,
        strategy: Strategy | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> Self:
        """The same from the stored bytes: JSON, Parquet, Parquet."""
        return cls(
            result=json.loads(result),
            trades=pl.read_parquet(io.BytesIO(trades)),
            equity=pl.read_parquet(io.BytesIO(equity)),
            bars=bars,
            strategy=strategy,
            training=training,
        )

    @property
    def name(self) -> str:
        """The strategy's name."""
        return str(self.result["strategy_name"])

    @property
    def span(self) -> tuple[datetime, datetime]:
        """Open times of the first and the last bar."""
        return _moment(self.result["start"]), _moment(self.result["end"])

    @property
    def statistics(self) -> Mapping[str, Any]:
        """The strategy's statistics by name."""
        found: Mapping[str, Any] = self.result["statistics"]
        return found

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """Those of buying and holding; empty if the document has none."""
        found: Mapping[str, Any] = self.result.get("benchmark") or {}
        return found

    @property
    def epochs(self) -> Sequence[Mapping[str, Any]]:
        """The training history, from wherever it was given."""
        if self.history is not None:
            return self.history
        return (self.training or {}).get("history") or ()

    def traded_bars(self) -> Bars | None:
        """The bars of the equity curve, if bars were given."""
        if self.bars is None:
            return None
        times = self.equity["time"].to_physical().to_numpy()
        return self.bars.between(int(times[0]), int(times[-1]))

    def seen(self) -> TrainingRange | None:
        """What the model was trained on; None if nobody says."""
        record = self.training
        if record is not None and record.get("datasets"):
            parts = record["datasets"]
            starts, ends = [_moment(p["start"]) for p in parts], [_moment(p["end"]) for p in parts]
            symbols = tuple(dict.fromkeys(str(p["symbol"]) for p in parts))
            return TrainingRange(symbols, min(starts), max(ends))
        dates = None if self.strategy is None else self.strategy.training_data
        if dates is None or dates.end_date is None:
            return None
        start = None if dates.start_date is None else _moment(dates.start_date)
        return TrainingRange(dates.symbols, start, _moment(f"{dates.end_date}T23:59:59"))

    def sample_note(self) -> SampleNote:
        """Whether these figures are out of sample, in a sentence that says what was compared."""
        seen, (start, end) = self.seen(), self.span
        if seen is None or seen.end is None:
            text = "Nothing says on which dates the model was trained, so these figures may come from prices it knew."
            return SampleNote("unknown", "Sample unknown", text)
        since = "the first bar" if seen.start is None else f"{seen.start:%Y-%m-%d}"
        trained = f"The model was trained on {', '.join(seen.symbols)}, {since} to {seen.end:%Y-%m-%d}."
        if start > seen.end:
            text = f"{trained} Every bar of this backtest comes after that."
            return SampleNote("out-of-sample", "Out of sample", text)
        if seen.start is not None and end < seen.start:
            text = f"{trained} Every bar of this backtest comes before that."
            return SampleNote("out-of-sample", "Out of sample", text)
        if str(self.result["symbol"]) not in seen.symbols:
            text = f"{trained} It never saw {self.result['symbol']}, but it did see the same years of another market."
            return SampleNote("unknown", "Another market, same years", text)
        known = self.equity.filter(pl.col("time") <= seen.end.replace(tzinfo=UTC))
        if seen.start is not None:
            known = known.filter(pl.col("time") >= seen.start)
        share = len(known) / len(self.equity)
        text = f"{trained} {share:.0%} of the bars here lie in that range: the model knew them, and the figures flatter it."
        return SampleNote("in-sample", "In sample", text)


def _moment(text: object) -> datetime:
    moment = datetime.fromisoformat(str(text))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
