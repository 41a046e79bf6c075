"""A ledger read for the artifacts that it mentions, a stretch of rows at a time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, select, tuple_

from ktrdr.operations.references import Mentions, mentioned_by_row
from ktrdr.operations.sql.tables import metadata

__all__ = ["Place", "read_mentions"]

Place = tuple[str, tuple[Any, ...]]
"""A table, and the key of the last row that was read in it."""

_ROWS = 1_000
# Tables and columns that name no artifact; whatever a later schema adds is searched until it is listed here.
_TABLES = frozenset({"workers", "pauses", "tallies", "tokens"})
_COLUMNS = frozenset(
    (
        "idempotency_key",
        "request_digest",
        "requirements",
        "requires_gpu",
        "spec_digest",
        "operation_type",
        "status",
        "progress",
        "error",
        "story",
    )
)


def read_mentions(connection: Connection, *, after: Place | None) -> tuple[Mentions, Place | None]:
    """What the next rows mention, and where to go on; None at the end."""
    tables = [table for table in metadata.sorted_tables if table.name not in _TABLES]
    names = [table.name for table in tables]
    index = names.index(after[0]) if after else 0
    found, last = _stretch(connection, tables[index], after[1] if after else None)
    if last is not None:
        return found, (names[index], last)
    return found, (names[index + 1], ()) if index + 1 < len(tables) else None


def _stretch(
    connection: Connection, table: Table, key: tuple[Any, ...] | None
) -> tuple[Mentions, tuple[Any, ...] | None]:
    keys = list(table.primary_key.columns)
    wanted = [column for column in table.columns if column.primary_key or column.name not in _COLUMNS]
    query = select(*wanted).order_by(*keys).limit(_ROWS)
    if key:
        query = query.where(tuple_(*keys) > key)
    rows = connection.execute(query).mappings().all()
    found = Mentions()
    for row in rows:
        found |= mentioned_by_row(table.name, {column.name: row[column] for column in wanted})
    return found, tuple(rows[-1][column] for column in keys) if len(rows) == _ROWS else None
