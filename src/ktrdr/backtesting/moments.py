"""One pass over an equity curve and its benchmark for everything the statistics need.

Sums are shifted by the geometric mean return, which differs from the arithmetic mean by about half the
variance, so that one pass loses no digits; they run in a fixed number of lanes, so that the compiler may use
vector registers while the order of additions, and with it every bit of the result, stays the same everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ktrdr.backtesting.kernel import compiled
from ktrdr.bars import FloatArray

__all__ = ["Drawdown", "Moments", "drawdown_of", "moments_of"]

_LANES = 16
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Moments:
    """Of n returns r against n benchmark returns b; central moments are population means."""

    n: int
    mean: float
    m2: float
    m3: float
    m4: float
    benchmark_mean: float
    benchmark_m2: float
    covariance: float
    downside_m2: float
    gains: float
    shortfalls: float
    mean_equity: float


@dataclass(frozen=True, slots=True)
class Drawdown:
    """Deepest fall as a rate <= 0, longest time under water in bars, and the lowest equity."""

    depth: float
    duration_bars: int
    lowest: float


@compiled
def _sums(equity_T: Any, close_T: Any, shift: float, close_shift: float, minimum: float) -> Any:
    """(11, lanes) sums over all returns; see :func:`moments_of` for their order."""
    n = len(equity_T) - 1
    r, b, excess = np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    lanes = np.zeros((11, _LANES))
    s1, s2, s3, s4, b1, b2, rb = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6]
    below2, above, below, held = lanes[7], lanes[8], lanes[9], lanes[10]
    value = np.empty(_BLOCK)
    for start in range(0, n, _BLOCK):
        size = min(_BLOCK, n - start)
        now, past = equity_T[start + 1 : start + 1 + size], equity_T[start : start + size]
        close, before = close_T[start + 1 : start + 1 + size], close_T[start : start + size]
        for i in range(size):
            value[i] = now[i]
            simple = now[i] / past[i] - 1.0
            r[i] = simple - shift
            excess[i] = simple - minimum
        for i in range(size):
            b[i] = close[i] / before[i] - 1.0 - close_shift
        padded = -(-size // _LANES) * _LANES  # whole lanes; what is added counts 0 in every sum
        r[size:padded], b[size:padded], excess[size:padded], value[size:padded] = 0.0, 0.0, 0.0, 0.0
        for j in range(0, padded, _LANES):
            for i in range(_LANES):
                d, x, e = r[j + i], b[j + i], excess[j + i]
                q, g = d * d, min(e, 0.0)
                s1[i] += d
                s2[i] += q
                s3[i] += q * d
                s4[i] += q * q
                b1[i] += x
                b2[i] += x * x
                rb[i] += d * x
                below2[i] += g * g
                above[i] += e - g
                below[i] -= g
                held[i] += value[j + i]
    return lanes


@compiled
def _extremes(values: Any, highest: Any, lowest: Any) -> tuple[float, float]:
    """Highest and lowest of at least ``_LANES`` values; the last lanes may overlap the ones before."""
    size = len(values)
    for i in range(_LANES):
        highest[i], lowest[i] = values[i], values[i]
    for j in range(_LANES, size + _LANES - 1, _LANES):
        k = min(j, size - _LANES)
        for i in range(_LANES):
            value = values[k + i]
            highest[i] = value if value > highest[i] else highest[i]
            lowest[i] = value if value < lowest[i] else lowest[i]
    return highest.max(), lowest.min()


@compiled
def _drawdown(equity_T: Any) -> Any:
    """Depth, duration and lowest value; blocks without a new peak are looked at for their lowest value only."""
    peak, trough, lowest = equity_T[0], equity_T[0], equity_T[0]
    depth, since, longest = 0.0, 0, 0
    high_lanes, low_lanes = np.empty(_LANES), np.empty(_LANES)
    for start in range(1, len(equity_T), _BLOCK):
        block = equity_T[start : start + _BLOCK]
        if len(block) >= _LANES:
            highest, least = _extremes(block, high_lanes, low_lanes)
            if highest < peak:
                trough = min(trough, least)
                continue
        for i in range(len(block)):
            equity = block[i]
            if equity < peak:
                trough = min(trough, equity)
                continue
            if trough < peak:
                depth = min(depth, trough / peak - 1.0)
                longest = max(longest, start + i - since)
                lowest = min(lowest, trough)
            peak, trough, since = equity, equity, start + i
    if trough < peak:
        depth = min(depth, trough / peak - 1.0)
        longest = max(longest, len(equity_T) - 1 - since)
        lowest = min(lowest, trough)
    return depth, longest, lowest


def drawdown_of(equity_T: FloatArray) -> Drawdown:
    """Drawdown of an equity curve (T,), T >= 1, whose first value is positive."""
    depth, longest, lowest = _drawdown(equity_T)
    return Drawdown(float(depth), int(longest), float(lowest))


def moments_of(equity_T: FloatArray, close_T: FloatArray, minimum_per_bar: float) -> Moments:
    """Moments of the returns of ``equity_T`` and of ``close_T``, both (T,), positive, T >= 2."""
    n = len(equity_T) - 1
    shift = math.expm1(math.log(equity_T[-1] / equity_T[0]) / n)
    close_shift = math.expm1(math.log(close_T[-1] / close_T[0]) / n)
    lanes = _sums(equity_T, close_T, shift, close_shift, minimum_per_bar)
    s1, s2, s3, s4, b1, b2, rb, below2, above, below, held = (math.fsum(lane) / n for lane in lanes)
    return Moments(
        n=n,
        mean=shift + s1,
        m2=max(0.0, s2 - s1 * s1),
        m3=s3 - 3 * s1 * s2 + 2 * s1**3,
        m4=s4 - 4 * s1 * s3 + 6 * s1**2 * s2 - 3 * s1**4,
        benchmark_mean=close_shift + b1,
        benchmark_m2=max(0.0, b2 - b1 * b1),
        covariance=rb - s1 * b1,
        downside_m2=below2,
        gains=above * n,
        shortfalls=below * n,
        mean_equity=(held * n + float(equity_T[0])) / (n + 1),
    )
