"""How good the classes are: confusion matrix, recall, and the baseline that any model has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ktrdr.models.architecture import CLASSES

__all__ = ["ClassReport", "report_classes"]

_EPSILON = 1e-12


@dataclass(frozen=True, slots=True)
class ClassReport:
    """Scores of one part of the data.

    Attributes
    ----------
    rows
        Rows of the part.
    accuracy, log_loss
        Share of rows whose most probable class is the label; mean of -log p(label), unweighted.
    majority_accuracy
        The accuracy of always saying the class that was the most frequent in training.
    recall, precision
        By class name; None where the class does not occur (is never predicted).
    balance
        Rows by label.
    confusion
        ``confusion[label][prediction]`` counts, in class order.
    """

    rows: int
    accuracy: float
    log_loss: float
    majority_accuracy: float
    recall: dict[str, float | None]
    precision: dict[str, float | None]
    balance: dict[str, int]
    confusion: list[list[int]]


def report_classes(
    y_N: npt.NDArray[np.integer], probabilities_NC: npt.NDArray[np.float32], *, majority: int
) -> ClassReport | None:
    """Score probabilities against labels; None for a part without rows.

    Parameters
    ----------
    y_N
        Class indices of the labels.
    probabilities_NC
        What the network says.
    majority
        Index of the class that was the most frequent in training.
    """
    rows, classes = len(y_N), len(CLASSES)
    if not rows:
        return None
    y = y_N.astype(np.int64)
    predicted = probabilities_NC.argmax(1)
    confusion = np.bincount(y * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    hits, labels, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    likelihood = np.maximum(probabilities_NC[np.arange(rows), y].astype(np.float64), _EPSILON)
    return ClassReport(
        rows=rows,
        accuracy=float(hits.sum() / rows),
        log_loss=float(-np.log(likelihood).mean()),
        majority_accuracy=float(labels[majority] / rows),
        recall=_shares(hits, labels),
        precision=_shares(hits, said),
        balance={name: int(count) for name, count in zip(CLASSES, labels, strict=True)},
        confusion=confusion.tolist(),
    )


def _shares(hits: npt.NDArray[np.int64], of: npt.NDArray[np.int64]) -> dict[str, float | None]:
    return {
        name: float(hit / total) if total else None
        for name, hit, total in zip(CLASSES, hits, of, strict=True)
    }
