"""Laws that hold for every indicator of the catalog."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.bars import Bars
from ktrdr.errors import InvalidInput
from ktrdr.indicators import catalog, compute, compute_arrays, indicator
from support.synthetic_bars import flat_bars, walk_bars

NAMES = sorted(catalog())
SHORT: dict[str, dict[str, object]] = {
    "macd": {"fast": 3, "slow": 6, "signal": 4},
    "stochastic": {"period": 4, "smooth_k": 2, "smooth_d": 2},
    "bollinger": {"period": 5, "source": "hlc3"},
    "obv": {},
}
FLAT = {
    "sma": {"sma": 1.1},
    "ema": {"ema": 1.1},
    "macd": {"macd": 0.0, "signal": 0.0, "histogram": 0.0},
    "rsi": {"rsi": 50.0},
    "roc": {"roc": 0.0},
    "cci": {"cci": 0.0},
    "stochastic": {"k": 50.0, "d": 50.0},
    "williams_r": {"williams_r": -50.0},
    "atr": {"atr": 0.0},
    "adx": {"adx": 0.0, "plus_di": 0.0, "minus_di": 0.0},
    "bollinger": {"upper": 1.1, "middle": 1.1, "lower": 1.1, "percent_b": 0.5, "bandwidth": 0.0},
    "obv": {"obv": 5.0},
    "mfi": {"mfi": 50.0},
}


def short(name: str) -> dict[str, object]:
    return SHORT.get(name, {"period": 4})


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 120))
def test_prefix_law(name: str, seed: int, cut: int) -> None:
    """With the same origin, fewer bars give the same bits."""
    bars = walk_bars(120, seed)
    whole, part = compute(name, bars, **short(name)), compute(name, bars[:cut], **short(name))
    for output in whole:
        assert part[output].tobytes() == whole[output][:cut].tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 2, 37, 300])
def test_nan_before_the_lookback_and_finite_from_there_on(name: str, rows: int) -> None:
    spec = indicator(name)
    lookback = spec.lookback({})
    outputs = compute(name, walk_bars(rows))
    assert tuple(outputs) == spec.outputs
    for values in outputs.values():
        assert values.dtype == np.float64
        assert values.shape == (rows,)
        assert np.isnan(values[:lookback]).all()
        assert np.isfinite(values[lookback:]).all()


@pytest.mark.parametrize("name", NAMES)
def test_values_stay_in_their_bounds(name: str) -> None:
    spec = indicator(name)
    for values in compute(name, walk_bars(2_000, seed=3), **short(name)).values():
        known = values[np.isfinite(values)]
        low, high = spec.bounds or (-np.inf, np.inf)
        assert known.min() >= low
        assert known.max() <= high


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", [0, 30, 79])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_missing_values_are_refused_by_row(name: str, row: int, bad: float) -> None:
    """TA-Lib would answer with finite wrong numbers after the gap, or with NaN for ever."""
    bars = walk_bars(80)
    columns = {c: getattr(bars, c).copy() for c in ("open", "high", "low", "close", "volume")}
    columns["close"][row] = bad
    with pytest.raises(InvalidInput, match=f"row {row}, column close"):
        compute_arrays(name, columns)


@pytest.mark.parametrize("name", NAMES)
def test_flat_series(name: str) -> None:
    """Where nothing moves the answer is the neutral one, never an extreme and never a ratio of rounding errors."""
    outputs = compute(name, flat_bars(300))
    for output, expected in FLAT[name].items():
        np.testing.assert_allclose(outputs[output][indicator(name).lookback({}) :], expected, atol=1e-12)


@pytest.mark.parametrize("name", ["cci", "stochastic", "williams_r", "mfi", "bollinger"])
@pytest.mark.parametrize("price", [1.1, 0.3, 4_321.7])
def test_flat_stretch_after_movement(name: str, price: float) -> None:
    """Windows that have become flat are neutral as well, whatever the running sums have left over."""
    moved, still = walk_bars(200, seed=5), flat_bars(100, price)
    columns = {
        c: np.r_[getattr(moved, c), getattr(still, c)] for c in ("open", "high", "low", "close", "volume")
    }
    outputs = compute_arrays(name, columns, short(name))
    expected = FLAT[name] | ({"upper": price, "middle": price, "lower": price} if name == "bollinger" else {})
    for output, value in expected.items():
        np.testing.assert_allclose(outputs[output][-20:], value, rtol=1e-12)


def test_rsi_of_a_pure_fall_is_zero_and_of_a_pure_rise_100() -> None:
    down = np.linspace(50.0, 10.0, 60)
    assert compute_arrays("rsi", {"close": down})["rsi"][-1] == 0.0
    assert compute_arrays("rsi", {"close": down[::-1]})["rsi"][-1] == 100.0


def test_rsi_after_a_long_standstill_is_not_oversold() -> None:
    """Gains and losses fade together, so their ratio stays (2:1); TA-Lib before 0.8 drops to 0, we then say 50."""
    close = np.r_[10.0, 11.0, 10.5, np.full(3_000, 10.5)]
    rsi = compute_arrays("rsi", {"close": close})["rsi"][-1]
    assert rsi == pytest.approx(200.0 / 3.0) or rsi == 50.0


def test_adx_keeps_its_value_through_bars_without_direction() -> None:
    """Rising, then flat for ever: the directional sums fade together, and their ratio stays."""
    close = np.r_[np.linspace(10.0, 20.0, 60), np.full(100, 20.0)]
    adx = compute_arrays("adx", {"close": close})["adx"]
    assert adx[59] == pytest.approx(100.0)
    assert adx[-1] == pytest.approx(100.0)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "obv"])
@pytest.mark.parametrize("seed", range(6))
def test_origin_is_forgotten_after_the_unstable_margin(name: str, seed: int) -> None:
    """Starting 300 bars later moves no later value by 1e-3 of the indicator's range."""
    bars, shift = walk_bars(1_200, seed), 300
    spec = indicator(name)
    first = spec.lookback({}) + spec.unstable({})
    early, late = compute(name, bars), compute(name, bars[shift:])
    for output in early:
        a, b = early[output][shift + first :], late[output][first:]
        extent = np.ptp(a) if spec.bounds is None else spec.bounds[1] - spec.bounds[0]
        assert np.max(np.abs(a - b)) < 1e-3 * extent
        if spec.origin == "window":
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * extent)


@pytest.mark.parametrize("name", [n for n in NAMES if catalog()[n].origin == "recursive"])
def test_the_margin_is_needed(name: str) -> None:
    """Without it the same shift is plainly visible, so the test above can fail."""
    spec = indicator(name)
    first, worst = spec.lookback({}), 0.0
    for seed in range(6):
        bars = walk_bars(600, seed)
        early, late = compute(name, bars)[spec.primary], compute(name, bars[300:])[spec.primary]
        extent = np.ptp(early[first:]) if spec.bounds is None else spec.bounds[1] - spec.bounds[0]
        worst = max(worst, abs(early[300 + first] - late[first]) / extent)
    assert worst > 1e-3


def test_obv_counts_from_its_origin_for_ever() -> None:
    bars = walk_bars(200)
    shift = compute("obv", bars)["obv"][50:] - compute("obv", bars[50:])["obv"]
    np.testing.assert_allclose(shift, shift[0], rtol=1e-9)
    assert shift[0] != 0.0
    assert indicator("obv").origin == "cumulative"


@pytest.mark.parametrize("name", ["obv", "mfi"])
def test_volume_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"'{name}' needs volume.*FLAT 1h have none"):
        compute(name, flat_bars(50, volume=0.0))


def test_inputs_are_left_alone() -> None:
    bars = walk_bars(100)
    before = bars.digest()
    for name in NAMES:
        compute(name, bars)
    assert bars.digest() == before


def test_a_slice_of_bars_is_a_series_of_its_own() -> None:
    bars = walk_bars(100)
    own = Bars(
        "SYNTH",
        bars.timeframe,
        *(getattr(bars, c)[20:] for c in ("time", "open", "high", "low", "close", "volume")),
    )
    for name in NAMES:
        for output, values in compute(name, bars[20:]).items():
            np.testing.assert_array_equal(values, compute(name, own)[output])
