"""A training that was interrupted and goes on gives the bits of one that was not, wherever it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ktrdr.errors import InvalidInput
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.snapshot import Snapshot, pack, unpack
from ktrdr.strategies.document import (
    EarlyStopping,
    ForwardReturnLabels,
    OptimizerConfig,
    ReduceOnPlateau,
    StepDecay,
    TrainingConfig,
)
from ktrdr.testing.clock import FakeClock
from ktrdr.training.fit import BatchDone, EpochResult, FitResult, Samples, fit
from ktrdr.training.state import FitState

ARCHITECTURE = MlpArchitecture(inputs=3, hidden_layers=(8, 4), dropout=0.25)
PLAIN = TrainingConfig(
    ForwardReturnLabels(), epochs=4, batch_size=64, optimizer=OptimizerConfig(learning_rate=0.02), seed=3
)
CONFIGS = {
    "adam": PLAIN,
    "adamw, clip": replace(PLAIN, optimizer=OptimizerConfig("adamw", 0.02, 1e-3), gradient_clip=0.1),
    "sgd with momentum, steps": replace(
        PLAIN, optimizer=OptimizerConfig("sgd", 0.1, 0.0, 0.9), scheduler=StepDecay(1, 0.5)
    ),
    "plateau": replace(PLAIN, scheduler=ReduceOnPlateau(patience=1, factor=0.5)),
    "early stopping": replace(PLAIN, epochs=30, early_stopping=EarlyStopping(patience=2, min_delta=10.0)),
}


def samples(rows: int, seed: int) -> Samples:
    random = np.random.default_rng(seed)
    x = random.random((rows, 3), dtype=np.float32)
    return Samples(x, np.where(x[:, 0] > 0.66, 0, np.where(x[:, 1] > 0.5, 1, 2)).astype(np.int8))


TRAIN, VALIDATION = samples(300, 1), samples(100, 2)


class EveryBatch(FakeClock):
    """Every look at it makes a sign of life due."""

    def monotonic(self) -> float:
        self.advance(1.0)
        return super().monotonic()


def new_state(config: TrainingConfig) -> FitState:
    return FitState.start(ARCHITECTURE, config, config.seed, torch.device("cpu"))


def events(config: TrainingConfig, state: FitState) -> Iterator[BatchDone | EpochResult | FitResult]:
    """What the loop yields, a word for each batch, and last what it returns."""
    loop = fit(TRAIN, VALIDATION, ARCHITECTURE, config, clock=EveryBatch(), state=state)
    while True:
        try:
            yield next(loop)
        except StopIteration as end:
            yield end.value
            return


@pytest.mark.parametrize("name", list(CONFIGS))
def test_from_every_yield_the_rest_is_the_same_to_the_last_bit(name: str) -> None:
    config = CONFIGS[name]
    state, whole, stops = new_state(config), [], []
    for event in events(config, state):
        whole.append(event)
        stops.append(pack(state.snapshot()))  # written down at once: later steps must not change it
    assert any(isinstance(event, BatchDone) for event in whole)
    for place, stored in enumerate(stops[:-1]):
        resumed = new_state(config)
        resumed.restore(unpack(stored))
        rest = list(events(config, resumed))
        assert rest[:-1] == whole[place + 1 : -1], f"resumed after event {place}, {whole[place]}"
        one, other = rest[-1], whole[-1]
        assert isinstance(one, FitResult)
        assert isinstance(other, FitResult)
        assert replace(one, weights={}, last_weights={}) == replace(other, weights={}, last_weights={})
        for weights, expected in ((one.weights, other.weights), (one.last_weights, other.last_weights)):
            assert all(weights[key].tobytes() == expected[key].tobytes() for key in expected)


def test_only_the_epochs_that_are_left_are_run() -> None:
    state = new_state(PLAIN)
    loop = events(PLAIN, state)
    while not (isinstance(event := next(loop), EpochResult) and event.epoch == 3):
        pass
    resumed = new_state(PLAIN)
    resumed.restore(state.snapshot())
    assert [event.epoch for event in events(PLAIN, resumed) if isinstance(event, EpochResult)] == [4]


def test_a_training_that_had_ended_runs_nothing_again() -> None:
    config = CONFIGS["early stopping"]
    state = new_state(config)
    end = list(events(config, state))[-2]
    assert isinstance(end, EpochResult)
    assert end.epoch < config.epochs
    again = new_state(config)
    again.restore(state.snapshot())
    (result,) = events(config, again)
    assert isinstance(result, FitResult)
    assert result.stopped_early


@pytest.mark.parametrize("fault", ["another network", "a value is missing", "another kind of number"])
def test_the_state_of_another_training_is_refused(fault: str) -> None:
    snapshot = new_state(PLAIN).snapshot()
    values, arrays = dict(snapshot.values), dict(snapshot.arrays)
    if fault == "another network":
        arrays["weights"] = arrays["weights"][:-1]
    elif fault == "a value is missing":
        del values["dropout"]
    else:
        arrays["first"] = arrays["first"].astype(np.float64)
    with pytest.raises(InvalidInput, match="does not fit"):
        new_state(PLAIN).restore(Snapshot(values, arrays))
