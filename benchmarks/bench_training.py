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
from table import Row

ROWS, VALIDATION_ROWS, INPUTS, EPOCHS = 50_000, 10_000, 12, 12


def epochs_per_second(
    dropout: float, clip: float | None, samples: int = ROWS, validation_samples: int = VALIDATION_ROWS
) -> float:
    random = np.random.default_rng(1)
    x = random.random((samples + validation_samples, INPUTS), dtype=np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int8) + (x[:, 2] > 0.7)
    config = replace(
        TrainingConfig(ForwardReturnLabels(), epochs=EPOCHS, batch_size=256),
        optimizer=OptimizerConfig(weight_decay=1e-4),
        gradient_clip=clip,
    )
    architecture = MlpArchitecture(inputs=INPUTS, hidden_layers=(64, 32), dropout=dropout)
    train, validation = Samples(x[:samples], y[:samples]), Samples(x[samples:], y[samples:])
    loop = fit(train, validation, architecture, config)
    marks = [time.process_time() for event in loop if isinstance(event, EpochResult)]
    return 1.0 / statistics.median(np.diff(marks))


def rows(*, tiny: bool = False) -> list[Row]:
    """The table's rows."""
    sizes = (2_000, 500) if tiny else (ROWS, VALIDATION_ROWS)
    plain, careful = epochs_per_second(0.0, None, *sizes), epochs_per_second(0.2, 1.0, *sizes)
    what = f"training, MLP [64, 32], {INPUTS} inputs, {sizes[0]:,} rows, batch 256"
    options = "the same with dropout 0.2 and gradient clip 1.0"
    note = f"with {sizes[1]:,} rows of validation in every epoch"
    return [
        Row(
            key=f"training.{key}",
            what=words,
            measured=speed,
            unit="epochs/s",
            target=10.0,
            better="higher",
            cpu_s=1.0 / speed,
            note=note,
        )
        for key, words, speed in (("plain", what, plain), ("careful", options, careful))
    ]


def main() -> None:
    print(f"MLP [64, 32], {INPUTS} inputs, {ROWS:,} rows, batch 256, {VALIDATION_ROWS:,} rows of validation")
    print(f"{'':36}{'epochs per CPU second':>22}{'goal':>8}")
    for name, dropout, clip in (("plain", 0.0, None), ("dropout 0.2, gradient clip 1.0", 0.2, 1.0)):
        print(f"{name:36}{epochs_per_second(dropout, clip):>22.1f}{10:>8}")


if __name__ == "__main__":
    main()
