"""The fit loop: learns, stops, restores, repeats itself, and can be left at any yield."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from ktrdr.errors import InvalidInput, TooFewBars
from ktrdr.models.architecture import MlpArchitecture
from ktrdr.models.networks import Mlp
from ktrdr.strategies.document import (
    EarlyStopping,
    ForwardReturnLabels,
    LossConfig,
    OptimizerConfig,
    ReduceOnPlateau,
    StepDecay,
    TrainingConfig,
)
from ktrdr.training.device import choose_device
from ktrdr.training.fit import BatchDone, EpochResult, FitResult, Samples, class_weights, evaluate, fit

ARCHITECTURE = MlpArchitecture(inputs=3, hidden_layers=(8,))
CONFIG = TrainingConfig(
    ForwardReturnLabels(), epochs=6, batch_size=64, optimizer=OptimizerConfig(learning_rate=0.01), seed=3
)


def samples(rows: int, seed: int, noise: float = 0.0) -> Samples:
    random = np.random.default_rng(seed)
    x = random.random((rows, 3), dtype=np.float32)
    y = np.where(x[:, 0] > 0.66, 0, np.where(x[:, 0] > 0.33, 1, 2))
    flipped = random.random(rows) < noise
    return Samples(x, np.where(flipped, random.integers(0, 3, rows), y).astype(np.int8))


TRAIN, VALIDATION = samples(1000, 1), samples(300, 2)


class FakeClock:
    """Each look at it costs ``tick`` seconds."""

    def __init__(self, tick: float) -> None:
        self.time, self.tick = 0.0, tick

    def now(self) -> datetime:
        return datetime(2020, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        self.time += self.tick
        return self.time


def run(
    train: Samples = TRAIN,
    config: TrainingConfig = CONFIG,
    architecture: MlpArchitecture = ARCHITECTURE,
    validation: Samples = VALIDATION,
    **kwargs: object,
) -> tuple[list[BatchDone | EpochResult], FitResult]:
    events, loop = [], fit(train, validation, architecture, config, **kwargs)
    while True:
        try:
            events.append(next(loop))
        except StopIteration as end:
            return events, end.value


def same(a: FitResult, b: FitResult) -> bool:
    return a.history == b.history and all(np.array_equal(a.weights[n], b.weights[n]) for n in a.weights)


def test_it_learns_a_rule_it_can_learn() -> None:
    _, result = run(config=replace(CONFIG, epochs=40))
    assert result.history[0].val_accuracy < 0.7
    assert result.history[-1].val_accuracy > 0.95
    assert result.history[-1].train_loss < result.history[0].train_loss / 2


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_every_optimizer_lowers_the_loss(kind: str) -> None:
    rate = 0.1 if kind == "sgd" else 0.01
    _, result = run(config=replace(CONFIG, optimizer=OptimizerConfig(kind, rate, 1e-4)))
    assert result.history[-1].val_loss < 0.8 * result.history[0].val_loss


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    dropout = ARCHITECTURE.model_copy(update={"dropout": 0.3})
    one, again, other = (run(architecture=dropout, seed=seed)[1] for seed in (5, 5, 6))
    assert same(one, again)
    assert not same(one, other)
    assert same(run(seed=None)[1], run(seed=CONFIG.seed)[1])


def test_the_yields_do_not_change_what_is_computed() -> None:
    quiet, quiet_result = run(clock=FakeClock(0.0))
    loud, loud_result = run(clock=FakeClock(1.0))
    assert same(quiet_result, loud_result)
    assert not any(isinstance(event, BatchDone) for event in quiet)
    batches = [event for event in loud if isinstance(event, BatchDone)]
    assert len(batches) == 6 * (16 - 1)
    assert [b.batch for b in batches[:3]] == [1, 2, 3]
    assert batches[0].total_batches == 16
    assert batches[-1].train_loss == pytest.approx(quiet_result.history[-1].train_loss, rel=0.5)


def test_a_sign_of_life_is_due_within_a_quarter_of_a_second() -> None:
    events, _ = run(clock=FakeClock(0.03))
    inside = [event.batch for event in events if isinstance(event, BatchDone) and event.epoch == 1]
    assert inside[0] * 0.03 <= 0.25
    assert max(np.diff(inside)) * 0.03 <= 0.25


def test_every_epoch_is_reported_in_order() -> None:
    events, result = run()
    epochs = [event for event in events if isinstance(event, EpochResult)]
    assert tuple(epochs) == result.history
    assert [e.epoch for e in epochs] == [1, 2, 3, 4, 5, 6]
    assert {e.total_epochs for e in epochs} == {6}
    assert not result.stopped_early


NOISY = samples(200, 1, noise=0.9)
OVERFIT = replace(CONFIG, epochs=80, batch_size=16, optimizer=OptimizerConfig(learning_rate=0.05))


def test_the_best_weights_are_kept_and_differ_from_the_last() -> None:
    wide = MlpArchitecture(inputs=3, hidden_layers=(32, 32))
    checks = samples(200, 9, noise=0.9)
    _, result = run(NOISY, OVERFIT, wide, checks)
    losses = [e.val_loss for e in result.history]
    assert result.best_epoch == int(np.argmin(losses)) + 1 < len(losses)
    assert any(not np.array_equal(result.weights[n], result.last_weights[n]) for n in result.weights)
    assert loss_of(wide, result.weights, checks) == pytest.approx(min(losses), rel=1e-6)
    assert loss_of(wide, result.last_weights, checks) == pytest.approx(losses[-1], rel=1e-6)


def loss_of(architecture: MlpArchitecture, weights: dict[str, np.ndarray], checks: Samples) -> float:
    network = Mlp(architecture, np.random.default_rng(0))
    network.load_weights(weights)
    target = torch.from_numpy(np.eye(3, dtype=np.float32)[checks.y_N])
    return evaluate(network, (torch.from_numpy(checks.x_NF), target))[0]


def test_early_stopping_stops_and_keeps_the_best() -> None:
    config = replace(OVERFIT, early_stopping=EarlyStopping(patience=4))
    _, result = run(
        NOISY, config, MlpArchitecture(inputs=3, hidden_layers=(32, 32)), samples(200, 9, noise=0.9)
    )
    assert result.stopped_early
    assert len(result.history) == result.best_epoch + 4 < 80


def test_accuracy_can_be_monitored() -> None:
    config = replace(OVERFIT, early_stopping=EarlyStopping(monitor="val_accuracy", patience=5))
    _, result = run(NOISY, config, validation=samples(200, 9, noise=0.9))
    accuracies = [e.val_accuracy for e in result.history]
    assert result.best_epoch == int(np.argmax(accuracies)) + 1
    assert len(accuracies) == result.best_epoch + 5
    assert [e.improved for e in result.history].index(True) == 0


def test_the_scheduler_sets_the_rate_of_the_next_epoch() -> None:
    config = replace(CONFIG, scheduler=StepDecay(step_epochs=2, factor=0.1))
    rates = [e.learning_rate for e in run(config=config)[1].history]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    _, constant = run()
    assert not same(run(config=config)[1], constant)


def test_reduce_on_plateau_reacts_to_the_validation_loss() -> None:
    config = replace(OVERFIT, epochs=30, scheduler=ReduceOnPlateau(patience=2, factor=0.5))
    _, result = run(NOISY, config, validation=samples(200, 9, noise=0.9))
    assert result.history[-1].learning_rate < 0.05


def test_the_gradient_clip_changes_the_steps() -> None:
    sgd = replace(CONFIG, optimizer=OptimizerConfig("sgd", 0.1, 0.0, 0.0), epochs=1, batch_size=1000)
    _, free = run(config=sgd)
    _, clipped = run(config=replace(sgd, gradient_clip=0.01))
    start = Mlp(ARCHITECTURE, np.random.Generator(np.random.SFC64(np.random.SeedSequence(3).spawn(3)[0])))
    moved = [
        np.sqrt(sum(np.sum((r.weights[n] - w) ** 2) for n, w in start.weights().items()))
        for r in (free, clipped)
    ]
    assert moved[1] == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert moved[0] > 3 * moved[1]


def test_balanced_class_weights_are_inverse_frequencies_under_a_cap() -> None:
    y = np.array([0] * 60 + [1] * 39 + [2])
    assert class_weights(y, LossConfig(), 3).tolist() == [1, 1, 1]
    balanced = class_weights(y, LossConfig(class_weights="balanced", max_class_weight=10), 3)
    np.testing.assert_allclose(balanced, [100 / 180, 100 / 117, 10], rtol=1e-6)
    absent = class_weights(np.array([0, 1]), LossConfig(class_weights="balanced", max_class_weight=4), 3)
    assert np.isfinite(absent).all()


def test_balanced_weights_raise_the_recall_of_a_rare_class() -> None:
    random = np.random.default_rng(5)
    x = random.normal(size=(3000, 3)).astype(np.float32)
    y = np.where(x[:, 0] + random.normal(size=3000) > 2.3, 0, 1).astype(np.int8)
    data = Samples(x, y)

    def recall(loss: LossConfig) -> float:
        _, result = run(data, replace(CONFIG, loss=loss), validation=data)
        network = Mlp(ARCHITECTURE, np.random.default_rng(0))
        network.load_weights(result.weights)
        with torch.no_grad():
            guess = network.logits(torch.from_numpy(x)).argmax(1).numpy()
        return float(np.mean(guess[y == 0] == 0))

    assert recall(LossConfig(class_weights="balanced")) > recall(LossConfig()) + 0.2


def test_a_diverging_fit_stops_and_says_what_to_lower() -> None:
    config = replace(CONFIG, optimizer=OptimizerConfig("sgd", 1e30, 0.0, 0.9))
    with pytest.raises(InvalidInput, match=r"diverged in epoch 1.*learning_rate \(now 1e\+30\)"):
        run(config=config)


@pytest.mark.parametrize("empty", ["train", "validation"])
def test_empty_parts_are_refused_with_both_numbers(empty: str) -> None:
    none = Samples(np.empty((0, 3), np.float32), np.empty(0, np.int8))
    with pytest.raises(TooFewBars, match="train and to validate on"):
        run(**{empty: none})


def test_closing_it_at_a_yield_leaves_nothing_behind() -> None:
    before = torch.get_num_threads()
    loop = fit(TRAIN, VALIDATION, ARCHITECTURE, CONFIG, threads=before + 1, clock=FakeClock(1.0))
    next(loop)
    assert torch.get_num_threads() == before + 1
    loop.close()
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_an_absent_gpu_trains_on_the_cpu_to_the_same_bits() -> None:
    fallback = choose_device("cuda", {"cuda": False, "mps": False, "cpu": True})
    assert same(run(device=fallback)[1], run()[1])


def test_without_torch_the_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['torch'] = None; import ktrdr.training"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtra" in done.stderr
    assert "pip install 'ktrdr[training]'" in done.stderr
