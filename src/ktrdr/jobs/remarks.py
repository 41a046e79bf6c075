"""What a reader should know about a backtest before trusting its figures, beyond what the simulator can know."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ktrdr.backtesting import Result
from ktrdr.bars import Bars
from ktrdr.jobs.in_sample import LearnedRange
from ktrdr.models.decision import Decisions

__all__ = ["remarks_on"]

_RATE_TOLERANCE = 0.15
_FEWEST_DAYS = 90  # holidays bend the rate of shorter stretches
_DAY_US = 86_400_000_000


def remarks_on(
    result: Result,
    bars: Bars,
    learned: LearnedRange | None,
    decisions: Decisions,
    *,
    threshold: float,
    rows_without_features: int,
    bars_per_year: float,
) -> Iterator[str]:
    """One sentence for each reason to be careful.

    Parameters
    ----------
    bars
        The bars that were simulated.
    learned
        What the model was trained on; see :mod:`ktrdr.jobs.in_sample`.
    decisions, threshold
        What the model said at these bars, and the probability that a signal needs.
    rows_without_features
        Simulated bars at which the model was not asked.
    bars_per_year
        A of the annualised statistics, from the bars' calendar.
    """
    if learned is not None and (warning := learned.warning(result.time_T)) is not None:
        yield warning
    if rows_without_features:
        yield (
            f"{rows_without_features:,} bars had no complete features, since the bars of another timeframe end or have "
            "a hole; the model was not asked there, and the position was kept."
        )
    if not result.fills.row.size:
        yield from _why_nothing_was_traded(decisions, threshold)
    days = float(bars.time[-1] - bars.time[0]) / _DAY_US
    rate = (len(bars) - 1) * 365.25 / days if days >= _FEWEST_DAYS else bars_per_year
    if abs(rate / bars_per_year - 1.0) > _RATE_TOLERANCE:
        yield (
            f"The bars come at a rate of {rate:,.0f} a year, their calendar {bars.calendar} schedules "
            f"{bars_per_year:,.0f}: annualised figures use the latter. Import the data with the calendar they follow, "
            "or without holes."
        )


def _why_nothing_was_traded(decisions: Decisions, threshold: float) -> Iterator[str]:
    """Nothing where the simulator's own counts say it (entries without size, too soon after another, ...)."""
    asked = decisions.confidence_T[np.isfinite(decisions.confidence_T)]
    said = decisions.signal_T[decisions.signal_T != 0]
    if not said.size and asked.size:
        yield (
            f"No trade was made: at none of {asked.size:,} bars the model said BUY or SELL with the probability of "
            f"{threshold:g} that decisions.confidence_threshold asks for; the highest of any answer was "
            f"{asked.max():.3f}. Lower the threshold, or train with other labels."
        )
    elif said.size and (said < 0).all():
        yield (
            f"No trade was made: the model said SELL at {said.size:,} bars and BUY at none, and "
            "decisions.allow_short_from_flat is false. Allow it, or train with other labels."
        )
