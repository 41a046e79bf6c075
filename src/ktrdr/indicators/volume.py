"""Volume: on-balance volume and the money flow index."""

from __future__ import annotations

import numpy as np

from ktrdr.bars import FloatArray
from ktrdr.indicators import ta
from ktrdr.indicators.spec import Columns, IndicatorSpec, Params
from ktrdr.indicators.trend import period

__all__ = ["MFI", "OBV"]

# TA-Lib before 0.8 answers 0 where a window's money flow is below 1.0, which it always is for small volumes. The
# index does not depend on the unit of volume, and a power of two changes no digit.
_VOLUME_UNIT = 2.0**60


def _obv(columns: Columns, _: Params) -> tuple[FloatArray, ...]:
    return (ta.OBV(columns.close, columns.volume),)


def _mfi(columns: Columns, params: Params) -> tuple[FloatArray, ...]:
    bars = int(params["period"])
    mfi = ta.MFI(columns.high, columns.low, columns.close, columns.volume * _VOLUME_UNIT, timeperiod=bars)
    typical = (columns.high + columns.low + columns.close) / 3.0
    flows = np.cumsum((np.diff(typical, prepend=typical[:1]) != 0.0) & (columns.volume > 0.0))
    still = np.zeros(len(mfi), dtype=bool)
    still[bars:] = flows[bars:] == flows[: len(flows) - bars]
    mfi[still] = 50.0  # TA-Lib: 0, or a ratio of rounding errors left in its running sums
    return (np.clip(mfi, 0.0, 100.0, out=mfi),)


OBV = IndicatorSpec(
    name="obv",
    title="On-balance volume",
    parameters=(),
    outputs=("obv",),
    function=_obv,
    lookback_rows=lambda _: 0,
    origin="cumulative",
    needs_volume=True,
    formula="obv[0] = volume[0]; + volume[t] if close[t] > close[t-1], - volume[t] if below, unchanged if equal",
    flat="the first bar's volume",
    reference="Granville, New Key to Stock Market Profits (1963)",
)

MFI = IndicatorSpec(
    name="mfi",
    title="Money flow index",
    parameters=(period(14),),
    outputs=("mfi",),
    function=_mfi,
    lookback_rows=lambda p: int(p["period"]),
    needs_volume=True,
    bounds=(0.0, 100.0),
    formula=(
        "100 P/(P + N), P and N the sums over period bars of TP x volume where TP rose and fell, "
        "TP = (high + low + close)/3"
    ),
    flat="50, also where nothing was traded (TA-Lib: 0)",
    reference="Quong and Soudack, Technical Analysis of Stocks & Commodities, March 1989",
)
