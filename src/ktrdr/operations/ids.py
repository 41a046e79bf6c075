"""Names of operations: readable, sortable by time, unique by chance."""

from __future__ import annotations

from datetime import UTC
from random import Random

from ktrdr.clock import Clock
from ktrdr.operations.model import OperationType

__all__ = ["new_operation_id"]

_STAMP = len("2026-01-01_12:00:00")


def new_operation_id(operation_type: OperationType, clock: Clock, random: Random) -> str:
    """A name like ``op_backtesting_20260101_120000_ab12cd34``.

    Names of one type sort by the second of their making. The last part is 32 random bits from ``random``
    (``random.SystemRandom()`` in a server, a seeded one in tests); two names of one type and second are equal with
    a chance of 1 in 4 billion, and the ledger refuses a name that exists.
    """
    seconds = clock.now().astimezone(UTC).isoformat("_", "seconds")[:_STAMP]
    stamp = seconds.replace("-", "").replace(":", "")
    return f"op_{operation_type}_{stamp}_{random.getrandbits(32):08x}"
