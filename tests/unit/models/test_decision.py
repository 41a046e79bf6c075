"""The decision rule: argmax, confidence, threshold; never a quiet HOLD."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ktrdr.errors import InvalidModel
from ktrdr.models.decision import ACTIONS, decide


def p(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_the_winning_class_becomes_the_signal() -> None:
    answer = decide(p((0.5, 0.3, 0.2), (0.2, 0.5, 0.3), (0.1, 0.2, 0.7)))
    assert answer.signal_T.tolist() == [1, 0, -1]
    assert answer.signal_T.dtype == np.int8
    np.testing.assert_allclose(answer.confidence_T, [0.5, 0.5, 0.7], rtol=1e-6)


def test_below_the_threshold_nothing_is_signalled_and_at_it_something_is() -> None:
    rows = p((0.5, 0.3, 0.2), (0.499, 0.301, 0.2), (0.1, 0.3, 0.6))
    assert decide(rows, threshold=0.5).signal_T.tolist() == [1, 0, -1]


@pytest.mark.parametrize("row", [(0.4, 0.4, 0.2), (0.4, 0.2, 0.4), (0.2, 0.4, 0.4), (1 / 3, 1 / 3, 1 / 3)])
def test_a_tie_is_nobodys_win(row: tuple[float, float, float]) -> None:
    assert decide(p(row)).signal_T.tolist() == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_no_number_stops_the_run(bad: float) -> None:
    with pytest.raises(InvalidModel, match="at row 1 of 2"):
        decide(p((0.5, 0.3, 0.2), (0.5, bad, 0.2)))


def test_rows_without_features_are_not_looked_at() -> None:
    answer = decide(p((np.nan,) * 3, (0.9, 0.05, 0.05)), valid_T=np.array([False, True]))
    assert answer.signal_T.tolist() == [0, 1]
    assert np.isnan(answer.confidence_T[0])
    answer = decide(p((0.9, 0.05, 0.05)), valid_T=np.array([False]))
    assert answer.signal_T.tolist() == [0]


def test_other_numbers_of_classes_are_refused() -> None:
    with pytest.raises(InvalidModel, match="3 class probabilities"):
        decide(np.ones((4, 2), np.float32))


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 30), st.just(3)), elements=st.floats(0, 1, width=32)),
    st.floats(0, 1),
)
def test_the_rule_is_the_naive_one(rows: np.ndarray, threshold: float) -> None:
    expected = []
    for row in rows:
        winners = np.flatnonzero(row == row.max())
        sure = len(winners) == 1 and row.max() >= np.float32(threshold)
        expected.append((1, 0, -1)[winners[0]] if sure else 0)
    assert decide(rows, threshold=threshold).signal_T.tolist() == expected


def test_every_signal_has_a_word() -> None:
    assert [ACTIONS[s] for s in (1, 0, -1)] == ["BUY", "HOLD", "SELL"]
