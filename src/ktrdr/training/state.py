"""Everything that changes while fitting, in one object that can be written down and taken up again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from ktrdr.errors import InvalidInput
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.networks import Mlp, Weights
from ktrdr.snapshot import Snapshot
from ktrdr.strategies.document import TrainingConfig
from ktrdr.training.optimizers import FlatOptimizer
from ktrdr.training.schedule import LearningRate, Patience

__all__ = ["EpochResult", "FitState"]

_BEST = "best."


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One finished epoch. ``learning_rate`` is the one it used; ``improved`` says its weights are the best so far.

    Losses are weighted cross entropies as configured; ``train_loss`` is measured while the weights still move and
    under dropout, so it may lie above ``val_loss``.
    """

    epoch: int
    total_epochs: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    improved: bool


@dataclass(slots=True)
class FitState:
    """All that changes while fitting.

    ``batches_done`` of the epoch under way were run, with the summed loss ``loss_sum``; 0 between two epochs.
    ``epoch_shuffle`` is the state of ``shuffle`` before it drew the order of the epoch under way. Torch's own generator
    is not part of it: nothing here draws from it.
    """

    network: Mlp
    optimizer: FlatOptimizer
    learning_rate: LearningRate
    patience: Patience | None
    shuffle: np.random.Generator
    dropout: np.random.Generator
    best_value: float = math.inf
    best_epoch: int = 0
    best_weights: Weights = field(default_factory=dict)
    history: list[EpochResult] = field(default_factory=list)
    stopped_early: bool = False
    batches_done: int = 0
    loss_sum: float = 0.0
    epoch_shuffle: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def start(
        cls, architecture: MlpArchitecture, config: TrainingConfig, seed: int, device: torch.device
    ) -> FitState:
        """The state before the first epoch. One seed grows three independent streams: start, shuffle, dropout."""
        start, shuffle, dropout = (
            np.random.Generator(np.random.SFC64(stream)) for stream in np.random.SeedSequence(seed).spawn(3)
        )
        network = Mlp(architecture, start, device)
        return cls(
            network=network,
            optimizer=FlatOptimizer.of(config.optimizer, network.flat.data, network.gradient),
            learning_rate=LearningRate(config.optimizer.learning_rate, config.scheduler),
            patience=Patience.of(config.early_stopping),
            shuffle=shuffle,
            dropout=dropout,
        )

    def shuffle_state(self) -> dict[str, Any]:
        """The state of ``shuffle`` now."""
        return _state_of(self.shuffle)

    def snapshot(self) -> Snapshot:
        """What :meth:`restore` needs, taken at any yield of the fit loop; later steps do not change it."""
        rate, patience = self.learning_rate, self.patience
        shuffle = self.epoch_shuffle if self.batches_done else self.shuffle_state()
        values = {
            "steps": self.optimizer.steps,
            "learning_rate": [rate.value, rate.epochs, rate.plateau.best, rate.plateau.waited],
            "patience": None if patience is None else [patience.best, patience.waited],
            "shuffle": shuffle,
            "dropout": _state_of(self.dropout),
            "best": [self.best_value, self.best_epoch],
            "history": [list(asdict(result).values()) for result in self.history],
            "stopped_early": self.stopped_early,
            "batches_done": self.batches_done,
            "loss_sum": self.loss_sum,
        }
        vectors = {
            "weights": self.network.flat.data,
            "first": self.optimizer.first,
            "second": self.optimizer.second,
        }
        arrays = {name: vector.detach().cpu().numpy().copy() for name, vector in vectors.items()}
        return Snapshot(values, arrays | {_BEST + name: array for name, array in self.best_weights.items()})

    def restore(self, snapshot: Snapshot) -> None:
        """Become what ``snapshot`` was taken of; for a state of the same architecture and configuration.

        Raises
        ------
        InvalidInput
            If it is of another network; this state is then of no use any more.
        """
        values, arrays = snapshot.values, snapshot.arrays
        try:
            self._restore_vectors(snapshot)
            rate, patience = self.learning_rate, self.patience
            self.optimizer.steps = int(values["steps"])
            rate.value, rate.epochs, rate.plateau.best, rate.plateau.waited = values["learning_rate"]
            if patience is not None:
                patience.best, patience.waited = values["patience"]
            self.shuffle.bit_generator.state = _as_state(values["shuffle"])
            self.dropout.bit_generator.state = _as_state(values["dropout"])
            self.best_value, self.best_epoch = values["best"]
            self.best_weights = {
                name: arrays[_BEST + name]
                for name in self.network.architecture.parameter_shapes()
                if self.best_epoch
            }
            self.history = [EpochResult(*fields) for fields in values["history"]]
            self.stopped_early = bool(values["stopped_early"])
            self.batches_done, self.loss_sum = int(values["batches_done"]), float(values["loss_sum"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"The stored state of the training does not fit it: {error!r}.") from None

    def _restore_vectors(self, snapshot: Snapshot) -> None:
        targets = {
            "weights": self.network.flat.data,
            "first": self.optimizer.first,
            "second": self.optimizer.second,
        }
        for name, target in targets.items():
            array = snapshot.arrays[name]
            if array.shape != tuple(target.shape) or array.dtype != np.float32:
                raise ValueError(
                    f"{name}: {array.shape} of {array.dtype}, expected {tuple(target.shape)} of float32"
                )
            target.copy_(torch.from_numpy(array))


def _state_of(generator: np.random.Generator) -> dict[str, Any]:
    """A generator's state as JSON: arrays become lists of integers."""
    return {
        key: {name: [int(word) for word in words] for name, words in value.items()}
        if isinstance(value, dict)
        else value
        for key, value in generator.bit_generator.state.items()
    }


def _as_state(stored: Mapping[str, Any]) -> dict[str, Any]:
    words = {name: np.array(value, np.uint64) for name, value in stored["state"].items()}
    return {**stored, "state": words}
