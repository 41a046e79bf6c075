"""Labels: what a decision at the close of a bar should have been, and how far ahead one had to look to know it.

Every label starts at the fill the simulator would get, the open of the next bar, and carries ``t1``, the last bar
it looked at. The split purges by it, so that no training row has seen a bar of the validation or test part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.bars import Bars, FloatArray, IntArray
from ktrdr.datasets import labels_kernels as kernels
from ktrdr.errors import InvalidInput
from ktrdr.indicators import compute
from ktrdr.strategies.document import (
    ForwardReturnLabels,
    LabelConfig,
    TripleBarrierLabels,
    ZigzagLabels,
)

__all__ = ["BUY", "CLASSES", "HOLD", "NO_LABEL", "SELL", "Labels", "make_labels"]

CLASSES = ("BUY", "HOLD", "SELL")
"""Class names by class index: the order of the network's outputs, of metrics and of the bundle."""

BUY, HOLD, SELL = kernels.BUY, kernels.HOLD, kernels.SELL
NO_LABEL = -1
"""Class index (and ``t1``) of a row without a complete label; a loss function refuses it."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of the bars of one symbol; row t belongs to the decision at the close of bar t.

    Parameters
    ----------
    symbol, time_T
        Whose bars, and their open stamps in microseconds: rows of features and labels are matched by these, never
        by position.
    y_T
        (T,) int8 class index: 0 BUY, 1 HOLD, 2 SELL, -1 where not complete.
    t1_T
        (T,) int64 row of the last bar the label looked at, ``t1_T[t] > t``; -1 where not complete.
    """

    symbol: str
    time_T: IntArray
    y_T: npt.NDArray[np.int8]
    t1_T: IntArray

    def __len__(self) -> int:
        return len(self.time_T)

    @property
    def complete_T(self) -> npt.NDArray[np.bool_]:  # noqa: N802
        """(T,) True where the label is known from the bars given."""
        complete: npt.NDArray[np.bool_] = self.t1_T >= 0
        return complete

    @property
    def end_time_T(self) -> IntArray:  # noqa: N802
        """(T,) open stamp of the bar ``t1``; -1 where not complete."""
        return np.where(self.complete_T, self.time_T[self.t1_T], np.int64(-1))

    def counts(self) -> dict[str, int]:
        """Complete labels by class name, in class order."""
        return {name: int(np.count_nonzero(self.y_T == index)) for index, name in enumerate(CLASSES)}

    def rows_at(self, time_N: IntArray) -> IntArray:
        """Rows of the bars that open at ``time_N``.

        Raises
        ------
        InvalidInput
            If one of the stamps is no bar of these labels.
        """
        rows = np.searchsorted(self.time_T, time_N)
        inside = rows < len(self.time_T)
        found = inside & (self.time_T[np.where(inside, rows, 0)] == time_N) if len(self) else inside
        if not np.all(found):
            stamp = int(np.asarray(time_N)[~found][0])
            raise InvalidInput(
                f"{self.symbol} has no bar stamped {stamp}: features and labels must come from the same bars."
            )
        return rows.astype(np.int64)


def make_labels(config: LabelConfig, bars: Bars) -> Labels:
    """Label every bar from which enough future is known.

    Parameters
    ----------
    config
        Which labels: a ``labels`` section of a strategy.
    bars
        Bars of the base timeframe, from the fixed origin that features use too (the ATR of triple-barrier labels
        is recursive).

    Returns
    -------
    Labels
        ``forward_return``: the return from the open of t+1 to the open of t+1+h against ``threshold``; t1 = t+1+h.
        ``triple_barrier``: entry at the open of t+1, barriers in ATRs of bar t; BUY if the upper is touched first,
        SELL if the lower (also when one bar touches both, unless it opened beyond the upper), HOLD if neither in
        ``max_holding_bars`` bars; t1 = the touching bar, or t+1+max_holding_bars, where a time exit would fill.
        ``zigzag``: BUY in a rising leg of closes, SELL in a falling one, HOLD where no more than ``min_move`` is
        left from the open of t+1 to the closing pivot; t1 = the bar that confirms that pivot. Rows before the
        first confirmed pivot belong to no leg and stay without label.

    Notes
    -----
    A label whose t1 <= t does not change when bars after t are appended.

    References
    ----------
    Lopez de Prado, "Advances in Financial Machine Learning" (2018), 3.4 (triple barrier), 7.4 (purging).
    """
    y_T = np.full(len(bars), NO_LABEL, dtype=np.int8)
    t1_T = np.full(len(bars), NO_LABEL, dtype=np.int64)
    match config:
        case ForwardReturnLabels():
            kernels.forward_return(bars.open, config.horizon_bars, config.threshold, y_T, t1_T)
        case TripleBarrierLabels():
            kernels.triple_barrier(
                bars.open,
                bars.high,
                bars.low,
                _atr(bars, config.atr_period),
                config.profit_target_atr,
                config.stop_loss_atr,
                config.max_holding_bars,
                y_T,
                t1_T,
            )
        case ZigzagLabels():
            kernels.zigzag(bars.open, bars.close, config.threshold, config.min_move, y_T, t1_T)
    for array in (y_T, t1_T):
        array.flags.writeable = False
    return Labels(bars.symbol, bars.time, y_T, t1_T)


def _atr(bars: Bars, period: int) -> FloatArray:
    return np.ascontiguousarray(compute("atr", bars, period=period)["atr"], dtype=np.float64)
