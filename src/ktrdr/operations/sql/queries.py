"""The ledger's questions in SQL: none of them takes longer because many operations have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from ktrdr.errors import NotFound
from ktrdr.operations.microseconds import to_microseconds
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.operations.paging import (
    checked_limit,
    decode_cursor,
    encode_cursor,
    place_of,
)
from ktrdr.operations.rows import operation_from_row
from ktrdr.operations.sql.tables import held_by_a_worker, operations, specs, tallies
from ktrdr.operations.store import COUNTED, LONGEST_WAIT, OperationPage, OperationQuery, absent

__all__ = ["by_key", "counts", "find", "held", "in_status", "live", "page", "pending", "spec"]

_LIVE = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_PLACE = (operations.c.created_us, operations.c.operation_id)
_NEWEST_FIRST = tuple(column.desc() for column in _PLACE)
_DISPATCH_ORDER = (operations.c.priority.desc(), *_PLACE)
_place = tuple_(*_PLACE)


def in_status(status: OperationStatus) -> ColumnElement[bool]:
    """``status = 'x'`` with the value in the SQL text: a plan made for any status could not use a partial index."""
    return operations.c.status == literal_column(f"'{status.value}'")


def _of_type(kind: OperationType) -> ColumnElement[bool]:
    return operations.c.operation_type == kind.value


_FIND = select(operations).where(operations.c.operation_id == bindparam("operation_id"))
_FIND_LOCKED = _FIND.with_for_update()


def find(connection: Connection, operation_id: str, *, lock: bool = False) -> Operation:
    """The operation, locked against other writers if asked; raises NotFound."""
    found = connection.execute(_FIND_LOCKED if lock else _FIND, {"operation_id": operation_id})
    row = found.mappings().first()
    if row is None:
        raise absent(operation_id)
    return operation_from_row(row)


def by_key(connection: Connection, idempotency_key: str) -> Operation | None:
    """The operation that was submitted under this key."""
    chosen = select(operations).where(operations.c.idempotency_key == idempotency_key)
    row = connection.execute(chosen).mappings().first()
    return None if row is None else operation_from_row(row)


def spec(connection: Connection, digest: str) -> bytes:
    """The job specification; raises NotFound."""
    content = connection.scalar(select(specs.c.content).where(specs.c.digest == digest))
    if content is None:
        raise NotFound("job specification", digest)
    return bytes(content)


_COUNTS = select(tallies).where(tallies.c.count != 0)


def counts(connection: Connection) -> dict[tuple[OperationType, OperationStatus], int]:
    """How many operations there are of each type and status, without those of which there are none."""
    rows: Any = connection.execute(_COUNTS)
    return {(OperationType(kind), OperationStatus(status)): count for kind, status, count in rows}


def page(connection: Connection, query: OperationQuery) -> OperationPage:
    """One page, newest first."""
    limit = checked_limit(query.limit)
    after = None if query.cursor is None else decode_cursor(query.cursor)
    total = _total(connection, query)
    statement = _newest(query.statuses, query.operation_type, query.worker_id is not None, after is not None)
    values: dict[str, Any] = {"limit": limit + 1, "worker_id": query.worker_id}
    if after is not None:
        values |= {"after_us": after[0], "after_id": after[1]}
    found = _operations(connection, statement, values)
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
    wanted = _filters(query.statuses, query.operation_type)
    some = select(operations.c.operation_id).where(*wanted, operations.c.worker_id == query.worker_id)
    return connection.scalar(select(func.count()).select_from(some.limit(COUNTED).subquery())) or 0


def _filters(statuses: tuple[OperationStatus, ...], kind: OperationType | None) -> list[ColumnElement[bool]]:
    wanted = [] if kind is None else [_of_type(kind)]
    return [*wanted, or_(*(in_status(status) for status in statuses))] if statuses else wanted


# Statements are built once for each combination of filters: building one takes longer than most of their answers.


@lru_cache(256)
def _newest(
    statuses: tuple[OperationStatus, ...], kind: OperationType | None, of_worker: bool, continued: bool
) -> Select[Any]:
    """The newest that match. With a type or a status: those of each single type and status from their own index, of
    which the newest are taken; one index over all would be walked through a million that do not match."""
    before = [_place < tuple_(bindparam("after_us"), bindparam("after_id"))] if continued else []
    limit = bindparam("limit", type_=Integer)
    if of_worker or not (statuses or kind):
        mine = [operations.c.worker_id == bindparam("worker_id")] if of_worker else []
        wanted = and_(True, *mine, *before, *_filters(statuses, kind))
        return select(operations).where(wanted).order_by(*_NEWEST_FIRST).limit(limit)
    kinds = list(OperationType) if kind is None else [kind]
    pairs = product(kinds, dict.fromkeys(statuses) or OperationStatus)
    groups = ([in_status(status), _of_type(kind), *before] for kind, status in pairs)
    return _first(groups, _NEWEST_FIRST, limit)


def _first(
    groups: Iterable[Sequence[ColumnElement[bool]]],
    order: Sequence[ColumnElement[Any]],
    limit: ColumnElement[int],
) -> Select[Any]:
    """The first ``limit`` of several groups together, each of which has an index in this order."""
    columns = (operations.c.operation_id, operations.c.priority, operations.c.created_us)
    some = [select(*columns).where(and_(*group)).order_by(*order).limit(limit).subquery() for group in groups]
    candidates = union_all(*(select(part) for part in some)).subquery()
    names = select(candidates.c.operation_id)
    if len(some) > 1:
        names = names.order_by(*(_same_order(column, candidates) for column in order)).limit(limit)
    return select(operations).where(operations.c.operation_id.in_(names)).order_by(*order)


def _same_order(column: ColumnElement[Any], candidates: Any) -> ColumnElement[Any]:
    element = getattr(column, "element", None)
    plain = column if element is None else element
    found: ColumnElement[Any] = candidates.c[plain.name]
    return found if element is None else found.desc()


@lru_cache(64)
def _ready(limit: int, types: tuple[tuple[OperationType, bool], ...]) -> Select[Any]:
    """The limit stands in the text: PostgreSQL takes a limit it does not know for a tenth of the table, and would plan
    this anew each time, which takes longer than the answer."""
    until = operations.c.not_before_us
    ready = or_(until.is_(None), until <= bindparam("now_us"), until > bindparam("far_us"))
    pending = in_status(OperationStatus.PENDING)
    any_worker = operations.c.requires_gpu == literal_column("0")  # in the text, as the status
    groups = ([pending, _of_type(kind), ready, *([] if gpu else [any_worker])] for kind, gpu in types)
    return _first(groups, _DISPATCH_ORDER, literal_column(str(limit), Integer))


def pending(
    connection: Connection, now: datetime, limit: int, types: tuple[tuple[OperationType, bool], ...]
) -> Sequence[Operation]:
    """The first in dispatch order that need not wait any more; with each type, whether those that require a GPU, too."""
    far_us = to_microseconds(now + LONGEST_WAIT)
    values = {"now_us": to_microseconds(now), "far_us": far_us}
    return tuple(_operations(connection, _ready(limit, types), values)) if types else ()


_ALIVE = union_all(
    *(select(operations).where(in_status(status)) for status in _LIVE)
)  # each by its own index


def live(connection: Connection) -> Sequence[Operation]:
    """Whoever a worker may hold, oldest first."""
    found = [operation_from_row(row) for row in connection.execute(_ALIVE).mappings()]
    return tuple(sorted(found, key=place_of))


_HELD = select(operations).where(operations.c.worker_id == bindparam("worker_id"), held_by_a_worker)


def held(connection: Connection, worker_id: str) -> Sequence[Operation]:
    """What one worker may hold, oldest first."""
    return tuple(sorted(_operations(connection, _HELD, {"worker_id": worker_id}), key=place_of))


def _operations(connection: Connection, query: Select[Any], values: dict[str, Any]) -> list[Operation]:
    return [operation_from_row(row) for row in connection.execute(query, values).mappings()]
