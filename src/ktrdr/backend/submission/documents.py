"""Parsed strategies and their feature plans, remembered by text: reading one costs tens of milliseconds of CPU.

A document is a pure function of its text and both results are frozen, so they are shared freely between threads.
"""

from __future__ import annotations

from functools import lru_cache

from ktrdr.datasets.plan import FeaturePlan
from ktrdr.strategies import Strategy, parse_strategy, with_overrides

__all__ = ["overridden", "parsed", "plan_of"]

_REMEMBERED = 64  # of up to 256 KiB each


@lru_cache(_REMEMBERED)
def parsed(text: str, source: str = "<inline>") -> Strategy:
    """As :func:`ktrdr.strategies.parse_strategy`."""
    return parse_strategy(text, source=source)


@lru_cache(_REMEMBERED)
def overridden(
    text: str,
    source: str,
    *,
    symbols: tuple[str, ...] | None = None,
    timeframes: tuple[str, ...] | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    seed: int | None = None,
) -> Strategy:
    """The document with a request's changes, as :func:`ktrdr.strategies.with_overrides`."""
    return with_overrides(
        parsed(text, source),
        symbols=symbols,
        timeframes=timeframes,
        start_date=start_date,
        end_date=end_date,
        seed=seed,
    )


@lru_cache(_REMEMBERED)
def plan_of(text: str) -> FeaturePlan:
    """The feature plan of a valid document."""
    return FeaturePlan.from_strategy(parsed(text))
