"""Time as a parameter: whoever needs to know what time it is, is handed a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two kinds of time: ``now`` for records people read, ``monotonic`` for durations and deadlines."""

    def now(self) -> datetime:
        """The wall clock as an aware UTC datetime; it may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary origin; never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
