"""Epochs per second of the fit loop: MLP [64, 32], 12 inputs, 50,000 rows, batch 256, one thread.

Run: ``python benchmarks/bench_training.py``. CPU seconds, median over epochs; the first epoch is left out (imports,
page faults). Goal: 10 epochs per CPU second on one core of a small VM.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np

from ktrdr.models.architecture import MlpArchitecture
from ktrdr.strategies.document import ForwardReturnLabels, OptimizerConfig, TrainingConfig
from ktrdr.training.fit import EpochResult, Samples, fit

ROWS, VALIDATION_ROWS, INPUTS, EPOCHS = 50_000, 10_000, 12, 12


def epochs_per_second(dropout: float, clip: float | None) -> float:
    random = np.random.default_rng(1)
    x = random.random((ROWS + VALIDATION_ROWS, INPUTS), dtype=np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int8) + (x[:, 2] > 0.7)
    config = replace(
        TrainingConfig(ForwardReturnLabels(), epochs=EPOCHS, batch_size=256),
        optimizer=OptimizerConfig(weight_decay=1e-4),
        gradient_clip=clip,
    )
    architecture = MlpArchitecture(inputs=INPUTS, hidden_layers=(64, 32), dropout=dropout)
    train, validation = Samples(x[:ROWS], y[:ROWS]), Samples(x[ROWS:], y[ROWS:])
    loop = fit(train, validation, architecture, config)
    marks = [time.process_time() for event in loop if isinstance(event, EpochResult)]
    return 1.0 / statistics.median(np.diff(marks))


def main() -> None:
    print(f"MLP [64, 32], {INPUTS} inputs, {ROWS:,} rows, batch 256, {VALIDATION_ROWS:,} rows of validation")
    print(f"{'':36}{'epochs per CPU second':>22}{'goal':>8}")
    for name, dropout, clip in (("plain", 0.0, None), ("dropout 0.2, gradient clip 1.0", 0.2, 1.0)):
        print(f"{name:36}{epochs_per_second(dropout, clip):>22.1f}{10:>8}")


if __name__ == "__main__":
    main()
