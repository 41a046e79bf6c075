"""What backends of one ledger share beside the operations: how workers are, and whose files belong to the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.dialects import postgresql

from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.tables import cluster, worker_states

__all__ = ["Board", "SqlBoard", "Storage", "WorkerState"]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the leader learned from a worker's probes and reports, as far as it matters to those who ask."""

    worker_id: str
    failures: int = 0
    failure: str | None = None
    drains_itself: bool = False
    busy_with: str | None = None
    seen: bool = True


@dataclass(frozen=True, slots=True)
class Storage:
    """Which files belong to a ledger: the identity of their folder, and where it was when that was noted."""

    identity: str
    place: str


class Board(Protocol):
    """Where the leader puts up how workers are, and the others read it."""

    async def post(self, states: Iterable[WorkerState], gone: Collection[str] = ()) -> None:
        """Put up what changed; only the leader may (NotLeader)."""

    async def states(self) -> Mapping[str, WorkerState]:
        """What is put up, by worker id; workers of whom nothing is said are well."""


class SqlBoard:
    """The board in a ledger in PostgreSQL."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def post(self, states: Iterable[WorkerState], gone: Collection[str] = ()) -> None:
        rows = [
            {
                "worker_id": state.worker_id,
                "failures": state.failures,
                "failure": state.failure,
                "drains_itself": int(state.drains_itself),
                "busy_with": state.busy_with,
                "seen": int(state.seen),
            }
            for state in states
        ]
        names = [*(row["worker_id"] for row in rows), *gone]

        def work(connection: Connection) -> None:
            connection.execute(delete(worker_states).where(worker_states.c.worker_id.in_(names)))
            if rows:
                connection.execute(insert(worker_states), rows)

        await self._store.write(work, guarded=True)

    async def states(self) -> Mapping[str, WorkerState]:
        def work(connection: Connection) -> dict[str, WorkerState]:
            rows = connection.execute(select(worker_states)).mappings()
            return {
                row["worker_id"]: WorkerState(
                    row["worker_id"],
                    row["failures"],
                    row["failure"],
                    bool(row["drains_itself"]),
                    row["busy_with"],
                    bool(row["seen"]),
                )
                for row in rows
            }

        return await self._store.read(work)

    def storage(self) -> Storage | None:
        """Whose files belong to this ledger, as far as that was noted. Blocks."""
        return self._store.write_now(_storage)

    def note_storage(self, ours: Storage) -> Storage:
        """Note it, unless that was done already; returns what is noted then. Blocks."""

        def work(connection: Connection) -> Storage:
            if (noted := _storage(connection)) is not None:
                return noted
            values = {"storage_id": ours.identity, "storage_place": ours.place}
            row = postgresql.insert(cluster).values(id=1, epoch=0, **values)
            unnoted = cluster.c.storage_id.is_(None)
            connection.execute(row.on_conflict_do_update(index_elements=["id"], set_=values, where=unnoted))
            return _storage(connection) or ours

        return self._store.write_now(work)


def _storage(connection: Connection) -> Storage | None:
    columns = cluster.c.storage_id, cluster.c.storage_place
    row = connection.execute(select(*columns).where(cluster.c.id == 1).with_for_update()).first()
    return None if row is None or row[0] is None else Storage(row[0], row[1] or "")
