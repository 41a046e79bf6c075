"""What changes between epochs: the learning rate, and whether to go on. Plain numbers, so that they can be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ktrdr.strategies.document import EarlyStopping, ReduceOnPlateau, SchedulerConfig, StepDecay

__all__ = ["LearningRate", "Patience"]


@dataclass(slots=True)
class Patience:
    """Counts epochs in a row without an improvement of more than ``min_delta``. Lower values are better."""

    limit: int
    min_delta: float = 0.0
    best: float = math.inf
    waited: int = 0

    def exhausted_by(self, value: float) -> bool:
        """Take in one epoch's value; True once ``limit`` epochs in a row did not improve."""
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.limit

    @classmethod
    def of(cls, config: EarlyStopping | None) -> Patience | None:
        """The early stopping that a strategy asks for, or None."""
        return None if config is None else cls(config.patience, config.min_delta)


@dataclass(slots=True)
class LearningRate:
    """The learning rate of the next epoch. ``reduce_on_plateau`` looks at the validation loss."""

    value: float
    config: SchedulerConfig | None = None
    epochs: int = 0
    plateau: Patience = field(init=False)

    def __post_init__(self) -> None:
        patience = self.config.patience if isinstance(self.config, ReduceOnPlateau) else 0
        self.plateau = Patience(max(1, patience))

    def after_epoch(self, val_loss: float) -> float:
        """Take in one epoch; returns the rate to use from now on."""
        self.epochs += 1
        match self.config:
            case StepDecay(step_epochs=step, factor=factor):
                if self.epochs % step == 0:
                    self.value *= factor
            case ReduceOnPlateau(factor=factor, min_learning_rate=floor):
                if self.plateau.exhausted_by(val_loss):
                    self.value = min(self.value, max(floor, self.value * factor))
                    self.plateau.waited = 0
            case None:
                pass
        return self.value
