"""Two timeframes side by side: which higher bar was known when a base bar was."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import Bars, IntArray
from ktrdr.market.calendars import known_at

__all__ = ["align_to"]


def align_to(base: Bars, higher: Bars, *, max_age: int | None = None) -> IntArray:
    """For each base bar the newest higher-timeframe bar that is already known.

    Parameters
    ----------
    base
        T bars; a decision at bar t is made when it is known (see ``known_at``).
    higher
        Bars of another (usually longer) timeframe.
    max_age
        A higher bar that has been known for longer than this many microseconds counts as absent; None: never.

    Returns
    -------
    (T,) int64 rows of ``higher``: the last whose ``known_at`` is not after the base bar's; -1 where none is known.
    A value used through this index is never from the future. Gaps are not filled: an old row stays the newest
    known until the next one is complete, or until it is older than ``max_age``.
    """
    now_T, known_H = known_at(base), known_at(higher)
    found_T = np.searchsorted(known_H, now_T, side="right").astype(np.int64) - 1
    if max_age is not None and len(known_H):
        found_T[now_T - known_H[found_T] > max_age] = -1  # row -1 reads the last bar, and stays -1
    return found_T
