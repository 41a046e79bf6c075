"""Which bars of a backtest its model learned from: figures over them flatter it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ktrdr.bars import IntArray, parse_time, to_datetime
from ktrdr.models.bundle import TrainingRecord

__all__ = ["LearnedRange", "learned_range"]


@dataclass(frozen=True, slots=True)
class LearnedRange:
    """Open stamps of the first and last bar that rows and labels of a training were made of, both included.

    The validation and test parts of the training's split count as seen: the first chose the weights, and both lie
    between dates that whoever compares models has looked at.
    """

    first: int
    last: int

    def count(self, time_T: IntArray) -> int:
        """How many of these bars lie in the range."""
        return int(np.count_nonzero((time_T >= self.first) & (time_T <= self.last)))

    def warning(self, time_T: IntArray) -> str | None:
        """A sentence for whoever reads the figures over these bars, or None where all are out of sample."""
        seen, bars = self.count(time_T), len(time_T)
        if not seen:
            return None
        share = f"All {bars:,} bars lie" if seen == bars else f"{seen:,} of {bars:,} bars lie"
        first, last = to_datetime(self.first), to_datetime(self.last)
        return (
            f"{share} in the range that the model was trained on ({first:%Y-%m-%d} to {last:%Y-%m-%d}): it has seen "
            f"these prices, and the figures flatter it. Start after {last:%Y-%m-%d}, or train on an earlier range."
        )


def learned_range(record: TrainingRecord, symbol: str) -> LearnedRange | None:
    """The base bars of ``symbol`` that a training learned from; None if it never saw the symbol."""
    for data in record.datasets:
        if data.symbol == symbol and data.timeframe == record.base_timeframe:
            first = parse_time(data.start)
            if record.start_date is not None:
                first = max(first, parse_time(record.start_date))
            return LearnedRange(first, parse_time(data.end))
    return None
