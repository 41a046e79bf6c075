"""From class probabilities to signals: a stateless rule. What needs the position is the simulator's (see there)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.errors import InvalidModel
from ktrdr.models.architecture import CLASSES

__all__ = ["ACTIONS", "Decisions", "decide"]

ACTIONS = {1: "BUY", 0: "HOLD", -1: "SELL"}
"""Words for signals: 0 keeps what there is, it never means flat."""


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """Signals (T,) int8: +1 BUY, -1 SELL, 0 keep; and the confidence (T,) float64 that the winning class had.

    Rows that were not asked (no valid features) have signal 0 and confidence NaN.
    """

    signal_T: npt.NDArray[np.int8]
    confidence_T: npt.NDArray[np.float64]


def decide(
    probabilities_TC: npt.NDArray[np.float32],
    *,
    threshold: float = 0.0,
    valid_T: npt.NDArray[np.bool_] | None = None,
) -> Decisions:
    """The class with the highest probability, if it is sure enough.

    Parameters
    ----------
    probabilities_TC
        Columns BUY, HOLD, SELL; the value at t is known at the close of bar t.
    threshold
        A winning probability below it gives signal 0.
    valid_T
        Rows with valid features; the others are not looked at. None: all.

    Returns
    -------
    Decisions
        Two classes that share the highest probability to the last bit give 0: neither side has won.

    Raises
    ------
    InvalidModel
        If a probability of a valid row is NaN or infinite. That is never a quiet HOLD.
    """
    if probabilities_TC.ndim != 2 or probabilities_TC.shape[1] != len(CLASSES):
        raise InvalidModel(
            f"Decisions need {len(CLASSES)} class probabilities per bar ({', '.join(CLASSES)}), "
            f"the model gives shape {probabilities_TC.shape}."
        )
    buy, hold, sell = np.ascontiguousarray(probabilities_TC.T)
    best = np.maximum(np.maximum(buy, hold), sell)
    finite = np.isfinite(buy + hold + sell)
    if valid_T is not None:
        finite |= ~valid_T
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidModel(
            f"The model answered {probabilities_TC[row].tolist()} at row {row} of {len(finite)}: not numbers. "
            "Its weights or the features are damaged; train again."
        )
    sure = best >= np.float32(threshold)
    signal = ((buy > hold) & (buy > sell) & sure).view(np.int8) - ((sell > hold) & (sell > buy) & sure).view(
        np.int8
    )
    confidence = best.astype(np.float64)
    if valid_T is not None:
        signal *= valid_T.view(np.int8)
        confidence[~valid_T] = np.nan
    return Decisions(signal, confidence)
