"""Requests that benchmarks send again and again."""

from __future__ import annotations

from typing import Any

from bench_control import STRATEGY

__all__ = ["training"]


def training(epochs: int = 1, **changes: Any) -> dict[str, Any]:
    """A small training on bundled data; made-up workers only pretend to run it."""
    return {"strategy": STRATEGY.replace("EPOCHS", str(epochs)), **changes}
