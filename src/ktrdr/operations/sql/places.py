"""Places in the queue, for many operations at once: what they cost does not grow with the queue."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Integer, Row, Select, bindparam, func, select, tuple_

from ktrdr.operations.model import OperationStatus
from ktrdr.operations.sql.queries import in_status
from ktrdr.operations.sql.tables import operations, tallies
from ktrdr.operations.store import COUNTED

__all__ = ["queue_positions"]

_BEHIND = 256  # of those behind so many are looked at; who has more of them is counted from the front
_PENDING = OperationStatus.PENDING
_OWN = (
    operations.c.operation_id,
    operations.c.operation_type,
    operations.c.status,
    operations.c.priority,
    operations.c.created_us,
)
_PLACE = (operations.c.created_us, operations.c.operation_id)
_place, _given = tuple_(*_PLACE), tuple_(bindparam("created_us"), bindparam("operation_id"))
_same = bindparam("priority", type_=Integer)
_mine = (in_status(_PENDING), operations.c.operation_type == bindparam("kind"))
_NAMED = select(*_OWN).where(operations.c.operation_id.in_(bindparam("ids", expanding=True)))


def queue_positions(connection: Connection, ids: Collection[str]) -> dict[str, int | None]:
    """For each operation that there is: 1 for the next of its type, at most ``COUNTED`` + 1; None if not pending.

    Who came last is last, and how many wait is known without counting; so the few behind are counted, if they are few.
    """
    found: list[Row[Any]] = list(connection.execute(_NAMED, {"ids": list(ids)}))
    positions: dict[str, int | None] = {row.operation_id: None for row in found}
    waiting = sorted((row for row in found if row.status == _PENDING.value), key=_order)
    for _, group in groupby(waiting, key=_queue):
        positions |= _from_the_end(connection, list(group))
    return positions


def _queue(row: Row[Any]) -> tuple[str, int]:
    return row.operation_type, row.priority


def _order(row: Row[Any]) -> tuple[str, int, int, str]:
    return *_queue(row), row.created_us, row.operation_id


def _from_the_end(connection: Connection, group: list[Row[Any]]) -> dict[str, int | None]:
    """Of one type and priority, in their order."""
    first, names = group[0], {row.operation_id for row in group}
    behind = connection.execute(_behind(), _values(first)).all()
    if len(behind) == _BEHIND or (behind and behind[0].lower == _BEHIND):
        return {row.operation_id: _from_the_front(connection, row) for row in group}
    return {
        row.operation_id: min(row.total - row.lower - after, COUNTED + 1)
        for after, row in enumerate(reversed(behind))
        if row.operation_id in names
    }


@cache
def _behind() -> Select[Any]:
    """The operation and those of its priority after it, each with how many are of a lower one and how many there are."""
    lower = select(operations.c.operation_id).where(*_mine, operations.c.priority < _same).limit(_BEHIND)
    total = select(tallies.c.count).where(
        tallies.c.operation_type == bindparam("kind"), tallies.c.status == _PENDING.value
    )
    columns = (
        operations.c.operation_id,
        select(func.count()).select_from(lower.subquery()).scalar_subquery().label("lower"),
        total.scalar_subquery().label("total"),
    )
    mine = select(*columns).where(*_mine, operations.c.priority == _same, _place >= _given)
    return mine.order_by(*_PLACE).limit(_BEHIND)


@cache
def _ahead() -> Select[Any]:
    parts = (  # each is one stretch of the index
        [operations.c.priority > _same],
        [operations.c.priority == _same, _place < _given],
    )
    counted = [
        select(func.count()).select_from(
            select(operations.c.operation_id).where(*_mine, *part).limit(COUNTED).subquery()
        )
        for part in parts
    ]
    return select(*(part.scalar_subquery() for part in counted))


def _from_the_front(connection: Connection, row: Row[Any]) -> int:
    higher, earlier = connection.execute(_ahead(), _values(row)).one()
    return min(int(higher) + int(earlier), COUNTED) + 1


def _values(row: Row[Any]) -> dict[str, Any]:
    return {
        "kind": row.operation_type,
        "priority": row.priority,
        "created_us": row.created_us,
        "operation_id": row.operation_id,
    }
