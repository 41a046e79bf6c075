"""The loops behind the labels: plain Python first, compiled by Numba second, equal by test.

Every kernel fills three arrays of shape (T,): the class ``y_T`` (-1 = no label), ``t1_T``, the last row the label
looked at (-1 = no label), and nothing else. Kernels read bars as float64 arrays and never look past ``t1_T[t]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ktrdr.bars import FloatArray, IntArray

__all__ = ["BUY", "HOLD", "SELL", "forward_return", "plain", "triple_barrier", "zigzag"]

BUY, HOLD, SELL, NONE = 0, 1, 2, -1


def _forward_return(
    open_T: FloatArray, horizon: int, threshold: float, y_T: np.ndarray, t1_T: IntArray
) -> None:
    for t in range(len(open_T) - 1 - horizon):
        end = t + 1 + horizon
        gain = open_T[end] / open_T[t + 1] - 1.0
        y_T[t] = BUY if gain > threshold else SELL if gain < -threshold else HOLD
        t1_T[t] = end


def _triple_barrier(
    open_T: FloatArray,
    high_T: FloatArray,
    low_T: FloatArray,
    atr_T: FloatArray,
    profit: float,
    stop: float,
    max_holding: int,
    y_T: np.ndarray,
    t1_T: IntArray,
) -> None:
    rows = len(open_T)
    for t in range(rows - 1):
        if not atr_T[t] > 0.0:  # NaN in the warm-up, 0 on a series that never moved: no barriers to speak of
            continue
        entry = open_T[t + 1]
        upper = entry + profit * atr_T[t]
        lower = entry - stop * atr_T[t]
        out = t + 1 + max_holding
        for j in range(t + 1, min(out, rows)):
            # The open comes first: a gap through a barrier is no doubt about the order inside the bar.
            if open_T[j] >= upper:
                y_T[t], t1_T[t] = BUY, j
                break
            if low_T[j] <= lower:
                y_T[t], t1_T[t] = SELL, j
                break
            if high_T[j] >= upper:
                y_T[t], t1_T[t] = BUY, j
                break
        if t1_T[t] < 0 and out < rows:
            y_T[t], t1_T[t] = HOLD, out


def _zigzag(
    open_T: FloatArray,
    close_T: FloatArray,
    threshold: float,
    min_move: float,
    y_T: np.ndarray,
    t1_T: IntArray,
) -> None:
    if len(close_T) == 0:
        return
    rising = 0  # +1 in a rising leg, -1 in a falling one, 0 before the first confirmed pivot
    opened = -1  # row of the last confirmed pivot, where the present leg began
    top = bottom = 0  # rows of the extremes of the present leg
    for t in range(1, len(close_T)):
        if close_T[t] > close_T[top]:
            top = t
        if close_T[t] < close_T[bottom]:
            bottom = t
        if rising >= 0 and close_T[t] <= close_T[top] * (1.0 - threshold):
            pivot, direction = top, 1
        elif rising <= 0 and close_T[t] >= close_T[bottom] * (1.0 + threshold):
            pivot, direction = bottom, -1
        else:
            continue
        if opened >= 0:
            for row in range(opened, pivot):
                gain = direction * (close_T[pivot] / open_T[row + 1] - 1.0)
                y_T[row] = HOLD if gain <= min_move else BUY if direction > 0 else SELL
                t1_T[row] = t
        opened, rising = pivot, -direction
        top = bottom = t


plain: dict[str, Any] = {
    "forward_return": _forward_return,
    "triple_barrier": _triple_barrier,
    "zigzag": _zigzag,
}
"""The same functions uncompiled, for the tests that hold both equal."""

forward_return = njit(cache=True)(_forward_return)
triple_barrier = njit(cache=True)(_triple_barrier)
zigzag = njit(cache=True)(_zigzag)
