"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["FakeClock"]


class FakeClock:
    """Satisfies :class:`ktrdr.clock.Clock`; both of its times move together, by :meth:`advance` alone."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, 12, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError(f"A clock starts at an aware time; {start} has no time zone.")
        self._now = start.astimezone(UTC)
        self._monotonic = 1_000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> datetime:
        """Move both times forward and return the new wall time."""
        if seconds < 0:
            raise ValueError(f"A clock does not go back; got {seconds} s.")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        return self._now

    def jump(self, seconds: float) -> datetime:
        """Move the wall time alone, in either direction, as an administrator or NTP does."""
        self._now += timedelta(seconds=seconds)
        return self._now
