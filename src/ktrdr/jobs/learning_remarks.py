"""What a reader should know about a training before trusting its scores."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ktrdr.jobs.learning_set import LearningSet
from ktrdr.models.architecture import CLASSES

__all__ = ["remarks_on_learning"]

_WIDE = 0.05
"""A standard error above this hides every difference that one could hope for."""


def remarks_on_learning(data: LearningSet) -> Iterator[str]:
    """One sentence for each part of the split that is too small to judge by, and each class nobody can learn.

    A share measured on n independent rows has a standard error of at most 0.5 / sqrt(n); labels of neighbouring rows
    overlap, so that the true one is larger.
    """
    for name, rows in (("validation", data.split.validation), ("test", data.split.test)):
        error = 0.5 / math.sqrt(len(rows)) if len(rows) else math.inf
        if not len(rows):
            yield f"The {name} part has no rows: nothing is known of the model outside its training part."
        elif error > _WIDE:
            what = (
                "which epoch was best is mostly chance" if name == "validation" else "its scores say little"
            )
            count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
            yield (
                f"The {name} part has {count}; by chance alone an accuracy moves by {100 * error:.0f} points or more, "
                f"so {what}. Use more bars, or a larger share of them (training.data_split)."
            )
    seen = np.bincount(data.pooled.y_N[data.split.train].astype(np.int64), minlength=len(CLASSES))
    for label, count in zip(CLASSES, seen, strict=True):
        if not count:
            yield f"No training row is labelled {label}, so the model cannot learn to say it. Change training.labels."
