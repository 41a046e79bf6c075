"""Two timeframes side by side: which higher bar was known when a base bar was."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import Bars, IntArray
from ktrdr.market.calendars import known_at

__all__ = ["align_to"]


def align_to(base: Bars, higher: Bars) -> IntArray:
    """For each base bar the newest higher-timeframe bar that is already known.

    Parameters
    ----------
    base
        T bars; a decision at bar t is made when it is known (see ``known_at``).
    higher
        Bars of another (usually longer) timeframe.

    Returns
    -------
    (T,) int64 rows of ``higher``: the last whose ``known_at`` is not after the base bar's; -1 where none is known.
    A value used through this index is never from the future. Gaps are not filled: an old row stays the newest
    known until the next one is complete.
    """
    found = np.searchsorted(known_at(higher), known_at(base), side="right") - 1
    return found.astype(np.int64)
