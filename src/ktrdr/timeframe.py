"""The length of a bar."""

from __future__ import annotations

from enum import StrEnum

from ktrdr.errors import InvalidInput, nearest

__all__ = ["Timeframe"]

_SECONDS = {
    "1m": 60,
    "5m": 300,
    "15m": 900,
    "30m": 1_800,
    "1h": 3_600,
    "2h": 7_200,
    "4h": 14_400,
    "1d": 86_400,
    "1w": 604_800,
}


class Timeframe(StrEnum):
    """A bar length, written as on the wire: ``Timeframe.parse("1h")``."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"

    @classmethod
    def parse(cls, text: str | Timeframe) -> Timeframe:
        """Read a timeframe.

        Raises
        ------
        InvalidInput
            If ``text`` is not one of the accepted codes; the message lists them.
        """
        try:
            return cls(str(text))
        except ValueError:
            accepted = ", ".join(_SECONDS)
            raise InvalidInput(
                f"Unknown timeframe '{text}'{nearest(str(text).lower(), _SECONDS) or '.'} Accepted: {accepted}."
            ) from None

    @property
    def seconds(self) -> int:
        """Nominal length in seconds."""
        return _SECONDS[self.value]

    @property
    def microseconds(self) -> int:
        """Nominal length in microseconds, the unit of bar stamps."""
        return self.seconds * 1_000_000

    @property
    def intraday(self) -> bool:
        """True for bars shorter than a day."""
        return self.seconds < 86_400
