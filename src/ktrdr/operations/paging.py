"""Cursors of operation pages: the place of the last operation shown, opaque to clients."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime

from ktrdr.errors import InvalidInput
from ktrdr.operations.microseconds import from_microseconds, to_microseconds
from ktrdr.operations.model import Operation

__all__ = [
    "MAXIMUM_LIMIT",
    "Place",
    "checked_limit",
    "cursor_before",
    "decode_cursor",
    "encode_cursor",
    "place_of",
]

Place = tuple[int, str]
"""Created at (microseconds) and id: pages run from the greatest place down."""

MAXIMUM_LIMIT = 1_000
_CURSOR = re.compile(r"(-?\d{1,18}):(.{1,128})\Z", re.DOTALL)


def place_of(operation: Operation) -> Place:
    """Where the operation stands in the order of pages."""
    return to_microseconds(operation.created_at), operation.operation_id


def encode_cursor(place: Place) -> str:
    """The cursor that continues after ``place``."""
    return base64.urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def cursor_before(moment: datetime) -> str:
    """The cursor from which a page lists what was created before ``moment``."""
    return encode_cursor(
        (to_microseconds(moment), "-")
    )  # sorts before every id: those begin with a letter or digit


def decode_cursor(cursor: str) -> Place:
    """The place a cursor stands for.

    Raises
    ------
    InvalidInput
        If it did not come from :func:`encode_cursor`.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        match = _CURSOR.match(text)
        if match:
            place = int(match[1]), match[2]
            from_microseconds(place[0])
            return place
    except (binascii.Error, ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"'{cursor[:80]}' is not a cursor of this list. Take next_cursor from the page before, or leave it out."
    )


def checked_limit(limit: int) -> int:
    """``limit`` if a page may have that many entries.

    Raises
    ------
    InvalidInput
        If it is not between 1 and 1,000.
    """
    if not 1 <= limit <= MAXIMUM_LIMIT:
        raise InvalidInput(f"limit={limit} is not accepted; a page has 1 to {MAXIMUM_LIMIT} entries.")
    return limit
