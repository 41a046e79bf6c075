"""Membership functions: hand calculations and the laws all shapes keep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.fuzzy import SHAPES, MembershipFunction, membership, parse_membership
from reference.naive_membership import naive_grade

INF = math.inf

HAND = [
    # ascent of 20, descent of 15
    (membership("triangular", 0, 20, 35), {-1: 0, 0: 0, 5: 0.25, 20: 1, 23: 0.8, 35: 0, 36: 0}),
    (membership("triangular", -INF, 20, 35), {-1e9: 1, 20: 1, 23: 0.8, 35: 0, INF: 0, -INF: 1}),
    (membership("triangular", 65, 80, INF), {65: 0, 68: 0.2, 80: 1, 1e9: 1, INF: 1}),
    (membership("triangular", 0, 0, 50), {-0.001: 0, 0: 1, 25: 0.5, 50: 0}),
    (membership("triangular", 0, 50, 50), {25: 0.5, 50: 1, 50.001: 0}),
    (membership("trapezoidal", 0, 10, 20, 40), {0: 0, 4: 0.4, 10: 1, 15: 1, 20: 1, 25: 0.75, 40: 0}),
    (membership("trapezoidal", -INF, -INF, 20, 40), {-1e9: 1, 20: 1, 30: 0.5, 40: 0}),
    (membership("trapezoidal", 60, 80, INF, INF), {60: 0, 70: 0.5, 80: 1, 1e9: 1}),
    (membership("trapezoidal", 1, 1, 2, 2), {0.9: 0, 1: 1, 1.5: 1, 2: 1, 2.1: 0}),
    # exp(-1/2), exp(-2)
    (
        membership("gaussian", mean=10, sigma=2),
        {10: 1, 12: 0.6065306597126334, 8: 0.6065306597126334, 14: 0.1353352832366127, INF: 0},
    ),
    # 1/(1 + 2^4), 1/(1 + 1/2^4)
    (membership("bell", center=5, width=2, slope=2), {5: 1, 7: 0.5, 3: 0.5, 9: 1 / 17, 6: 16 / 17, INF: 0}),
    (membership("bell", center=0, width=1, slope=1), {0: 1, 1: 0.5, 3: 0.1}),
    # 1/(1 + e^-2)
    (membership("sigmoid", center=50, slope=0.2), {50: 0.5, 60: 0.8807970779778823, -INF: 0, INF: 1}),
    (membership("sigmoid", center=50, slope=-0.2), {50: 0.5, 40: 0.8807970779778823, INF: 0}),
    # 2 (1/4)^2, 1 - 2 (1/4)^2
    (membership("s_shape", 20, 40), {20: 0, 25: 0.125, 30: 0.5, 35: 0.875, 40: 1, 99: 1}),
    (membership("z_shape", 20, 40), {0: 1, 20: 1, 25: 0.875, 30: 0.5, 35: 0.125, 40: 0}),
    (
        membership("pi_shape", 0, 20, 30, 70),
        {0: 0, 5: 0.125, 10: 0.5, 20: 1, 25: 1, 40: 0.875, 60: 0.125, 70: 0},
    ),
    (membership("pi_shape", -INF, -INF, 30, 70), {-1e9: 1, 30: 1, 40: 0.875, 70: 0}),
]


@pytest.mark.parametrize(("mf", "grades"), HAND, ids=[str(mf) for mf, _ in HAND])
def test_by_hand(mf: MembershipFunction, grades: dict[float, float]) -> None:
    np.testing.assert_allclose(mf(list(grades)), list(grades.values()), rtol=1e-14, atol=1e-15)


def test_every_shape_has_a_hand_calculation() -> None:
    assert {mf.type for mf, _ in HAND} == set(SHAPES)


NUMBER = st.floats(-1e6, 1e6, allow_nan=False)


@st.composite
def shapes(draw: st.DrawFn) -> MembershipFunction:
    kind = draw(st.sampled_from(sorted(SHAPES)))
    count = len(SHAPES[kind])
    if kind in ("gaussian", "bell"):
        scales = draw(st.lists(st.floats(1e-3, 1e3), min_size=count - 1, max_size=count - 1))
        return membership(kind, draw(NUMBER), *[min(s, 20.0) if i else s for i, s in enumerate(scales)])
    if kind == "sigmoid":
        return membership(kind, draw(NUMBER), draw(st.floats(1e-3, 1e3)) * draw(st.sampled_from([-1, 1])))
    points = sorted(draw(st.lists(NUMBER, min_size=count, max_size=count, unique=True)))
    if kind not in ("s_shape", "z_shape"):
        side = draw(st.sampled_from(["closed", "left", "right", "steps"]))
        if side == "left":
            points[0] = -INF
        elif side == "right":
            points[-1] = INF
        elif side == "steps" and count == 4:
            points[0], points[-1] = points[1], points[2]
    return membership(kind, *points)


VALUES = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(mf=shapes(), values=VALUES)
def test_grades_are_in_bounds_and_nan_passes_through(mf: MembershipFunction, values: list[float]) -> None:
    grades = mf(values)
    assert (np.isnan(grades) == np.isnan(values)).all()
    known = grades[~np.isnan(grades)]
    assert ((known >= 0.0) & (known <= 1.0)).all()


@settings(max_examples=150, deadline=None)
@given(mf=shapes(), values=st.lists(st.floats(-2e6, 2e6), min_size=1, max_size=40))
def test_vectorised_equals_plain_python(mf: MembershipFunction, values: list[float]) -> None:
    expected = [naive_grade(mf, value) for value in values]
    np.testing.assert_allclose(mf(values), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(mf=shapes(), seed=st.integers(0, 1_000))
def test_one_top_and_monotone_sides(mf: MembershipFunction, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (np.clip(end, -2e6, 2e6) for end in mf.support)
    x = np.sort(rng.uniform(low - 1.0, high + 1.0, 200))
    steps = np.sign(np.diff(mf(x)))
    steps = steps[steps != 0.0]
    assert np.count_nonzero(np.diff(steps)) <= 1, "the grade rises, then falls"
    if len(steps) and np.count_nonzero(np.diff(steps)):
        assert steps[0] > 0.0 > steps[-1]


@settings(max_examples=60, deadline=None)
@given(mf=shapes(), seed=st.integers(0, 1_000), first=st.integers(0, 20_000), last=st.integers(0, 20_000))
def test_a_slice_gets_the_same_bits(mf: MembershipFunction, seed: int, first: int, last: int) -> None:
    low, high = (float(np.clip(end, -2e6, 2e6)) for end in mf.support)
    x = np.random.default_rng(seed).uniform(low - 1.0, high + 1.0, 20_000)
    assert mf(x[first:last]).tobytes() == mf(x)[first:last].tobytes()


@settings(max_examples=80, deadline=None)
@given(mf=shapes())
def test_support_is_where_the_grade_counts(mf: MembershipFunction) -> None:
    low, high = mf.support
    assert low < high
    reach = 0.01 + 1e-9 if mf.type in ("gaussian", "bell", "sigmoid") else 0.0
    if math.isfinite(low):
        assert mf(low - 1e-6 * max(1.0, abs(low))) <= reach
    if math.isfinite(high):
        assert mf(high + 1e-6 * max(1.0, abs(high))) <= reach


@settings(max_examples=80, deadline=None)
@given(mf=shapes())
def test_json_round_trip(mf: MembershipFunction) -> None:
    assert parse_membership(mf.to_json()) == mf


def test_shape_of_the_input_is_kept() -> None:
    mf = membership("triangular", 0, 1, 2)
    assert mf(0.5).shape == ()
    assert float(mf(0.5)) == 0.5
    assert mf([[0.5, 1.0, 3.0]]).tolist() == [[0.5, 1.0, 0.0]]
    assert mf([]).shape == (0,)
    assert mf(np.arange(6)[::2]).tolist() == [0.0, 0.0, 0.0]


def test_input_is_left_alone() -> None:
    x = np.array([0.5, np.nan])
    x.flags.writeable = False
    for mf, _ in HAND:
        mf(x)
    assert x[0] == 0.5
