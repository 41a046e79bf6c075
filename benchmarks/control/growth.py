"""Whether something grows, on a machine on which other work comes and goes.

A leak never goes away, a burst does. So what counts is the floor: how low a figure still falls. And what belongs to
the load (connections, tasks) is compared at rest, where nothing is left of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations

__all__ = ["floors", "trend"]

_WINDOWS = 12


def floors(values: Sequence[float], windows: int = _WINDOWS) -> list[float]:
    """The value that a tenth of each window does not exceed; the windows are equal parts of the time."""
    size = max(1, len(values) // windows)
    parts = [values[at : at + size] for at in range(0, size * min(windows, len(values)), size)]
    return [sorted(part)[len(part) // 10] for part in parts]


def trend(values: Sequence[float]) -> float:
    """How much the floor rises from the beginning to the end: the median slope between all pairs of windows.

    A quarter of the windows may be disturbed from end to end without a change of it; what is held for ever raises
    every later window.
    """
    levels = floors(values)
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(enumerate(levels), 2)]
    return statistics.median(slopes) * (len(levels) - 1) if slopes else 0.0
