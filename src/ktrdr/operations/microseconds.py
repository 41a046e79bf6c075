"""Times of the ledger: aware UTC outside, integer microseconds since 1970 inside; exact both ways."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["from_microseconds", "to_microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since 1970.

    Raises
    ------
    TypeError
        If ``moment`` is naive: nobody knows when that is.
    """
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The aware UTC time; OverflowError beyond the years 1 to 9999."""
    return _EPOCH + timedelta(microseconds=microseconds)
