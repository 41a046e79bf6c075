"""What a running job says of itself: a snapshot that replaces the last one, and records that add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Metric", "Progress", "Scalar"]

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a job stands.

    ``items_done`` of ``items_total`` (bars, epochs); ``message`` is one short line for people;
    ``context`` a few values (``current_bar``, ``val_loss``) that the API passes on unchanged.
    """

    items_done: int
    items_total: int
    message: str = ""
    context: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def percentage(self) -> float:
        """0 to 100; 0 while the total is unknown."""
        return 100.0 * min(self.items_done, self.items_total) / self.items_total if self.items_total else 0.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One record of the append-only metrics log: an epoch, a stretch of bars."""

    values: Mapping[str, Scalar]
