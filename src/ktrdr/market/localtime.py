"""Wall clocks: UTC moments to local time and back, vectorised.

A wall-clock value is the microseconds that a clock on the wall shows, counted from 1970-01-01 00:00 on that clock.
"""

from __future__ import annotations

import polars as pl

from ktrdr.bars import IntArray

__all__ = ["DAY", "HOUR", "from_wall", "to_wall"]

HOUR = 3_600_000_000
DAY = 24 * HOUR


def to_wall(moments: IntArray, zone: str) -> IntArray:
    """(T,) what a clock in ``zone`` shows at each UTC moment; all in microseconds."""
    shown = pl.Series(moments, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    return shown.dt.replace_time_zone(None).cast(pl.Int64).to_numpy()


def from_wall(wall: IntArray, zone: str) -> IntArray:
    """(T,) the UTC moment at which a clock in ``zone`` shows each value.

    A time that occurs twice (clocks set back) gives the first; one that is skipped gives the moment that the same
    clock would have shown without the change.
    """
    shown = pl.Series(wall, dtype=pl.Int64).cast(pl.Datetime("us"))
    moments = shown.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").cast(pl.Int64)
    if not moments.null_count():
        return moments.to_numpy()
    skipped = moments.is_null().to_numpy()
    result: IntArray = moments.fill_null(0).to_numpy().copy()
    result[skipped] = from_wall(wall[skipped] - 3 * HOUR, zone) + 3 * HOUR
    return result
