"""A linguistic variable: a quantity described by words such as ``oversold``, each a fuzzy set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ktrdr.bars import FloatArray
from ktrdr.errors import FieldError, InvalidInput
from ktrdr.fuzzy.membership import MembershipFunction

__all__ = ["LinguisticVariable"]


@dataclass(frozen=True, slots=True)
class LinguisticVariable:
    """A name and its labelled sets, in the order in which they become features.

    Raises
    ------
    InvalidInput
        If there is no set, or a label is empty or used twice.
    """

    name: str
    sets: tuple[tuple[str, MembershipFunction], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sets", tuple((str(label), mf) for label, mf in self.sets))
        faults = [FieldError(f"/{x}", "this label is used twice") for x in _repeated(self.labels)]
        if not all(self.labels):
            faults.append(FieldError("", "a label is empty"))
        if not self.sets:
            faults.append(FieldError("", "at least one set is needed"))
        if faults:
            raise InvalidInput(f"The fuzzy sets of '{self.name}' are not valid", faults)

    @property
    def labels(self) -> tuple[str, ...]:
        """The words, in order."""
        return tuple(label for label, _ in self.sets)

    def memberships(self, x_T: npt.ArrayLike) -> FloatArray:
        """Grades of every value in every set, (T, S) float64 in [0, 1]; NaN where ``x_T`` is NaN."""
        return np.stack([mf(x_T) for _, mf in self.sets], axis=-1)

    def coverage_holes(self, low: float, high: float) -> tuple[tuple[float, float], ...]:
        """Stretches of ``[low, high]`` that belong to no set.

        A stretch has a length: single points where two sets meet at 0 are not holes. Shapes that never reach 0
        (gaussian, bell, sigmoid) cover what they grade 0.01 or more.

        Returns
        -------
        tuple of (start, end)
            In ascending order; empty where everything is covered.

        Raises
        ------
        InvalidInput
            If ``low`` is not below ``high``.
        """
        if not low < high:
            raise InvalidInput(f"The range to cover needs low < high, seen {low} and {high}.")
        holes = []
        reached = low
        for start, end in sorted(mf.support for _, mf in self.sets):
            if start > reached:
                holes.append((reached, min(start, high)))
            reached = max(reached, end)
            if reached >= high:
                return tuple(holes)
        return (*holes, (reached, high))

    def to_json(self) -> dict[str, Any]:
        """``{"name": ..., "sets": [[label, {type, ...}], ...]}``."""
        return {"name": self.name, "sets": [[label, mf.to_json()] for label, mf in self.sets]}


def _repeated(labels: tuple[str, ...]) -> list[str]:
    return sorted({label for label in labels if labels.count(label) > 1})
