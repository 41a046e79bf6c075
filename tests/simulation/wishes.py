"""What a client asks for: the body of a submission, drawn once, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["Wish"]


@dataclass(frozen=True, slots=True)
class Wish:
    """``kind`` is the noun of the route; ``body`` what is sent."""

    kind: str
    body: dict[str, Any]

    @classmethod
    def of(cls, number: int, random: Random) -> Wish:
        """Specifications are shared by few: each is stored once."""
        kind = "backtests" if random.random() < 0.6 else "trainings"
        body: dict[str, Any] = {
            "strategy_name": f"s{number % 5_000}",
            "priority": random.choice((0, 0, 0, 5)),
        }
        if kind == "trainings":
            dice = random.random()
            body |= {"require_gpu": dice < 0.1, "prefer_gpu": dice < 0.8}
        if random.random() < 0.1:
            body["when_busy"] = "reject"
        return cls(kind, body)

    @property
    def impatient(self) -> bool:
        """It is to be refused where it would have to wait."""
        return self.body.get("when_busy") == "reject"

    @property
    def patient(self) -> Wish:
        """The same, but it waits."""
        return Wish(self.kind, {**self.body, "when_busy": "queue"})
