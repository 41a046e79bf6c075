"""Volatility: average true range and Bollinger bands."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.indicators import ta
from ktrdr.indicators.spec import Columns, IndicatorSpec, Parameter, Params, decay_rows
from ktrdr.indicators.trend import period, source, wilder_pole

__all__ = ["ATR", "BOLLINGER"]

_BLOCK = 8_192  # rows whose temporaries stay in the processor's cache


def _atr(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    return (ta.ATR(columns.high, columns.low, columns.close, timeperiod=params["period"]),)


def _rolling_deviation(price_T: FloatArray, mean_T: FloatArray, bars: int) -> FloatArray:
    """Population standard deviation of each window around its mean, (T,); NaN before ``bars - 1``.

    TA-Lib before 0.8 takes the root of ``mean(x^2) - mean(x)^2``, which loses all digits where the deviation is
    small against the price, and calls everything below 1e-7 zero; so the squared deviations are added here.
    """
    deviation_T = np.full(len(price_T), np.nan)
    for first in range(bars - 1, len(price_T), _BLOCK):
        last = min(first + _BLOCK, len(price_T))
        mean = mean_T[first:last]
        total, step = np.zeros(last - first), np.empty(last - first)
        for back in range(bars):
            np.subtract(price_T[first - back : last - back], mean, out=step)
            np.multiply(step, step, out=step)
            np.add(total, step, out=total)
        total /= bars
        np.sqrt(total, out=deviation_T[first:last])
    return deviation_T


def _bollinger(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars, width = int(params["period"]), float(params["deviations"])
    price = columns.price(params["source"])
    middle = ta.SMA(price, bars)
    spread = width * _rolling_deviation(price, middle, bars)
    flat = ta.MAX(price, bars) == ta.MIN(price, bars)
    spread[flat] = 0.0
    middle[flat] = price[flat]
    upper, lower = middle + spread, middle - spread
    percent_b = np.where(np.isnan(spread), np.nan, 0.5)
    np.divide(price - lower, upper - lower, out=percent_b, where=upper > lower)
    return upper, middle, lower, percent_b, (upper - lower) / middle


ATR = IndicatorSpec(
    name="atr",
    title="Average true range",
    parameters=(period(14, minimum=1),),
    outputs=("atr",),
    function=_atr,
    lookback_rows=lambda p: int(p["period"]),
    unstable_rows=lambda p: decay_rows(wilder_pole(int(p["period"]))),
    origin="recursive",
    formula=(
        "Wilder's mean of TR = max(high, close[t-1]) - min(low, close[t-1]), seeded with the mean of TR[1..period]"
    ),
    flat="0",
    reference="Wilder, New Concepts in Technical Trading Systems (1978), section III",
)

BOLLINGER = IndicatorSpec(
    name="bollinger",
    title="Bollinger bands",
    parameters=(
        period(20),
        Parameter("deviations", "float", 2.0, 0.01, 100.0, doc="half width in standard deviations"),
        source(),
    ),
    outputs=("upper", "middle", "lower", "percent_b", "bandwidth"),
    function=_bollinger,
    lookback_rows=lambda p: int(p["period"]) - 1,
    formula=(
        "middle = SMA(period); upper, lower = middle +- deviations x population standard deviation; "
        "percent_b = (price - lower)/(upper - lower); bandwidth = (upper - lower)/middle"
    ),
    flat="upper = middle = lower = the price, percent_b 0.5, bandwidth 0",
    reference="Bollinger, Bollinger on Bollinger Bands (2001), ch. 7-8",
)
