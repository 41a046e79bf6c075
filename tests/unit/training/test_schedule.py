"""Learning rate and patience, by hand."""

from __future__ import annotations

import pytest

from ktrdr.strategies.document import EarlyStopping, ReduceOnPlateau, StepDecay
from ktrdr.training.schedule import LearningRate, Patience


def test_patience_ends_after_so_many_epochs_without_improvement() -> None:
    patience = Patience(2)
    assert [patience.exhausted_by(v) for v in (1.0, 0.9, 0.9, 0.8, 0.85, 0.81)] == [False] * 5 + [True]


def test_an_improvement_must_exceed_min_delta() -> None:
    patience = Patience(2, min_delta=0.1)
    assert [patience.exhausted_by(v) for v in (1.0, 0.95, 0.91)] == [False, False, True]
    patience = Patience(2, min_delta=0.1)
    assert [patience.exhausted_by(v) for v in (1.0, 0.95, 0.89, 0.9)] == [False] * 4


def test_no_early_stopping_is_no_patience() -> None:
    assert Patience.of(None) is None
    assert Patience.of(EarlyStopping(patience=3, min_delta=0.5)) == Patience(3, 0.5)


def test_a_constant_rate_stays() -> None:
    rate = LearningRate(0.1)
    assert [rate.after_epoch(1.0) for _ in range(3)] == [0.1] * 3


def test_step_decay_multiplies_after_every_so_many_epochs() -> None:
    rate = LearningRate(0.8, StepDecay(step_epochs=2, factor=0.5))
    assert [rate.after_epoch(1.0) for _ in range(5)] == [0.8, 0.4, 0.4, 0.2, 0.2]


def test_reduce_on_plateau_counts_epochs_without_a_lower_loss() -> None:
    rate = LearningRate(0.8, ReduceOnPlateau(patience=2, factor=0.5))
    losses = (1.0, 0.9, 0.95, 0.9, 0.91, 0.92, 0.5, 0.6)
    assert [rate.after_epoch(v) for v in losses] == [0.8, 0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.2]


def test_the_rate_never_falls_below_its_floor_nor_rises_to_it() -> None:
    rate = LearningRate(0.8, ReduceOnPlateau(patience=1, factor=0.1, min_learning_rate=0.3))
    assert [rate.after_epoch(1.0) for _ in range(3)] == [0.8, pytest.approx(0.3), pytest.approx(0.3)]
    low = LearningRate(0.1, ReduceOnPlateau(patience=1, factor=0.1, min_learning_rate=0.3))
    assert [low.after_epoch(1.0) for _ in range(3)] == [0.1] * 3
