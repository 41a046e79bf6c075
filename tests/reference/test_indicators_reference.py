"""Every indicator at every bar against two outside references: TA-Lib called directly, and the naive definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib

from ktrdr.bars import Bars, FloatArray
from ktrdr.indicators import catalog, compute, compute_arrays
from reference.naive_indicators import NAIVE, Candles
from support.synthetic_bars import walk_bars

#: Two parameter sets for each: the defaults and something short and odd.
SETTINGS: dict[str, list[dict[str, float]]] = {
    "sma": [{}, {"period": 3}],
    "ema": [{}, {"period": 3}],
    "macd": [{}, {"fast": 3, "slow": 7, "signal": 2}],
    "rsi": [{}, {"period": 2}],
    "roc": [{}, {"period": 1}],
    "cci": [{}, {"period": 5}],
    "stochastic": [{}, {"period": 5, "smooth_k": 1, "smooth_d": 4}],
    "williams_r": [{}, {"period": 2}],
    "atr": [{}, {"period": 1}],
    "adx": [{}, {"period": 3}],
    "bollinger": [{}, {"period": 5, "deviations": 1.5}],
    "obv": [{}],
    "mfi": [{}, {"period": 3}],
}
CASES = [
    pytest.param(n, p, id=f"{n}-{'-'.join(map(str, p.values()))}") for n, ps in SETTINGS.items() for p in ps
]


def _directly(name: str, b: Bars, p: dict[str, float]) -> dict[str, FloatArray]:
    """TA-Lib's own answer, with nothing of ours in between."""
    hlc = (b.high, b.low, b.close)
    n = int(p.get("period", catalog()[name].check({}).get("period", 0)))
    calls: dict[str, Callable[[], tuple[FloatArray, ...]]] = {
        "sma": lambda: (talib.SMA(b.close, n),),
        "ema": lambda: (talib.EMA(b.close, n),),
        "macd": lambda: talib.MACD(b.close, p.get("fast", 12), p.get("slow", 26), p.get("signal", 9)),
        "rsi": lambda: (talib.RSI(b.close, n),),
        "roc": lambda: (talib.ROC(b.close, n),),
        "cci": lambda: (talib.CCI(*hlc, n),),
        "stochastic": lambda: talib.STOCH(*hlc, n, p.get("smooth_k", 3), 0, p.get("smooth_d", 3), 0),
        "williams_r": lambda: (talib.WILLR(*hlc, n),),
        "atr": lambda: (talib.ATR(*hlc, n),),
        "adx": lambda: (talib.ADX(*hlc, n), talib.PLUS_DI(*hlc, n), talib.MINUS_DI(*hlc, n)),
        "bollinger": lambda: talib.BBANDS(b.close, n, p.get("deviations", 2.0), p.get("deviations", 2.0)),
        "obv": lambda: (talib.OBV(b.close, b.volume),),
        "mfi": lambda: (talib.MFI(*hlc, b.volume, n),),
    }
    return dict(zip(catalog()[name].outputs, calls[name](), strict=False))


def test_every_indicator_of_the_catalog_is_referenced() -> None:
    assert set(SETTINGS) == set(catalog()) == set(NAIVE)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_equals_talib_at_every_bar(name: str, params: dict[str, float]) -> None:
    bars = walk_bars(600, seed=11)
    spec = catalog()[name]
    ours = compute(name, bars, **params)
    theirs = _directly(name, bars, params)
    for output, expected in theirs.items():
        expected[: spec.lookback(params)] = (
            np.nan
        )  # DI waits for ADX: outputs of one indicator start together
        np.testing.assert_allclose(ours[output], expected, rtol=1e-9, atol=1e-9, err_msg=output)


@pytest.mark.parametrize(("name", "params"), CASES)
def test_equals_the_naive_definition_at_every_bar(name: str, params: dict[str, float]) -> None:
    bars = walk_bars(400, seed=12)
    candles = Candles(*(getattr(bars, c).tolist() for c in ("open", "high", "low", "close", "volume")))
    ours, naive = compute(name, bars, **params), NAIVE[name](candles, **params)
    assert list(ours) == list(naive)
    for output, expected in naive.items():
        np.testing.assert_allclose(ours[output], expected, rtol=1e-8, atol=1e-8, err_msg=output)


def _rescaled(bars: Bars, price: float, volume: float) -> Bars:
    prices = (getattr(bars, c) * price for c in ("open", "high", "low", "close"))
    return Bars("SCALED", bars.timeframe, bars.time, *prices, bars.volume * volume)


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**20])
def test_bollinger_does_not_depend_on_the_unit_of_price(scale: float) -> None:
    """TA-Lib before 0.8 calls the deviation of a token priced 1e-7 zero."""
    bars = walk_bars(60, seed=13)
    ours, scaled = compute("bollinger", bars), compute("bollinger", _rescaled(bars, scale, 1.0))
    np.testing.assert_allclose(scaled["upper"], ours["upper"] * scale, rtol=1e-12)
    np.testing.assert_allclose(scaled["percent_b"], ours["percent_b"], rtol=1e-12)


def test_bollinger_keeps_its_digits_at_a_high_level_with_small_movements() -> None:
    """TA-Lib before 0.8 subtracts two nearly equal squares here and is wrong by a factor of 30."""
    close = 1e6 + np.random.default_rng(5).normal(0.0, 1e-3, 500)
    found = compute_arrays("bollinger", {"close": close})
    exact = np.lib.stride_tricks.sliding_window_view(close - 1e6, 20).std(axis=1)
    np.testing.assert_allclose((found["upper"] - found["lower"])[19:] / 4.0, exact, rtol=1e-6)


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_mfi_does_not_depend_on_the_unit_of_volume(scale: float) -> None:
    """TA-Lib before 0.8 answers 0 for a window whose money flow is below 1."""
    bars = walk_bars(60, seed=14)
    np.testing.assert_array_equal(
        compute("mfi", _rescaled(bars, 1.0, scale))["mfi"], compute("mfi", bars)["mfi"]
    )
