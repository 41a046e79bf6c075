"""Names, parameters and their errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ktrdr.errors import InvalidInput, NotFound
from ktrdr.indicators import IndicatorSpec, Parameter, catalog, compute, compute_arrays, indicator
from ktrdr.indicators.spec import decay_rows
from support.synthetic_bars import walk_bars


def test_the_catalog_is_complete_and_read_only() -> None:
    names = [
        "rsi",
        "ema",
        "sma",
        "macd",
        "atr",
        "bollinger",
        "stochastic",
        "adx",
        "cci",
        "roc",
        "williams_r",
        "obv",
        "mfi",
    ]
    assert set(names) <= set(catalog())
    with pytest.raises(TypeError):
        catalog()["x"] = indicator("rsi")  # type: ignore[index]


@pytest.mark.parametrize("spec", catalog().values(), ids=str)
def test_every_entry_says_what_it_must(spec: IndicatorSpec) -> None:
    assert catalog()[spec.name] is spec
    assert spec.title
    assert spec.formula
    assert spec.flat
    assert spec.reference
    assert spec.primary == spec.outputs[0]
    if len(spec.outputs) == 1:
        assert spec.outputs == (spec.name,)
    assert not spec.repaints
    assert spec.check({}) == {p.name: p.default for p in spec.parameters}
    assert (spec.unstable({}) > 0) == (spec.origin == "recursive")


def test_unknown_indicator_names_the_nearest() -> None:
    with pytest.raises(
        NotFound, match=r"No indicator named 'stochastics'; did you mean 'stochastic'.*williams_r"
    ):
        compute("stochastics", walk_bars(10))


@pytest.mark.parametrize(
    ("name", "params", "pointer", "words"),
    [
        ("rsi", {"perod": 14}, "/perod", "did you mean 'period'"),
        ("rsi", {"period": 1}, "/period", "1 is not accepted; give a whole number from 2 to 10000"),
        ("rsi", {"period": 10_001}, "/period", "10001 is not accepted"),
        ("rsi", {"period": 14.5}, "/period", "14.5 is not accepted"),
        ("rsi", {"period": True}, "/period", "True is not accepted"),
        ("rsi", {"period": "14"}, "/period", "'14' is not accepted"),
        ("rsi", {"period": None}, "/period", "None is not accepted"),
        ("rsi", {"period": float("nan")}, "/period", "nan is not accepted"),
        (
            "rsi",
            {"source": "closes"},
            "/source",
            "'closes' is not accepted; give one of open, high, low, close",
        ),
        ("rsi", {"source": 3}, "/source", "3 is not accepted"),
        ("bollinger", {"deviations": 0}, "/deviations", "give a number from 0.01 to 100"),
        (
            "macd",
            {"fast": 26, "slow": 26},
            "/fast",
            "fast must be smaller than slow, seen fast 26 and slow 26",
        ),
        ("obv", {"period": 3}, "/period", "it takes none"),
    ],
)
def test_wrong_parameters(name: str, params: dict[str, object], pointer: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=f"indicator '{name}'") as caught:
        indicator(name).check(params)
    assert [e.pointer for e in caught.value.errors] == [pointer]
    assert words in caught.value.errors[0].message


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        compute("macd", walk_bars(10), fast=0, slow="x", sgnal=9)
    assert [e.pointer for e in caught.value.errors] == ["/sgnal", "/fast", "/slow"]


def test_numbers_are_read_into_their_type() -> None:
    assert indicator("bollinger").check({"period": np.int64(10), "deviations": 2}) == {
        "period": 10,
        "deviations": 2.0,
        "source": "close",
    }
    assert indicator("rsi").check({"period": 14.0})["period"] == 14
    assert isinstance(indicator("rsi").check({"period": 14.0})["period"], int)


def test_a_parameter_says_what_it_accepts() -> None:
    assert Parameter("n", "int", 2, 1, 9).accepted == "a whole number from 1 to 9"
    assert Parameter("x", "float", 2.0, 0, 1).accepted == "a number from 0 to 1"
    assert Parameter("w", "choice", "a", choices=("a", "b")).accepted == "one of a, b"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"closes": [1.0]}, "no such column; did you mean 'close'"),
        ({"high": [1.0]}, "the close is needed"),
        ({"close": [1.0, 2.0], "high": [1.0]}, "differ in shape"),
        ({"close": [[1.0], [2.0]]}, "differ in shape"),
        ({"close": [1.0, float("nan")]}, "row 1, column close: nan"),
    ],
)
def test_arrays_that_cannot_be_used(columns: dict[str, list[float]], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        compute_arrays("sma", columns)


def test_arrays_and_bars_agree() -> None:
    bars = walk_bars(80)
    columns = {c: getattr(bars, c) for c in ("open", "high", "low", "close", "volume")}
    for name in catalog():
        for output, values in compute(name, bars).items():
            np.testing.assert_array_equal(values, compute_arrays(name, columns)[output])


@pytest.mark.parametrize(
    ("poles", "rows"),
    [
        ((0.5,), 10),  # 2^-10 < 1e-3 <= 2^-9
        ((0.9,), 66),  # 0.9^66 = 9.55e-4, 0.9^65 = 1.06e-3
        ((0.5, 0.5), 13),  # second stage (1 + n/2)/2^n: 7.5/8192 = 9.2e-4 at 13, 7/4096 = 1.7e-3 at 12
    ],
)
def test_decay_by_hand(poles: tuple[float, ...], rows: int) -> None:
    assert decay_rows(*poles) == rows


def test_checking_parameters_loads_neither_talib_nor_numba() -> None:
    code = (
        "import sys; from ktrdr.indicators import indicator; indicator('rsi').lookback({});"
        "assert not {'talib', 'pandas', 'polars', 'numba'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_talib_names_that_do_not_exist() -> None:
    from ktrdr.indicators import ta

    with pytest.raises(AttributeError):
        ta.NO_SUCH_FUNCTION  # noqa: B018
    with pytest.raises(AttributeError):
        ta._private  # noqa: B018
