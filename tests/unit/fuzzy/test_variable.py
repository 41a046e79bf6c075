"""Linguistic variables: order of labels, grades, holes in the coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktrdr.errors import InvalidInput
from ktrdr.fuzzy import LinguisticVariable, membership

LOW, MIDDLE, HIGH = (membership("triangular", *p) for p in ((0, 20, 35), (30, 50, 70), (65, 80, 100)))


def variable(**sets: object) -> LinguisticVariable:
    return LinguisticVariable("rsi", tuple(sets.items()))  # type: ignore[arg-type]


def test_memberships_are_columns_in_the_order_of_the_labels() -> None:
    v = variable(oversold=LOW, neutral=MIDDLE, overbought=HIGH)
    assert v.labels == ("oversold", "neutral", "overbought")
    grades = v.memberships([20.0, 32.0, math.nan])
    assert grades.shape == (3, 3)
    np.testing.assert_allclose(grades[:2], [[1, 0, 0], [0.2, 0.1, 0]])
    assert np.isnan(grades[2]).all()


@pytest.mark.parametrize(
    ("sets", "holes"),
    [
        ({"a": LOW, "b": MIDDLE, "c": HIGH}, ()),
        ({"a": LOW, "c": HIGH}, ((35.0, 65.0),)),
        ({"b": MIDDLE}, ((0.0, 30.0), (70.0, 100.0))),
        ({"b": membership("gaussian", mean=50, sigma=10)}, ((0.0, 19.651), (80.349, 100.0))),
        ({"b": membership("s_shape", 40, 60)}, ((0.0, 40.0),)),
        ({"b": membership("z_shape", 40, 60)}, ((60.0, 100.0),)),
        (
            {
                "b": membership("triangular", -math.inf, 10, 20),
                "c": membership("triangular", 20, 30, math.inf),
            },
            (),
        ),
        ({"b": membership("triangular", 200, 300, 400)}, ((0.0, 100.0),)),
        ({"b": membership("triangular", -40, -30, -20)}, ((0.0, 100.0),)),
        ({"wide": membership("triangular", 0, 50, 100), "inside": membership("triangular", 40, 50, 60)}, ()),
    ],
)
def test_coverage_holes_between_0_and_100(
    sets: dict[str, object], holes: tuple[tuple[float, float], ...]
) -> None:
    found = variable(**sets).coverage_holes(0.0, 100.0)
    assert len(found) == len(holes)
    for hole, expected in zip(found, holes, strict=True):
        assert hole == pytest.approx(expected, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=4))
def test_holes_are_exactly_where_all_grades_are_zero(places: list[tuple[int, int]]) -> None:
    v = variable(
        **{f"s{i}": membership("triangular", a, a + w / 2, a + w) for i, (a, w) in enumerate(places)}
    )
    x = np.arange(0.25, 100.0, 0.5)  # never on a corner
    in_hole = np.zeros(len(x), dtype=bool)
    for start, end in v.coverage_holes(0.0, 100.0):
        assert start < end
        in_hole |= (x > start) & (x < end)
    np.testing.assert_array_equal(in_hole, v.memberships(x).max(axis=1) == 0.0)


def test_range_must_have_a_length() -> None:
    with pytest.raises(InvalidInput, match="low < high, seen 5 and 5"):
        variable(a=LOW).coverage_holes(5, 5)


def test_faults() -> None:
    with pytest.raises(InvalidInput, match="at least one set"):
        LinguisticVariable("rsi", ())
    with pytest.raises(InvalidInput, match=r"'rsi' are not valid\n.*/low: this label is used twice"):
        LinguisticVariable("rsi", (("low", LOW), ("low", HIGH)))
    with pytest.raises(InvalidInput, match="a label is empty"):
        LinguisticVariable("rsi", (("", LOW),))


def test_json() -> None:
    assert variable(low=LOW).to_json() == {
        "name": "rsi",
        "sets": [["low", {"type": "triangular", "a": 0.0, "b": 20.0, "c": 35.0}]],
    }
