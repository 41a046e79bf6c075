"""Scaling: fitted on the rows given, exact in JSON, refused where it does not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ktrdr.datasets.scaling import Kind, Scaler
from ktrdr.errors import InvalidInput

KINDS: tuple[Kind, ...] = ("none", "zscore", "minmax")
TRAIN = np.array([[1.0, 1.0, 10.0], [2.0, 3.0, 30.0], [3.0, 5.0, 20.0], [4.0, 7.0, 50.0]], dtype=np.float32)


def test_by_hand() -> None:
    """Mean 4 and population deviation sqrt((9 + 1 + 1 + 9)/4) = sqrt(5); minimum 10 and range 40."""
    scaler = Scaler.fit(TRAIN, KINDS)
    assert scaler.shift == (0.0, 4.0, 10.0)
    assert scaler.scale == pytest.approx((1.0, 5.0**0.5, 40.0))
    scaled = scaler.apply(np.array([[9.0, 4.0 + 5.0**0.5, 70.0]], dtype=np.float32))
    np.testing.assert_allclose(scaled, [[9.0, 1.0, 1.5]], rtol=1e-6)


def test_rows_outside_the_training_rows_do_not_matter() -> None:
    later = np.vstack([TRAIN, np.full((1, 3), 1e6, dtype=np.float32)])
    assert Scaler.fit(later[:4], KINDS) == Scaler.fit(TRAIN, KINDS) != Scaler.fit(later, KINDS)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_a_constant_column_becomes_zero(value: float) -> None:
    constant = np.full((7, 3), value, dtype=np.float32)
    scaler = Scaler.fit(constant, KINDS)
    assert scaler.scale == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(scaler.apply(constant)[:, 1:], 0.0, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (6, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_json_round_trip_keeps_every_bit(raw: np.ndarray) -> None:
    scaler = Scaler.fit(raw, KINDS)
    again = Scaler.from_json(json.loads(json.dumps(scaler.to_json())))
    assert again == scaler
    assert again.apply(raw).tobytes() == scaler.apply(raw).tobytes()


def test_nan_rows_stay_nan_and_the_input_is_left_alone() -> None:
    raw = TRAIN.copy()
    raw[0] = np.nan
    scaled = Scaler.fit(TRAIN, KINDS).apply(raw)
    assert np.isnan(scaled[0]).all()
    assert np.isfinite(scaled[1:]).all()
    assert raw[1, 1] == 3.0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (TRAIN[:, :2], r"rows of 3 features, seen shape \(4, 2\)"),
        (TRAIN[0], r"seen shape \(3,\)"),
        (TRAIN[:0], "at least one training row"),
        (np.where(TRAIN == 5.0, np.nan, TRAIN), "row 2, column 1 is nan"),
        (np.where(TRAIN == 30.0, np.inf, TRAIN), "row 1, column 2 is inf"),
    ],
)
def test_fit_refuses(raw: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Scaler.fit(raw, KINDS)


def test_apply_refuses_another_width() -> None:
    with pytest.raises(InvalidInput, match="fitted to 3 features"):
        Scaler.fit(TRAIN, KINDS).apply(TRAIN[:, :2])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"kinds": ["none"], "shift": [0.0]}, "/scale: is missing"),
        (
            {"kinds": ["zscor"], "shift": [0.0], "scale": [1.0]},
            "/kinds/0: 'zscor' is no normalization; did you mean",
        ),
        ({"kinds": ["none"], "shift": [0.0, 1.0], "scale": [1.0]}, "equally long, seen 1, 2 and 1"),
        ({"kinds": ["none"], "shift": [float("nan")], "scale": [1.0]}, "/shift/0: must be finite, seen nan"),
        ({"kinds": ["none"], "shift": [0.0], "scale": [0.0]}, "/scale/0: must be finite and > 0, seen 0.0"),
        ({"kinds": ["none"], "shift": ["x"], "scale": [1.0]}, "could not convert"),
        ({"kinds": ["none"], "shift": 3, "scale": [1.0]}, "not iterable"),
    ],
)
def test_from_json_refuses(value: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Scaler.from_json(value)
