"""The bars of one backtest: what it sees, where the range that was asked for begins, where it can trade."""

from __future__ import annotations

from dataclasses import dataclass

from ktrdr.bars import Bars
from ktrdr.datasets.features import FeaturePlan, Features
from ktrdr.errors import TooFewBars
from ktrdr.jobs.market_data import Moment, SymbolBars, require_bars, until
from ktrdr.market.calendars import bars_per_year

__all__ = ["Stretch"]

_LEAST_BARS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """``seen`` are the bars of every timeframe up to the end of the ``requested`` range, which begins at row ``first`` of
    the base timeframe; what lies before it feeds the warm-up."""

    plan: FeaturePlan
    seen: SymbolBars
    first: int
    requested: tuple[Moment, Moment]

    @classmethod
    def of(cls, plan: FeaturePlan, bars: SymbolBars, start: Moment, end: Moment) -> Stretch:
        """The range of these bars, both ends included.

        Raises
        ------
        TooFewBars
            If it has fewer than 2 bars, or a timeframe none.
        """
        symbol = next((part.symbol for part in bars.values()), "?")
        require_bars({symbol: bars}, [symbol], plan.timeframes)
        seen = until({timeframe: bars[timeframe] for timeframe in plan.timeframes}, end, plan.base_timeframe)
        base = seen[plan.base_timeframe]
        first = base.rows_between(start, None).start
        _require_range(bars[plan.base_timeframe], len(base) - first, start, end)
        return cls(plan, seen, first, (start, end))

    @property
    def base(self) -> Bars:
        """The bars of the base timeframe."""
        return self.seen[self.plan.base_timeframe]

    def begin(self, features: Features) -> int:
        """The first row of the range that has features.

        Raises
        ------
        TooFewBars
            If fewer than 2 rows are left from there on, or none of them has features.
        """
        begin = max(self.first, features.first_valid)
        self._require_after_warmup(features, begin)
        self._require_features(features, begin)
        return begin

    def year(self, begin: int) -> float:
        """How many bars from that row on make a year."""
        base = self.base
        return bars_per_year(base.calendar, base.timeframe, base[begin:].start, base.end)

    def _require_after_warmup(self, features: Features, begin: int) -> None:
        left, plan = len(self.base) - begin, self.plan
        if left >= _LEAST_BARS:
            return
        needs = ", ".join(f"{plan.warmup(timeframe):,} of {timeframe}" for timeframe in plan.timeframes)
        has = ", ".join(f"{features.bars[timeframe]:,} of {timeframe}" for timeframe in plan.timeframes)
        raise TooFewBars(
            f"The indicators of this strategy need {needs} bars of warm-up before the first decision, and "
            f"{self.base.symbol} has {has} up to the end of the range: {max(0, left)} bars are left to trade, at least "
            f"{_LEAST_BARS} are needed. Import older bars, move the end date, or use indicators with shorter periods."
        )

    def _require_features(self, features: Features, begin: int) -> None:
        if features.valid_T[begin:].any():
            return
        base = self.base
        ends = ", ".join(f"{timeframe} bars to {part.end:%Y-%m-%d}" for timeframe, part in self.seen.items())
        raise TooFewBars(
            f"At none of the {len(base) - begin:,} bars of {base.symbol} {base.timeframe} from "
            f"{base[begin:].start:%Y-%m-%d} on the model can be asked: none has complete features, since another "
            f"timeframe is out of date (there: {ends}). Import its newer bars, or remove it, so that it is made of the "
            "shorter ones."
        )


def _require_range(bars: Bars, rows: int, start: Moment, end: Moment) -> None:
    if rows >= _LEAST_BARS:
        return
    stored = f"{bars.start:%Y-%m-%d} to {bars.end:%Y-%m-%d}" if len(bars) else "none at all"
    raise TooFewBars(
        f"A backtest needs at least {_LEAST_BARS} bars; there are {max(0, rows)} of {bars.symbol} {bars.timeframe} "
        f"from {start or 'the first'} to {end or 'the last'} (there: {stored}, {len(bars):,} bars). Choose other dates."
    )
