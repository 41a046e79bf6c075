"""Counts of operations that are kept in step with them: changed in the transaction that changes the operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.operations.sql.tables import tallies

__all__ = ["Tally"]


class Tally:
    """What a transaction adds to the counts; ``write`` it last, so that other writers wait for it least.

    Rows are written in one order by everybody, so that no two writers wait for each other.
    """

    def __init__(self) -> None:
        self._changes: Counter[tuple[OperationType, OperationStatus]] = Counter()

    def add(self, operation: Operation) -> None:
        """It is new."""
        self.change(operation.operation_type, operation.status, 1)

    def remove(self, operation: Operation) -> None:
        """It is gone."""
        self.change(operation.operation_type, operation.status, -1)

    def move(self, before: Operation, after: Operation) -> None:
        """It may have another status."""
        self.remove(before)
        self.add(after)

    def change(self, kind: OperationType, status: OperationStatus, by: int) -> None:
        """There are so many more of a type and status."""
        self._changes[kind, status] += by

    def write(self, connection: Connection) -> None:
        """Add the changes to what is stored."""
        rows = [
            {"operation_type": kind.value, "status": status.value, "count": change}
            for (kind, status), change in sorted(self._changes.items())
            if change
        ]
        if rows:
            connection.execute(_ADD[connection.dialect.name], rows)


def _adding(insert: Any) -> Any:
    added = insert(tallies)
    same = [tallies.c.operation_type, tallies.c.status]
    both = {"count": tallies.c.count + added.excluded["count"]}
    return added.on_conflict_do_update(index_elements=same, set_=both)


_ADD = {"postgresql": _adding(postgresql.insert), "sqlite": _adding(sqlite.insert)}
