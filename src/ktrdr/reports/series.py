"""Long series made short enough to draw, without losing what the eye looks for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ktrdr.bars import FloatArray, IntArray

__all__ = ["thinned_rows"]


def thinned_rows(values_T: FloatArray, most: int) -> IntArray:
    """Rows to draw: the lowest and highest of each stretch, the first and the last.

    Parameters
    ----------
    values_T
        (T,) finite values.
    most
        About how many rows to keep; all of them are kept if there are no more.

    Returns
    -------
    (K,) int64, strictly increasing.
    """
    count = len(values_T)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, max(2, most // 2) + 1).astype(np.int64)
    kept = {0, count - 1}
    for start, end in pairwise(edges.tolist()):
        part = values_T[start:end]
        kept.update((start + int(part.argmin()), start + int(part.argmax())))
    return np.array(sorted(kept), dtype=np.int64)
