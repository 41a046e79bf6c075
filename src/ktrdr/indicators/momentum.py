"""Momentum: oscillators that say how far the price has gone in its recent range."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.indicators import ta
from ktrdr.indicators.spec import Columns, IndicatorSpec, Params, decay_rows
from ktrdr.indicators.trend import period, source, wilder_pole

__all__ = ["CCI", "ROC", "RSI", "STOCHASTIC", "WILLIAMS_R"]


def _rsi(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    price = columns.price(params["source"])
    rsi = ta.RSI(price, timeperiod=params["period"])
    # TA-Lib writes 0 (deeply oversold) where nothing moved. A true 0 needs a fall and no rise since the origin.
    zero = np.flatnonzero(rsi == 0.0)
    if len(zero):
        move = np.diff(price, prepend=price[:1])
        risen, fallen = np.cumsum(move > 0.0) > 0, np.cumsum(move < 0.0) > 0
        rsi[zero[~(fallen & ~risen)[zero]]] = 50.0
    return (rsi,)


def _roc(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    return (ta.ROC(columns.price(params["source"]), timeperiod=params["period"]),)


def _cci(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars = int(params["period"])
    cci = ta.CCI(columns.high, columns.low, columns.close, timeperiod=bars)
    # In a flat window TA-Lib before 0.8 divides two rounding errors and gets +-66.7.
    typical = (columns.high + columns.low + columns.close) / 3.0
    cci[ta.MAX(typical, bars) == ta.MIN(typical, bars)] = 0.0
    return (cci,)


def _flat_range(columns: Columns, bars: int) -> np.ndarray:
    return ta.MAX(columns.high, bars) == ta.MIN(columns.low, bars)  # type: ignore[no-any-return]


def _stochastic(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars, smooth_k, smooth_d = (int(params[name]) for name in ("period", "smooth_k", "smooth_d"))
    raw, _ = ta.STOCHF(
        columns.high, columns.low, columns.close, fastk_period=bars, fastd_period=1, fastd_matype=0
    )
    raw[_flat_range(columns, bars)] = 50.0  # TA-Lib: 0, as if the close were at the low
    k = ta.MA(raw, timeperiod=smooth_k, matype=0)
    d = ta.MA(k, timeperiod=smooth_d, matype=0)
    k[np.isnan(d)] = np.nan
    return np.clip(k, 0.0, 100.0, out=k), np.clip(d, 0.0, 100.0, out=d)


def _williams_r(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars = int(params["period"])
    result = ta.WILLR(columns.high, columns.low, columns.close, timeperiod=bars)
    result[_flat_range(columns, bars)] = -50.0  # TA-Lib: 0, as if the close were at the high
    return (np.clip(result, -100.0, 0.0, out=result),)


RSI = IndicatorSpec(
    name="rsi",
    title="Relative strength index",
    parameters=(period(14), source()),
    outputs=("rsi",),
    function=_rsi,
    lookback_rows=lambda p: int(p["period"]),
    unstable_rows=lambda p: decay_rows(wilder_pole(int(p["period"]))),
    origin="recursive",
    bounds=(0.0, 100.0),
    formula=(
        "100 G/(G + L), G and L Wilder's means of rises and falls, seeded with the mean of the first period changes"
    ),
    flat="50 (TA-Lib: 0)",
    reference="Wilder, New Concepts in Technical Trading Systems (1978), section VI",
)

ROC = IndicatorSpec(
    name="roc",
    title="Rate of change",
    parameters=(period(10, minimum=1), source()),
    outputs=("roc",),
    function=_roc,
    lookback_rows=lambda p: int(p["period"]),
    formula="100 (price[t]/price[t-period] - 1), per cent",
    flat="0",
    reference="Murphy, Technical Analysis of the Financial Markets (1999), ch. 10",
)

CCI = IndicatorSpec(
    name="cci",
    title="Commodity channel index",
    parameters=(period(20),),
    outputs=("cci",),
    function=_cci,
    lookback_rows=lambda p: int(p["period"]) - 1,
    formula="(TP - mean(TP))/(0.015 mean|TP - mean(TP)|) over period bars, TP = (high + low + close)/3",
    flat="0",
    reference="Lambert, Commodities magazine, October 1980",
)

STOCHASTIC = IndicatorSpec(
    name="stochastic",
    title="Stochastic oscillator",
    parameters=(
        period(14, doc="bars of the range"),
        period(3, name="smooth_k", minimum=1, doc="bars of the mean that makes k; 1 = fast stochastic"),
        period(3, name="smooth_d", minimum=1, doc="bars of the mean of k that makes d"),
    ),
    outputs=("k", "d"),
    function=_stochastic,
    lookback_rows=lambda p: int(p["period"]) + int(p["smooth_k"]) + int(p["smooth_d"]) - 3,
    bounds=(0.0, 100.0),
    formula="raw = 100 (close - lowest low)/(highest high - lowest low); k = SMA(raw, smooth_k); d = SMA(k, smooth_d)",
    flat="50 (TA-Lib: 0)",
    reference="Lane, Technical Analysis of Stocks & Commodities, May 1984",
)

WILLIAMS_R = IndicatorSpec(
    name="williams_r",
    title="Williams %R",
    parameters=(period(14),),
    outputs=("williams_r",),
    function=_williams_r,
    lookback_rows=lambda p: int(p["period"]) - 1,
    bounds=(-100.0, 0.0),
    formula="-100 (highest high - close)/(highest high - lowest low) over period bars",
    flat="-50 (TA-Lib: 0)",
    reference="Williams, How I Made One Million Dollars (1973)",
)
