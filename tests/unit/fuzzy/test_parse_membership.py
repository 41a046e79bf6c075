"""What strategy documents may write for a membership function, and what they are told otherwise."""

from __future__ import annotations

import math

import pytest

from ktrdr.errors import InvalidInput
from ktrdr.fuzzy import Gaussian, SShape, Trapezoidal, Triangular, ZShape, membership, parse_membership


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ([0, 20, 35], Triangular(0, 20, 35)),
        ((0, 20, 35, 40), Trapezoidal(0, 20, 35, 40)),
        (["-inf", 20, 35], Triangular(-math.inf, 20, 35)),
        ([0, 20, ".inf"], Triangular(0, 20, math.inf)),
        ([0, 20, float("inf")], Triangular(0, 20, math.inf)),
        ({"type": "gaussian", "mean": 0.001, "sigma": 0.0005}, Gaussian(0.001, 0.0005)),
        ({"type": "gaussian", "points": [1, 2]}, Gaussian(1, 2)),
        ({"type": "z_shape", "points": [20, 40]}, ZShape(20, 40)),
        ({"type": "s_shape", "a": 20, "b": 40}, SShape(20, 40)),
        ({"type": "triangular", "c": 3, "b": 2, "a": 1}, Triangular(1, 2, 3)),
    ],
)
def test_accepted(written: object, meant: object) -> None:
    assert parse_membership(written) == meant


def test_builder() -> None:
    assert (
        membership("triangular", 0, 20, 35)
        == membership("triangular", a=0, b=20, c=35)
        == Triangular(0, 20, 35)
    )
    assert membership("gaussian", mean=1, sigma=2) == Gaussian(1.0, 2.0)


@pytest.mark.parametrize(
    ("written", "pointer", "words"),
    [
        ([35, 20, 0], "/points", "must not decrease (a <= b <= c) nor all be equal, seen [35, 20, 0]"),
        ([5, 5, 5], "/points", "nor all be equal"),
        ([0, 3, 2, 4], "/points", "(a <= b <= c <= d)"),
        ([1, 2], "", "give 3 points (triangular) or 4 (trapezoidal), seen 2: [1, 2]"),
        (["a", 1, 2], "/a", "'a' is not a number"),
        ([True, 1, 2], "/a", "'True' is not a number"),
        ([None, 1, 2], "/a", "'None' is not a number"),
        ([float("nan"), 1, 2], "/a", "nan is not a number"),
        (["-inf", 0, "inf"], "/points", "open on both sides contains everything"),
        (["-inf", "-inf", 3], "/points", "top must lie at finite points"),
        ([0, "inf", "inf", "inf"], "/points", "top must lie at finite points"),
        ([-1.7e308, 1.7e308, "inf"], "/points", "too far apart"),
        ("triangle", "", "give a list of 3 or 4 points or a mapping with a type, seen 'triangle'"),
        (5, "", "seen 5"),
        ({"a": 1}, "/type", "the type is missing; accepted: triangular, trapezoidal"),
        ({"type": "gausian"}, "/type", "unknown type 'gausian'; did you mean 'gaussian'?"),
        ({"type": "gaussian", "mean": 0, "sigma": 0}, "/sigma", "must be greater than 0, seen 0"),
        ({"type": "gaussian", "mean": 0, "sigma": -1}, "/sigma", "must be greater than 0, seen -1"),
        ({"type": "gaussian", "mean": "inf", "sigma": 1}, "/mean", "must be finite, seen inf"),
        ({"type": "gaussian", "mean": 0}, "/sigma", "gaussian needs 'sigma'"),
        ({"type": "bell", "center": 0, "width": 0, "slope": 1}, "/width", "must be greater than 0"),
        ({"type": "bell", "center": 0, "width": 1, "slope": -2}, "/slope", "must be greater than 0"),
        ({"type": "sigmoid", "center": 0, "slope": 0}, "/slope", "must not be 0"),
        (
            {"type": "z_shape", "points": [1, 2, 3]},
            "/points",
            "z_shape takes 2 numbers (a, b), seen [1, 2, 3]",
        ),
        ({"type": "z_shape", "points": "12"}, "/points", "z_shape takes 2 numbers (a, b), seen '12'"),
        ({"type": "z_shape", "points": [2, 1]}, "/points", "must not decrease (a <= b)"),
        ({"type": "s_shape", "a": "-inf", "b": 1}, "/points", "both points must be finite"),
        ({"type": "s_shape", "a": -1e308, "b": 1e308}, "/points", "too far apart"),
    ],
)
def test_refused(written: object, pointer: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_membership(written)
    assert [e.pointer for e in caught.value.errors] == [pointer]
    assert words in caught.value.errors[0].message


def test_misspelt_numbers_name_the_nearest_and_what_is_missing() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_membership({"type": "gaussian", "mean": 0, "sigm": 1})
    assert [(e.pointer, e.message) for e in caught.value.errors] == [
        ("/sigm", "gaussian has no 'sigm'; did you mean 'sigma'? (accepted: mean, sigma)"),
        ("/sigma", "gaussian needs 'sigma'"),
    ]


def test_infinities_are_words_in_json() -> None:
    assert membership("triangular", -math.inf, 0, 1).to_json() == {
        "type": "triangular",
        "a": "-inf",
        "b": 0.0,
        "c": 1.0,
    }


def test_a_bell_too_wide_for_numbers_covers_everything() -> None:
    assert membership("bell", center=0, width=1, slope=0.001).support == (-math.inf, math.inf)
