"""What a ledger forgets with time, in small steps: first the stories of what ended long ago, later all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, exists, select, update

from ktrdr.operations.jsontext import dump
from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.operations.sql.tables import operations, specs
from ktrdr.operations.sql.tally import Tally
from ktrdr.operations.story import compacted

__all__ = ["compact", "expire", "forget_specs"]

_COMPACT = (
    update(operations)
    .where(operations.c.operation_id == bindparam("_operation_id"))
    .values(story=bindparam("_story"), compacted=1)
)


def compact(connection: Connection, before_us: int, limit: int) -> int:
    """Make one line of the stories of at most ``limit`` operations that ended before; how many they were."""
    whole = select(operations.c.operation_id, operations.c.story)
    whole = whole.where(operations.c.compacted == 0, operations.c.completed_us < before_us)
    found = connection.execute(
        whole.order_by(operations.c.completed_us).limit(limit).with_for_update(skip_locked=True)
    ).all()
    rows = [
        {"_operation_id": operation_id, "_story": dump(compacted(tuple(json.loads(story))))}
        for operation_id, story in found
    ]
    if rows:
        connection.execute(_COMPACT, rows)
    return len(rows)


def expire(connection: Connection, before_us: int, limit: int) -> Sequence[str]:
    """Delete at most ``limit`` operations that ended before, and specifications that nobody else needs; their ids."""
    columns = (
        operations.c.operation_id,
        operations.c.operation_type,
        operations.c.status,
        operations.c.spec_digest,
    )
    old = select(*columns).where(
        operations.c.compacted.in_((0, 1)), operations.c.completed_us < before_us
    )  # both, so that the index is used
    rows = connection.execute(old.limit(limit).with_for_update(skip_locked=True)).all()
    tally, ids, digests = Tally(), [], set()
    for operation_id, kind, status, digest in rows:
        if OperationStatus(status).terminal:
            tally.change(OperationType(kind), OperationStatus(status), -1)
            ids.append(operation_id)
            digests.add(digest)
    if ids:
        connection.execute(delete(operations).where(operations.c.operation_id.in_(ids)))
        forget_specs(connection, digests)
        tally.write(connection)
    return ids


def forget_specs(connection: Connection, digests: set[str]) -> None:
    """Delete those of the specifications that no operation has."""
    used = exists().where(operations.c.spec_digest == specs.c.digest)
    connection.execute(delete(specs).where(specs.c.digest.in_(sorted(digests)), ~used))
