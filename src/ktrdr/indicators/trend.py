"""Trend: moving averages, MACD and Wilder's directional movement."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.errors import FieldError
from ktrdr.indicators import ta
from ktrdr.indicators.spec import PRICE_SOURCES, Columns, IndicatorSpec, Parameter, Params, decay_rows

__all__ = ["ADX", "EMA", "MACD", "SMA", "ema_pole", "period", "source", "wilder_pole"]


def period(default: int, *, name: str = "period", minimum: int = 2, doc: str = "bars") -> Parameter:
    """A whole number of bars; 10,000 at most."""
    return Parameter(name, "int", default, minimum, 10_000, doc=doc)


def source() -> Parameter:
    """The price an indicator of one series is taken of."""
    return Parameter(
        "source", "choice", "close", choices=PRICE_SOURCES, doc="price the indicator is taken of"
    )


def ema_pole(bars: int) -> float:
    """What an EMA of ``bars`` keeps of its last value in one step."""
    return (bars - 1) / (bars + 1)


def wilder_pole(bars: int) -> float:
    """What Wilder's smoothing of ``bars`` keeps of its last value in one step."""
    return (bars - 1) / bars


def _sma(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    return (ta.SMA(columns.price(params["source"]), timeperiod=params["period"]),)


def _ema(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    return (ta.EMA(columns.price(params["source"]), timeperiod=params["period"]),)


def _macd(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    macd, signal, histogram = ta.MACD(
        columns.price(params["source"]),
        fastperiod=params["fast"],
        slowperiod=params["slow"],
        signalperiod=params["signal"],
    )
    return macd, signal, histogram


def _fast_below_slow(params: Params) -> FieldError | None:
    if int(params["fast"]) < int(params["slow"]):
        return None
    return FieldError(
        "/fast", f"fast must be smaller than slow, seen fast {params['fast']} and slow {params['slow']}"
    )


def _adx(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars = int(params["period"])
    ohlc = (columns.high, columns.low, columns.close)
    outputs = (ta.ADX(*ohlc, bars), ta.PLUS_DI(*ohlc, bars), ta.MINUS_DI(*ohlc, bars))
    for output in outputs:
        np.clip(output, 0.0, 100.0, out=output)  # the ratio of two rounded sums may pass 100 by an ulp
    return outputs


SMA = IndicatorSpec(
    name="sma",
    title="Simple moving average",
    parameters=(period(20), source()),
    outputs=("sma",),
    function=_sma,
    lookback_rows=lambda p: int(p["period"]) - 1,
    formula="mean of the last period prices",
    flat="the price",
    reference="Murphy, Technical Analysis of the Financial Markets (1999), ch. 9",
)

EMA = IndicatorSpec(
    name="ema",
    title="Exponential moving average",
    parameters=(period(20), source()),
    outputs=("ema",),
    function=_ema,
    lookback_rows=lambda p: int(p["period"]) - 1,
    unstable_rows=lambda p: decay_rows(ema_pole(int(p["period"]))),
    origin="recursive",
    formula="ema[t] = ema[t-1] + 2/(period+1) (price[t] - ema[t-1]); seed: mean of the first period prices",
    flat="the price",
    reference="Murphy, Technical Analysis of the Financial Markets (1999), ch. 9",
)

MACD = IndicatorSpec(
    name="macd",
    title="Moving average convergence/divergence",
    parameters=(
        period(12, name="fast", doc="bars of the fast EMA, fewer than slow"),
        period(26, name="slow", doc="bars of the slow EMA"),
        period(9, name="signal", doc="bars of the signal EMA"),
        source(),
    ),
    outputs=("macd", "signal", "histogram"),
    function=_macd,
    lookback_rows=lambda p: int(p["slow"]) + int(p["signal"]) - 2,
    unstable_rows=lambda p: decay_rows(ema_pole(int(p["slow"])), ema_pole(int(p["signal"]))),
    constraint=_fast_below_slow,
    origin="recursive",
    formula=(
        "macd = EMA(fast) - EMA(slow); signal = EMA(macd, signal); histogram = macd - signal. Both price EMAs are "
        "seeded at row slow-1, each with the mean of its own last bars"
    ),
    flat="0",
    reference="Appel, Technical Analysis: Power Tools for Active Investors (2005), ch. 8",
)

ADX = IndicatorSpec(
    name="adx",
    title="Average directional index",
    parameters=(period(14),),
    outputs=("adx", "plus_di", "minus_di"),
    function=_adx,
    lookback_rows=lambda p: 2 * int(p["period"]) - 1,
    unstable_rows=lambda p: decay_rows(wilder_pole(int(p["period"])), wilder_pole(int(p["period"]))),
    origin="recursive",
    bounds=(0.0, 100.0),
    formula=(
        "Wilder sums S = S - S/period + x of +DM, -DM and true range (seed: the first period-1 bars); "
        "plus_di = 100 S(+DM)/S(TR); DX = 100 |plus_di - minus_di|/(plus_di + minus_di); adx = Wilder's mean of DX, "
        "seeded with the mean of its first period; a bar without direction leaves adx as it was"
    ),
    flat="0 in all outputs (no direction)",
    reference="Wilder, New Concepts in Technical Trading Systems (1978), section IV",
)
