"""The one catalog of indicators and the one way to compute them; TA-Lib underneath.

TA-Lib returns finite wrong numbers after an inner NaN (RSI) or poisons the rest of the series (SMA, EMA, MACD),
so arrays that are not finite are refused here, before the call. Bars are finite by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ktrdr.bars import Bars, FloatArray
from ktrdr.errors import FieldError, InvalidInput, NotFound, nearest
from ktrdr.indicators.momentum import CCI, ROC, RSI, STOCHASTIC, WILLIAMS_R
from ktrdr.indicators.spec import Columns, IndicatorSpec, Params
from ktrdr.indicators.trend import ADX, EMA, MACD, SMA
from ktrdr.indicators.volatility import ATR, BOLLINGER
from ktrdr.indicators.volume import MFI, OBV

__all__ = ["catalog", "compute", "compute_arrays", "indicator"]

_ALL = (SMA, EMA, MACD, ADX, RSI, ROC, CCI, STOCHASTIC, WILLIAMS_R, ATR, BOLLINGER, OBV, MFI)
_CATALOG: Mapping[str, IndicatorSpec] = MappingProxyType({spec.name: spec for spec in _ALL})
_COLUMNS = ("open", "high", "low", "close", "volume")


def catalog() -> Mapping[str, IndicatorSpec]:
    """Every indicator by name; read-only."""
    return _CATALOG


def indicator(name: str) -> IndicatorSpec:
    """The catalog's entry.

    Raises
    ------
    NotFound
        If there is none; the message gives the nearest name and all of them.
    """
    try:
        return _CATALOG[name]
    except KeyError:
        raise NotFound(
            "indicator", name, valid=_CATALOG, hint=f"Known indicators: {', '.join(sorted(_CATALOG))}"
        ) from None


def compute(name: str, bars: Bars, **params: object) -> dict[str, FloatArray]:
    """Compute an indicator over all bars.

    The value at row t uses bars up to and including t, so it is known when bar t is known. Recursive indicators
    are seeded at the first bar given: pass the bars from the dataset's start and slice afterwards.

    Parameters
    ----------
    name
        A name of the catalog.
    bars
        T bars.
    **params
        The indicator's parameters; those not given have their defaults.

    Returns
    -------
    dict
        Output name -> (T,) float64, in the order of ``IndicatorSpec.outputs``. The first ``lookback`` rows are
        NaN, all others finite. Too few bars give NaN only.

    Raises
    ------
    NotFound
        If the name is unknown.
    InvalidInput
        If a parameter is unknown or out of range, or the indicator needs volume and the bars have none.
    """
    spec = indicator(name)
    values = spec.check(params)
    if spec.needs_volume and len(bars) and not bars.has_volume:
        raise InvalidInput(
            f"Indicator '{name}' needs volume, and the bars of {bars.symbol} {bars.timeframe} have none. "
            "Import data with a volume column or use another indicator."
        )
    return _outputs(spec, Columns.of(bars), values)


def compute_arrays(
    name: str, columns: Mapping[str, npt.ArrayLike], params: Mapping[str, object] | None = None
) -> dict[str, FloatArray]:
    """Compute an indicator over plain arrays; as :func:`compute`, for prices that are not bars.

    Parameters
    ----------
    columns
        Any of ``open high low close volume`` -> (T,) numbers. Those not given are taken from ``close``
        (``volume``: zero); ``close`` must be there.
    params
        The indicator's parameters.

    Raises
    ------
    InvalidInput
        If a value is NaN or infinite (the message names column and row; cut the series there and compute the
        parts one by one), the arrays differ in length, or a column has an unknown name.
    """
    spec = indicator(name)
    values = spec.check(params or {})
    arrays = {key: np.ascontiguousarray(value, dtype=np.float64) for key, value in columns.items()}
    faults = [
        FieldError(f"/{key}", f"no such column{nearest(key, _COLUMNS)}")
        for key in arrays
        if key not in _COLUMNS
    ]
    if "close" not in arrays:
        faults.append(FieldError("/close", "the close is needed"))
    if len({array.shape for array in arrays.values()}) > 1 or any(a.ndim != 1 for a in arrays.values()):
        faults.append(FieldError("", f"columns differ in shape: { {k: a.shape for k, a in arrays.items()} }"))
    for key, array in arrays.items():
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            row = np.unravel_index(bad[0], array.shape)[0]
            faults.append(
                FieldError(f"row {row}, column {key}", f"{array[row]} is not a number; {len(bad)} such rows")
            )
    if faults:
        raise InvalidInput(
            f"Indicator '{name}' cannot be computed on these arrays. Cut the series at missing values and compute "
            "each part alone.",
            faults,
        )
    close = arrays["close"]
    open_, high, low = (arrays.get(key, close) for key in ("open", "high", "low"))
    volume = arrays.get("volume", np.zeros_like(close))
    return _outputs(spec, Columns(open_, high, low, close, volume), values)


def _outputs(spec: IndicatorSpec, columns: Columns, values: Params) -> dict[str, FloatArray]:
    lookback = spec.lookback_rows(values)
    if len(columns.close) <= lookback:
        return {output: np.full(len(columns.close), np.nan) for output in spec.outputs}
    arrays = dict(zip(spec.outputs, spec.function(columns, values), strict=True))
    for (
        array
    ) in arrays.values():  # outputs start together (TA-Lib shows DI before ADX, and once left memory unset)
        array[:lookback] = np.nan
    return arrays
