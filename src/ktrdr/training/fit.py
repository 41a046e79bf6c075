"""The fit loop: a generator of what happened, over one object that holds everything it would take to go on.

Shape suffixes: ``N`` = rows, ``F`` = features, ``C`` = classes.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ktrdr.clock import Clock, SystemClock
from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.networks import Mlp, Weights
from ktrdr.strategies.document import LossConfig, TrainingConfig
from ktrdr.training.device import DeviceChoice, reproducible
from ktrdr.training.state import EpochResult, FitState

__all__ = ["BatchDone", "EpochResult", "FitResult", "FitState", "Samples", "class_weights", "fit"]

Float32Array = npt.NDArray[np.float32]

_SILENCE_S = 0.1
"""A yield is due after this long; a quarter of a second is promised, one batch may come on top."""
_BLOCK_ROWS = 65_536


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Rows to learn from: features (N, F) float32 without NaN, and class indices (N,)."""

    x_NF: Float32Array
    y_N: npt.NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.y_N)


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A sign of life inside an epoch; ``epoch`` counts from 1, ``train_loss`` is the epoch's mean so far."""

    epoch: int
    total_epochs: int
    batch: int
    total_batches: int
    train_loss: float


@dataclass(frozen=True, slots=True)
class FitResult:
    """``weights`` are those of ``best_epoch``, ``last_weights`` those after the last epoch."""

    weights: Weights
    last_weights: Weights
    best_epoch: int
    stopped_early: bool
    history: tuple[EpochResult, ...]


def fit(
    train: Samples,
    validation: Samples,
    architecture: MlpArchitecture,
    config: TrainingConfig,
    *,
    seed: int | None = None,
    device: DeviceChoice | None = None,
    threads: int = 1,
    clock: Clock | None = None,
    state: FitState | None = None,
) -> Generator[BatchDone | EpochResult, None, FitResult]:
    """Fit a network and keep the weights of the best epoch.

    Parameters
    ----------
    train, validation
        Rows to fit and rows to judge by; scaled already.
    architecture, config
        The network and the ``training`` section of a strategy.
    seed
        Overrides ``config.seed``. With equal seed, threads and inputs the result is the same to the last bit on one
        CPU.
    device
        Where to compute; None is the CPU.
    threads
        Threads of torch while fitting. 1 is the fastest for networks of this size.
    clock
        Decides when a BatchDone is due; never what is computed.
    state
        Where to go on; it must be of this architecture, configuration and device. None starts with ``seed``. At
        every yield it is whole: ``state.snapshot()`` there, restored, leads to the same result, bit for bit.

    Yields
    ------
    BatchDone
        At least every 250 ms.
    EpochResult
        After every epoch. The best epoch is the one with the best monitored value (``early_stopping.monitor``,
        else the validation loss; the first of equals).

    Returns
    -------
    FitResult
        With the best weights as copies. The generator may be closed at any yield; nothing is left behind.

    Raises
    ------
    TooFewBars
        If either part has no rows.
    InvalidInput
        If the loss becomes NaN or infinite.
    """
    _require_rows(train, validation)
    device = device or DeviceChoice("cpu", "cpu")
    with reproducible(threads, device.used):
        state = state or FitState.start(
            architecture, config, config.seed if seed is None else seed, device.torch_device
        )
        return (yield from _fit_from(state, train, validation, config, clock or SystemClock()))


def _require_rows(train: Samples, validation: Samples) -> None:
    if not len(train) or not len(validation):
        raise TooFewBars(
            f"Fitting needs rows to train and to validate on; there are {len(train)} and {len(validation)}. "
            "Give more history or other shares of training.data_split."
        )


def _fit_from(
    state: FitState, train: Samples, validation: Samples, config: TrainingConfig, clock: Clock
) -> Generator[BatchDone | EpochResult, None, FitResult]:
    weight_C = class_weights(train.y_N, config.loss, state.network.architecture.outputs)
    data = _on_device(train, weight_C, state.network)
    checks = _on_device(validation, weight_C, state.network)
    while len(state.history) < config.epochs and not state.stopped_early:
        result = yield from _epoch(len(state.history) + 1, state, data, checks, config, clock)
        state.history.append(result)
        if state.patience is not None:
            state.stopped_early = state.patience.exhausted_by(_monitored(result, config))
        yield result
    last = state.network.weights()
    state.network.load_weights(state.best_weights)
    return FitResult(
        state.network.weights(), last, state.best_epoch, state.stopped_early, tuple(state.history)
    )


def _epoch(
    epoch: int,
    state: FitState,
    data: tuple[Tensor, Tensor],
    checks: tuple[Tensor, Tensor],
    config: TrainingConfig,
    clock: Clock,
) -> Generator[BatchDone, None, EpochResult]:
    rate = state.learning_rate.value
    train_loss = yield from _train_epoch(epoch, state, data, config, clock)
    val_loss, val_accuracy = evaluate(state.network, checks)
    if not math.isfinite(train_loss + val_loss):
        raise InvalidInput(
            f"Training diverged in epoch {epoch}: train_loss {train_loss}, val_loss {val_loss}. "
            f"Lower training.optimizer.learning_rate (now {rate:g}) or set training.gradient_clip."
        )
    result = EpochResult(epoch, config.epochs, train_loss, val_loss, val_accuracy, rate, improved=False)
    monitored = _monitored(result, config)
    if monitored < state.best_value:
        state.best_value, state.best_epoch = monitored, epoch
        state.best_weights = state.network.weights()
        result = EpochResult(epoch, config.epochs, train_loss, val_loss, val_accuracy, rate, improved=True)
    state.learning_rate.after_epoch(val_loss)
    return result


def _train_epoch(
    epoch: int, state: FitState, data: tuple[Tensor, Tensor], config: TrainingConfig, clock: Clock
) -> Generator[BatchDone, None, float]:
    """Mean loss over the rows. Rows are shuffled once and cut; a DataLoader costs many times the arithmetic here."""
    x_NF, target_NC = data
    rows = len(x_NF)
    state.epoch_shuffle = state.shuffle_state()
    order = torch.from_numpy(state.shuffle.permutation(rows)).to(x_NF.device)
    batches = _cut(x_NF[order], target_NC[order], config.batch_size)
    loss_sum = torch.full((), state.loss_sum, device=x_NF.device)
    done, due = state.batches_done, clock.monotonic() + _SILENCE_S
    while done < len(batches):
        done = _run_batches(state, batches, done, loss_sum, config.gradient_clip, clock, due)
        if done < len(batches):
            seen = min(rows, done * config.batch_size)
            state.batches_done, state.loss_sum = done, float(loss_sum)
            yield BatchDone(epoch, config.epochs, done, len(batches), float(loss_sum) / seen)
            due = clock.monotonic() + _SILENCE_S
    state.batches_done, state.loss_sum = 0, 0.0
    return float(loss_sum) / rows


@torch.no_grad()
def _run_batches(
    state: FitState,
    batches: list[tuple[Tensor, Tensor]],
    first: int,
    loss_sum: Tensor,
    clip: float | None,
    clock: Clock,
    due: float,
) -> int:
    """Optimizer steps from batch ``first`` on until ``due``; returns the next batch."""
    network, gradient, rate = state.network, state.network.gradient, state.learning_rate.value
    for number in range(first, len(batches)):
        x_BF, target_BC = batches[number]
        loss = network.backward(x_BF, target_BC, state.dropout)
        loss_sum.add_(loss, alpha=len(x_BF))
        if clip is not None:
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_(torch.clamp(clip / (norm + 1e-6), max=1.0))
        state.optimizer.step(rate)
        if clock.monotonic() >= due:
            return number + 1
    return len(batches)


@torch.no_grad()
def evaluate(network: Mlp, checks: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Loss and accuracy without dropout; rows in blocks, so that memory stays small."""
    loss = weight = hits = 0.0
    for x_BF, target_BC in _cut(*checks, _BLOCK_ROWS):
        logits_BC = network.logits(x_BF)
        loss -= float((functional.log_softmax(logits_BC, 1) * target_BC).sum(dtype=torch.float32))
        weight += float(target_BC.sum())
        hits += float((logits_BC.argmax(1) == target_BC.argmax(1)).sum())
    return loss / weight, hits / len(checks[0])


def _cut(x_NF: Tensor, target_NC: Tensor, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Views of ``rows`` rows each, the last one shorter."""
    return [(x_NF[i : i + rows], target_NC[i : i + rows]) for i in range(0, len(x_NF), rows)]


def class_weights(y_N: npt.NDArray[np.integer], config: LossConfig, classes: int) -> Float32Array:
    """Weight of each class: 1, or for ``balanced`` rows / (classes x count), at most ``max_class_weight``.

    A class that does not occur gets the largest weight; it has no rows to use it on.
    """
    if config.class_weights == "none":
        return np.ones(classes, np.float32)
    counts = np.bincount(y_N.astype(np.int64), minlength=classes)
    balanced = len(y_N) / (classes * np.maximum(counts, 1))
    return np.minimum(balanced, config.max_class_weight).astype(np.float32)


def _monitored(result: EpochResult, config: TrainingConfig) -> float:
    """The value that decides which epoch is best; lower is better."""
    stopping = config.early_stopping
    if stopping is not None and stopping.monitor == "val_accuracy":
        return -result.val_accuracy
    return result.val_loss


def _on_device(samples: Samples, weight_C: Float32Array, network: Mlp) -> tuple[Tensor, Tensor]:
    """Features, and one-hot classes times their weight."""
    device = network.flat.device
    x_NF = torch.from_numpy(np.ascontiguousarray(samples.x_NF, dtype=np.float32)).to(device)
    target_NC = np.eye(len(weight_C), dtype=np.float32)[samples.y_N.astype(np.int64)] * weight_C
    return x_NF, torch.from_numpy(target_NC).to(device)
