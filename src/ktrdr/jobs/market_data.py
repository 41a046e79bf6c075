"""The bars of a job: by symbol and timeframe, from the dataset's first bar, cut where the job's range ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ktrdr.artifacts import ArtifactStore
from ktrdr.bars import Bars, TimeLike
from ktrdr.errors import InvalidInput
from ktrdr.market.calendars import known_at
from ktrdr.market.manifest import load_dataset
from ktrdr.protocol.specs import DatasetRef
from ktrdr.timeframe import Timeframe

__all__ = ["Market", "Moment", "SymbolBars", "load_market", "require_bars", "until"]

SymbolBars = Mapping[Timeframe, Bars]
"""Bars of one symbol by timeframe."""
Market = Mapping[str, SymbolBars]
"""Bars by symbol and timeframe."""
Moment = TimeLike | None


def load_market(datasets: Iterable[DatasetRef], artifacts: ArtifactStore) -> dict[str, dict[Timeframe, Bars]]:
    """Load every dataset of a specification; digests are verified, finer bars resampled.

    Raises
    ------
    NotFound, CorruptArtifact
        As the artifact store says.
    """
    market: dict[str, dict[Timeframe, Bars]] = {}
    for ref in datasets:
        timeframe = Timeframe.parse(ref.timeframe)
        bars = load_dataset(artifacts, ref.manifest, timeframe, ref.symbol)
        market.setdefault(ref.symbol, {})[timeframe] = bars
    return market


def require_bars(market: Market, symbols: Iterable[str], timeframes: Iterable[Timeframe]) -> None:
    """Check that every symbol has bars of every timeframe.

    Raises
    ------
    InvalidInput
        Naming the first absent pair and what is there.
    """
    wanted = list(timeframes)
    for symbol in symbols:
        for timeframe in wanted:
            if timeframe not in market.get(symbol, {}):
                there = ", ".join(f"{s} {t}" for s, by_timeframe in market.items() for t in by_timeframe)
                raise InvalidInput(
                    f"The strategy needs bars of {symbol} {timeframe}; given: {there or 'none'}. "
                    "Load them, or name other symbols and timeframes."
                )


def until(bars: SymbolBars, end: Moment, base: Timeframe) -> dict[Timeframe, Bars]:
    """The bars up to and including ``end``; the start is never cut, because indicators remember where they began.

    ``end`` cuts the ``base`` bars by their open stamps. Of the other timeframes the bars that are known by the time
    the last base bar is remain: a day that opens before ``end`` and is complete after it holds prices from after it.
    """
    traded = bars[base][: bars[base].rows_between(None, end).stop]
    others = {timeframe: part for timeframe, part in bars.items() if timeframe != base}
    if not others or not len(
        traded
    ):  # the usual case needs no calendar, which may take half a second to load
        return {base: traded} | {timeframe: part[:0] for timeframe, part in others.items()}
    now = known_at(traded[-1:])[0]
    known = {
        timeframe: part[: np.searchsorted(known_at(part), now, side="right")]
        for timeframe, part in others.items()
    }
    return {base: traded} | known
