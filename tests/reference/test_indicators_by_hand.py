"""Each indicator on a series short enough to compute on paper; the arithmetic stands beside each expectation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ktrdr.indicators import catalog, compute_arrays

NAN = math.nan

# Five bars: high, low, close, volume.
BARS = {
    "open": [10.0, 10.0, 11.0, 10.0, 13.0],
    "high": [11.0, 12.0, 13.0, 12.0, 15.0],
    "low": [9.0, 10.0, 10.0, 9.0, 12.0],
    "close": [10.0, 11.0, 12.0, 9.0, 15.0],
    "volume": [100.0, 200.0, 300.0, 400.0, 500.0],
}

HAND = [
    # means of 10 11 12, 11 12 9, 12 9 15
    ("sma", {"period": 3}, {"sma": [NAN, NAN, 11, 32 / 3, 12]}),
    # seed 11; + (9 - 11)/2 = 10; + (15 - 10)/2 = 12.5
    ("ema", {"period": 3}, {"ema": [NAN, NAN, 11, 10, 12.5]}),
    # EMA(2), alpha 2/3, seeded at row 2 with 11.5: 9 + 2.5/3 = 9.8333, 15 - 5.1667/3 = 13.2778; EMA(3): 11, 10, 12.5
    # macd 0.5, -0.1667, 0.7778; signal of 2: seed mean(0.5, -0.1667) = 0.1667, + 2/3 (0.7778 - 0.1667) = 0.5741
    (
        "macd",
        {"fast": 2, "slow": 3, "signal": 2},
        {
            "macd": [NAN, NAN, NAN, -1 / 6, 7 / 9],
            "signal": [NAN, NAN, NAN, 1 / 6, 31 / 54],
            "histogram": [NAN, NAN, NAN, -1 / 3, 11 / 54],
        },
    ),
    # changes 1 1 -3 6: G = 1, L = 0 -> 100; G = 1/2, L = 3/2 -> 25; G = 3.25, L = 0.75 -> 81.25
    ("rsi", {"period": 2}, {"rsi": [NAN, NAN, 100, 25, 81.25]}),
    # 12/10, 9/11, 15/12
    ("roc", {"period": 2}, {"roc": [NAN, NAN, 20, -200 / 11, 25]}),
    # typical prices 10, 11, 35/3, 10, 14. rows 0-2: mean 98/9, deviations 8/9 1/9 7/9 -> mean 16/27;
    # (7/9)/(0.015 x 16/27) = 87.5. rows 1-3: mean 98/9, the last deviates by -8/9 -> -100.
    # rows 2-4: mean 107/9, deviations 2/9 17/9 19/9 -> 38/27; (19/9)/(0.015 x 38/27) = 100
    ("cci", {"period": 3}, {"cci": [NAN, NAN, 87.5, -100, 100]}),
    # ranges of two bars: 9-12, 10-13, 9-13, 9-15; the close stands at 2/3, 2/3, 0, 1; means of two
    (
        "stochastic",
        {"period": 2, "smooth_k": 1, "smooth_d": 2},
        {"k": [NAN, NAN, 200 / 3, 0, 100], "d": [NAN, NAN, 200 / 3, 100 / 3, 50]},
    ),
    ("williams_r", {"period": 2}, {"williams_r": [NAN, -100 / 3, -100 / 3, -100, 0]}),
    # true ranges 2, 3, 3 (high 12, low 9, before 12), 6 (15 - 9); mean(2, 3) = 2.5, (2.5 + 3)/2, (2.75 + 6)/2
    ("atr", {"period": 2}, {"atr": [NAN, NAN, 2.5, 2.75, 4.375]}),
    # +DM 1 1 0 3, -DM 0 0 1 0, TR 2 3 3 6. Sums from row 1: 1, 0, 2; row 2: 1.5, 0, 4; row 3: 0.75, 1, 5;
    # row 4: 3.375, 0.5, 8.5. DX: 100, 100/7, 100 x 2.875/3.875. adx row 3: (100 + 100/7)/2
    (
        "adx",
        {"period": 2},
        {
            "adx": [NAN, NAN, NAN, 400 / 7, (400 / 7 + 100 * 2.875 / 3.875) / 2],
            "plus_di": [NAN, NAN, NAN, 15, 337.5 / 8.5],
            "minus_di": [NAN, NAN, NAN, 20, 50 / 8.5],
        },
    ),
    # closes 10 11: mean 10.5, deviation 0.5. 11 12: 11.5, 0.5. 12 9: 10.5, 1.5. 9 15: 12, 3. One deviation wide.
    (
        "bollinger",
        {"period": 2, "deviations": 1.0},
        {
            "upper": [NAN, 11, 12, 12, 15],
            "middle": [NAN, 10.5, 11.5, 10.5, 12],
            "lower": [NAN, 10, 11, 9, 9],
            "percent_b": [NAN, 1, 1, 0, 1],
            "bandwidth": [NAN, 1 / 10.5, 1 / 11.5, 3 / 10.5, 0.5],
        },
    ),
    ("obv", {}, {"obv": [100, 300, 600, 200, 700]}),
    # typical prices 10, 11, 35/3, 10, 14; flows 2200 up, 3500 up, 4000 down, 7000 up; sums of two
    ("mfi", {"period": 2}, {"mfi": [NAN, NAN, 100, 350 / 7.5, 700 / 11]}),
]


@pytest.mark.parametrize(("name", "params", "expected"), HAND, ids=[case[0] for case in HAND])
def test_by_hand(name: str, params: dict[str, float], expected: dict[str, list[float]]) -> None:
    found = compute_arrays(name, BARS, params)
    assert list(found) == list(expected)
    for output, values in expected.items():
        np.testing.assert_allclose(found[output], values, rtol=1e-12, atol=1e-12, err_msg=output)


def test_every_indicator_has_a_hand_calculation() -> None:
    assert {name for name, _, _ in HAND} == set(catalog())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open", 11.5),
        ("high", 13.5),
        ("low", 10.5),
        ("close", 12.0),
        ("hl2", 12.0),
        ("hlc3", 12.0),
        ("ohlc4", 11.875),
    ],
)
def test_source_of_price(source: str, expected: float) -> None:
    """Rows 3 and 4 by hand: hl2 10.5, 13.5; hlc3 10, 14; ohlc4 10, 13.75."""
    found = compute_arrays("sma", BARS, {"period": 2, "source": source})
    assert found["sma"][-1] == pytest.approx(expected, rel=1e-12)
