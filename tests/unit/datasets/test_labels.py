"""The face of the labels: shapes, counts, matching by stamp. What they mean is tested in tests/reference."""

from __future__ import annotations

import numpy as np
import pytest

from ktrdr.bars import Bars
from ktrdr.datasets.labels import CLASSES, Labels, make_labels
from ktrdr.errors import InvalidInput
from ktrdr.models.architecture import CLASSES as MODEL_CLASSES
from ktrdr.strategies.document import ForwardReturnLabels, TripleBarrierLabels, ZigzagLabels
from ktrdr.timeframe import Timeframe

HOUR = 3_600_000_000


def bars(rows: int = 60) -> Bars:
    price = 100 + 10 * np.sin(np.arange(rows) / 4)
    return Bars(
        "EURUSD",
        Timeframe.H1,
        np.arange(rows) * HOUR,
        price,
        price + 1,
        price - 1,
        price,
        np.ones(rows),
    )


def test_class_order_is_the_models():
    assert CLASSES == ("BUY", "HOLD", "SELL") == tuple(MODEL_CLASSES)


@pytest.mark.parametrize("config", [ForwardReturnLabels(), TripleBarrierLabels(), ZigzagLabels()])
def test_what_is_not_complete_is_marked_everywhere(config):
    labels = make_labels(config, bars())
    assert labels.symbol == "EURUSD"
    assert len(labels) == 60
    assert labels.y_T.dtype == np.int8
    assert labels.t1_T.dtype == np.int64
    assert 0 < labels.complete_T.sum() < 60
    np.testing.assert_array_equal(labels.complete_T, labels.y_T >= 0)
    np.testing.assert_array_equal(labels.complete_T, labels.end_time_T >= 0)
    rows = np.flatnonzero(labels.complete_T)
    assert (labels.t1_T[rows] > rows).all()
    np.testing.assert_array_equal(labels.end_time_T[rows], labels.t1_T[rows] * HOUR)
    assert sum(labels.counts().values()) == len(rows)


def test_counts_are_by_class_name():
    labels = Labels("X", np.arange(5), np.array([0, 0, 2, 1, -1], np.int8), np.array([1, 2, 3, 4, -1]))
    assert labels.counts() == {"BUY": 2, "HOLD": 1, "SELL": 1}


def test_labels_cannot_be_changed():
    labels = make_labels(ForwardReturnLabels(), bars())
    with pytest.raises(ValueError, match="read-only"):
        labels.y_T[0] = 2


def test_rows_are_found_by_stamp():
    labels = make_labels(ForwardReturnLabels(), bars())
    assert labels.rows_at(np.array([7, 3, 59]) * HOUR).tolist() == [7, 3, 59]
    assert labels.rows_at(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("stamp", [-HOUR, 5 * HOUR + 1, 60 * HOUR])
def test_a_stamp_that_is_no_bar_is_refused(stamp):
    labels = make_labels(ForwardReturnLabels(), bars())
    with pytest.raises(InvalidInput, match=rf"EURUSD has no bar stamped {stamp}"):
        labels.rows_at(np.array([HOUR, stamp]))


def test_no_bars_have_no_labels():
    labels = make_labels(ZigzagLabels(), bars(0))
    assert len(labels) == 0
    assert labels.end_time_T.tolist() == []
    with pytest.raises(InvalidInput):
        labels.rows_at(np.array([0]))
