"""Class scores by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ktrdr.training.evaluation import report_classes


def test_scores_of_five_rows_by_hand() -> None:
    y = np.array([0, 0, 1, 2, 2], np.int8)
    p = np.array(
        [[0.6, 0.2, 0.2], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32
    )
    report = report_classes(y, p, majority=2)
    assert report is not None
    assert report.confusion == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert report.accuracy == pytest.approx(0.6)
    assert report.recall == {"BUY": 0.5, "HOLD": 1.0, "SELL": 0.5}
    assert report.precision == {"BUY": 0.5, "HOLD": 0.5, "SELL": 1.0}
    assert report.balance == {"BUY": 2, "HOLD": 1, "SELL": 2}
    assert report.majority_accuracy == pytest.approx(0.4)
    by_hand = -sum(math.log(x) for x in (0.6, 0.1, 0.5, 0.1, 0.8)) / 5
    assert report.log_loss == pytest.approx(by_hand, rel=1e-6)


def test_a_class_that_does_not_occur_has_no_recall() -> None:
    report = report_classes(np.array([1, 1]), np.array([[0.1, 0.8, 0.1]] * 2, np.float32), majority=1)
    assert report is not None
    assert report.recall == {"BUY": None, "HOLD": 1.0, "SELL": None}
    assert report.precision == {"BUY": None, "HOLD": 1.0, "SELL": None}


def test_a_part_without_rows_has_no_report() -> None:
    assert report_classes(np.empty(0, np.int8), np.empty((0, 3), np.float32), majority=0) is None


def test_a_probability_of_zero_is_a_large_loss_and_not_an_infinite_one() -> None:
    report = report_classes(np.array([0]), np.array([[0.0, 1.0, 0.0]], np.float32), majority=0)
    assert report is not None
    assert math.isfinite(report.log_loss)
