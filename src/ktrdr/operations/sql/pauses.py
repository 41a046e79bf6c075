"""Which types of operations are not dispatched, as the ledger remembers it; statements behind the store's interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from ktrdr.operations.microseconds import from_microseconds, to_microseconds
from ktrdr.operations.model import OperationType
from ktrdr.operations.sql.tables import pauses

__all__ = ["read_pauses", "write_pauses"]


def read_pauses(connection: Connection) -> Mapping[OperationType, datetime]:
    """The paused types, with the moment since when; types of a later ktrdr are left out."""
    known = {kind.value for kind in OperationType}
    rows = connection.execute(select(pauses.c.operation_type, pauses.c.since_us))
    return {OperationType(kind): from_microseconds(since) for kind, since in rows if kind in known}


def write_pauses(
    connection: Connection, *, types: Collection[OperationType], since: datetime | None
) -> Mapping[OperationType, datetime]:
    """Pause the types, or with None let them go; a type that is paused already keeps its moment."""
    if since is None:
        connection.execute(delete(pauses).where(pauses.c.operation_type.in_([kind.value for kind in types])))
    else:
        paused = read_pauses(connection)
        rows = [
            {"operation_type": kind.value, "since_us": to_microseconds(since)}
            for kind in types
            if kind not in paused
        ]
        if rows:
            connection.execute(insert(pauses), rows)
    return read_pauses(connection)
