"""The ledger's questions in SQL: none of them takes longer because many operations have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from ktrdr.errors import NotFound
from ktrdr.operations.microseconds import to_microseconds
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.operations.paging import (
    Place,
    checked_limit,
    decode_cursor,
    encode_cursor,
    place_of,
)
from ktrdr.operations.rows import operation_from_row
from ktrdr.operations.store import COUNTED, LONGEST_WAIT, OperationPage, OperationQuery, absent
from ktrdr.operations.tables import operations, specs, tallies

__all__ = ["counts", "find", "in_status", "live", "page", "pending", "queue_position", "spec"]

_LIVE = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_PLACE = (operations.c.created_us, operations.c.operation_id)
_NEWEST_FIRST = tuple(column.desc() for column in _PLACE)
_DISPATCH_ORDER = (operations.c.priority.desc(), *_PLACE)
_place = tuple_(*_PLACE)


def in_status(status: OperationStatus) -> ColumnElement[bool]:
    """``status = 'x'`` with the value in the SQL text: a plan made for any status could not use a partial index."""
    return operations.c.status == literal(status.value, literal_execute=True)


def _of_type(kind: OperationType) -> ColumnElement[bool]:
    return operations.c.operation_type == kind.value


def find(connection: Connection, operation_id: str, *, lock: bool = False) -> Operation:
    """The operation, locked against other writers if asked; raises NotFound."""
    query = select(operations).where(operations.c.operation_id == operation_id)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise absent(operation_id)
    return operation_from_row(row)


def spec(connection: Connection, digest: str) -> bytes:
    """The job specification; raises NotFound."""
    content = connection.scalar(select(specs.c.content).where(specs.c.digest == digest))
    if content is None:
        raise NotFound("job specification", digest)
    return bytes(content)


def counts(connection: Connection) -> dict[tuple[OperationType, OperationStatus], int]:
    """How many operations there are of each type and status, without those of which there are none."""
    rows: Any = connection.execute(select(tallies).where(tallies.c.count != 0))
    return {(OperationType(kind), OperationStatus(status)): count for kind, status, count in rows}


def page(connection: Connection, query: OperationQuery) -> OperationPage:
    """One page, newest first."""
    limit = checked_limit(query.limit)
    after = None if query.cursor is None else decode_cursor(query.cursor)
    total = _total(connection, query)
    wanted = _newest(query, after, limit + 1)
    found = _operations(connection, wanted.order_by(*_NEWEST_FIRST))
    shown = tuple(found[:limit])
    return OperationPage(shown, total, encode_cursor(place_of(shown[-1])) if len(found) > limit else None)


def _total(connection: Connection, query: OperationQuery) -> int:
    if query.worker_id is None:
        found = counts(connection).items()
        return sum(
            count
            for (kind, status), count in found
            if query.operation_type in (None, kind) and (not query.statuses or status in query.statuses)
        )
    some = select(operations.c.operation_id).where(and_(*_filters(query))).limit(COUNTED)
    return connection.scalar(select(func.count()).select_from(some.subquery())) or 0


def _filters(query: OperationQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.statuses:
        wanted.append(or_(*(in_status(status) for status in query.statuses)))
    if query.operation_type is not None:
        wanted.append(_of_type(query.operation_type))
    if query.worker_id is not None:
        wanted.append(operations.c.worker_id == query.worker_id)
    return wanted


def _newest(query: OperationQuery, after: Place | None, limit: int) -> Select[Any]:
    """The newest that match. With a type or a status: those of each single type and status from their own index, of
    which the newest are taken; one index over all would be walked through a million that do not match."""
    before = [] if after is None else [_place < after]
    if query.worker_id is not None or not (query.statuses or query.operation_type):
        return select(operations).where(and_(True, *before, *_filters(query))).limit(limit)
    kinds = list(OperationType) if query.operation_type is None else [query.operation_type]
    pairs = product(kinds, dict.fromkeys(query.statuses) or OperationStatus)
    return _first(
        ([in_status(status), _of_type(kind), *before] for kind, status in pairs), _NEWEST_FIRST, limit
    )


def _first(
    groups: Iterable[Sequence[ColumnElement[bool]]], order: Sequence[ColumnElement[Any]], limit: int
) -> Select[Any]:
    """The first ``limit`` of several groups together, each of which has an index in this order."""
    columns = (operations.c.operation_id, operations.c.priority, operations.c.created_us)
    some = [select(*columns).where(and_(*group)).order_by(*order).limit(limit).subquery() for group in groups]
    candidates = union_all(*(select(part) for part in some)).subquery()
    names = select(candidates.c.operation_id)
    if len(some) > 1:
        ordered = [_same_order(column, candidates) for column in order]
        names = names.order_by(*ordered).limit(limit)
    return select(operations).where(operations.c.operation_id.in_(names))


def _same_order(column: ColumnElement[Any], candidates: Any) -> ColumnElement[Any]:
    element = getattr(column, "element", None)
    plain = column if element is None else element
    found: ColumnElement[Any] = candidates.c[plain.name]
    return found if element is None else found.desc()


def pending(connection: Connection, now: datetime, limit: int) -> Sequence[Operation]:
    """The first in dispatch order that need not wait any more."""
    until, now_us, far_us = (
        operations.c.not_before_us,
        to_microseconds(now),
        to_microseconds(now + LONGEST_WAIT),
    )
    ready = or_(until.is_(None), until <= now_us, until > far_us)
    waiting = in_status(OperationStatus.PENDING)
    groups = ([waiting, _of_type(kind), ready] for kind in OperationType)
    return tuple(_operations(connection, _first(groups, _DISPATCH_ORDER, limit).order_by(*_DISPATCH_ORDER)))


def live(connection: Connection) -> Sequence[Operation]:
    """Whoever a worker may hold, oldest first."""
    query = union_all(
        *(select(operations).where(in_status(status)) for status in _LIVE)
    )  # each by its own index
    found = [operation_from_row(row) for row in connection.execute(query).mappings()]
    return tuple(sorted(found, key=place_of))


def queue_position(connection: Connection, operation_id: str) -> int | None:
    """1 for the next of its type, at most ``COUNTED`` + 1; None if it is not pending."""
    operation = find(connection, operation_id)
    if operation.status is not OperationStatus.PENDING:
        return None
    mine = [in_status(OperationStatus.PENDING), _of_type(operation.operation_type)]
    ahead = 0
    for part in (
        [operations.c.priority > operation.priority],
        [operations.c.priority == operation.priority, _place < place_of(operation)],
    ):  # each is one stretch of the index
        some = select(operations.c.operation_id).where(*mine, *part).limit(COUNTED).subquery()
        ahead += connection.scalar(select(func.count()).select_from(some)) or 0
    return min(ahead, COUNTED) + 1


def _operations(connection: Connection, query: Select[Any]) -> list[Operation]:
    return [operation_from_row(row) for row in connection.execute(query).mappings()]
