"""The ledger in SQL: SQLAlchemy Core statements behind the store's interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, delete, func, insert, select
from sqlalchemy.exc import DBAPIError

from ktrdr.errors import NotFound, Unavailable
from ktrdr.operations.events import Assigned, Event
from ktrdr.operations.machine import Transition
from ktrdr.operations.microseconds import to_microseconds
from ktrdr.operations.model import (
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerRecord,
)
from ktrdr.operations.references import Mentions
from ktrdr.operations.refusals import not_terminal
from ktrdr.operations.rows import (
    model_from_row,
    row_of_worker,
    worker_from_row,
)
from ktrdr.operations.sql import queries, retention
from ktrdr.operations.sql.access import SqlAccess
from ktrdr.operations.sql.changes import Apply, Change, Claims, Submit, save_model
from ktrdr.operations.sql.fence import Fence
from ktrdr.operations.sql.mentions import Place, read_mentions
from ktrdr.operations.sql.pauses import read_pauses, write_pauses
from ktrdr.operations.sql.place import ledger_place
from ktrdr.operations.sql.places import queue_positions
from ktrdr.operations.sql.postgres import LedgerServer, LostRace
from ktrdr.operations.sql.roundtrips import alone
from ktrdr.operations.sql.sqlite import LedgerFile
from ktrdr.operations.sql.tables import models, operations, workers
from ktrdr.operations.sql.tally import Tally
from ktrdr.operations.sql.together import Together
from ktrdr.operations.sql.writer import GroupWriter
from ktrdr.operations.store import Claim, OperationPage, OperationQuery, OperationStore, absent

__all__ = ["SqlStore"]

T = TypeVar("T")
_READERS = 2
_RACES = 5


class SqlStore(OperationStore):
    """A durable ledger in a SQLite file or a PostgreSQL database.

    Opening makes or migrates the tables. A file is locked, so one process owns it at a time; a database may be open in
    several (``fence`` then guards what the leader alone writes). Changes run on one writer thread (:class:`GroupWriter`), reads on ``_READERS`` others; an event loop never blocks.

    Parameters
    ----------
    where
        A path, an ``sqlite:///`` URL, or a ``postgresql+psycopg://`` URL.
    max_failures
        Handed to ``machine.step``.
    module
        The DB-API module to use instead of the newest SQLite found, or of psycopg.
    patience_s
        After so long a read raises Unavailable. A change is waited for, because half-known it would be worse.

    Raises
    ------
    InvalidSetting, MissingExtra, Unavailable
        As :class:`ktrdr.operations.sql.sqlite.LedgerFile` and :class:`ktrdr.operations.sql.postgres.LedgerServer`.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        max_failures: int = 3,
        module: ModuleType | None = None,
        patience_s: float = 10.0,
    ) -> None:
        self._patience_s = patience_s
        place = ledger_place(where)
        self._ledger: LedgerFile | LedgerServer
        if isinstance(place, Path):
            self._ledger = LedgerFile(place, readers=_READERS, module=module)
        else:
            self._ledger = LedgerServer(place, readers=_READERS, module=module)
        self._writer = GroupWriter(self._ledger.writer, self._ledger.translate, max_failures)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-reader")
        self._closed = False
        self._access = SqlAccess(self._write, self._read)
        self._positions = Together(self._read_positions)

    @property
    def fence(self) -> Fence | None:
        """Of a backend that shares the ledger with others; None where there are none."""
        return self._writer.fence

    @fence.setter
    def fence(self, fence: Fence) -> None:
        self._writer.fence = fence

    @property
    def access(self) -> SqlAccess:
        return self._access

    @property
    def name(self) -> str:
        """Where the ledger is: the file's path, or the database's URL without credentials."""
        return self._ledger.name

    @property
    def transactions(self) -> int:
        """How many transactions were committed since opening."""
        return self._writer.transactions

    async def submit(self, new: NewOperation, now: datetime, *, assign: Assigned | None = None) -> Operation:
        operation: Operation = await self._make(Submit(new, now, assign))
        return operation

    async def apply(
        self, operation_id: str, event: Event, now: datetime, *, model: ModelRecord | None = None
    ) -> Transition:
        transition: Transition = await self._make(Apply(operation_id, event, now, model))
        return transition

    async def claim(self, claims: Sequence[Claim], now: datetime) -> Sequence[Transition | None]:
        made: Sequence[Transition | None] = await self._make(Claims(tuple(claims), now))
        return made

    async def get(self, operation_id: str) -> Operation:
        return await self._read(partial(alone, partial(queries.find, operation_id=operation_id)))

    async def by_key(self, idempotency_key: str) -> Operation | None:
        return await self._read(partial(alone, partial(queries.by_key, idempotency_key=idempotency_key)))

    async def spec(self, digest: str) -> bytes:
        return await self._read(partial(alone, partial(queries.spec, digest=digest)))

    async def page(self, query: OperationQuery) -> OperationPage:
        return await self._read(partial(queries.page, query=query))

    async def pending(
        self,
        now: datetime,
        limit: int,
        types: Collection[OperationType] = tuple(OperationType),
        without_gpu: Collection[OperationType] = (),
    ) -> Sequence[Operation]:
        chosen = tuple((kind, kind not in without_gpu) for kind in OperationType if kind in types)
        return await self._read(partial(alone, partial(queries.pending, now=now, limit=limit, types=chosen)))

    async def live(self) -> Sequence[Operation]:
        return await self._read(partial(alone, queries.live))

    async def held(self, worker_id: str) -> Sequence[Operation]:
        return await self._read(partial(alone, partial(queries.held, worker_id=worker_id)))

    async def queue_position(self, operation_id: str) -> int | None:
        positions = await self._positions.ask(operation_id)
        if operation_id not in positions:
            raise absent(operation_id)
        return positions[operation_id]

    async def _read_positions(self, ids: Sequence[str]) -> Mapping[str, int | None]:
        return await self._read(partial(queue_positions, ids=ids))

    async def counts(self) -> dict[tuple[OperationType, OperationStatus], int]:
        return await self._read(partial(alone, queries.counts))

    async def delete(self, operation_id: str) -> None:
        await self._write(partial(_delete, operation_id=operation_id))

    async def compact(self, before: datetime, limit: int) -> int:
        return await self._write(partial(retention.compact, before_us=to_microseconds(before), limit=limit))

    async def expire(self, before: datetime, limit: int) -> Sequence[str]:
        return await self._write(partial(retention.expire, before_us=to_microseconds(before), limit=limit))

    async def save_worker(self, worker: WorkerRecord) -> None:
        def work(connection: Connection) -> None:
            self._admit(connection)
            connection.execute(delete(workers).where(workers.c.worker_id == worker.worker_id))
            connection.execute(insert(workers), row_of_worker(worker))

        await self._write(work)

    async def delete_worker(self, worker_id: str) -> None:
        def work(connection: Connection) -> None:
            self._admit(connection)
            connection.execute(delete(workers).where(workers.c.worker_id == worker_id))

        await self._write(work)

    async def workers(self) -> Sequence[WorkerRecord]:
        def work(connection: Connection) -> Sequence[WorkerRecord]:
            rows = connection.execute(select(workers).order_by(workers.c.worker_id)).mappings()
            return tuple(worker_from_row(row) for row in rows)

        return await self._read(work)

    async def save_model(self, model: ModelRecord) -> None:
        await self._write(partial(save_model, model=model))

    async def model(self, model_id: str) -> ModelRecord:
        def work(connection: Connection) -> ModelRecord:
            row = connection.execute(select(models).where(models.c.model_id == model_id)).mappings().first()
            if row is None:
                raise NotFound("model", model_id, valid=connection.scalars(select(models.c.model_id)))
            return model_from_row(row)

        return await self._read(work)

    async def models(self, strategy_name: str | None = None) -> Sequence[ModelRecord]:
        def work(connection: Connection) -> Sequence[ModelRecord]:
            query = select(models).order_by(models.c.created_us.desc(), models.c.model_id.desc())
            if strategy_name is not None:
                query = query.where(models.c.strategy_name == strategy_name)
            return tuple(model_from_row(row) for row in connection.execute(query).mappings())

        return await self._read(work)

    async def mentions(self) -> AsyncIterator[Mentions]:
        after: Place | None = None
        while True:
            found, after = await self._read(partial(read_mentions, after=after))
            yield found
            if after is None:
                return

    async def paused(self) -> Mapping[OperationType, datetime]:
        return await self._read(read_pauses)

    async def set_paused(
        self, types: Collection[OperationType], since: datetime | None
    ) -> Mapping[OperationType, datetime]:
        return await self.write(partial(write_pauses, types=types, since=since), guarded=True)

    async def close(self) -> None:
        """Finish what was handed in, then close the file. Idempotent."""
        if not self._closed:
            await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """``close`` that blocks."""
        self._closed = True
        self._writer.close()
        self._readers.shutdown()
        self._ledger.close()

    @property
    def database(self) -> URL | None:
        """The PostgreSQL database, which several backends may share; None for a file."""
        return self._ledger.url if isinstance(self._ledger, LedgerServer) else None

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of the writer, and wait; for the start of a process, before its event loop."""
        return self._writer.run(work).result()

    async def write(self, work: Callable[[Connection], T], *, guarded: bool = False) -> T:
        """Run ``work`` in a transaction of the writer; ``guarded``: only the leader may."""

        def whole(connection: Connection) -> T:
            if guarded:
                self._admit(connection)
            return work(connection)

        return await self._write(whole)

    async def tell(self, channel: str, text: str) -> None:
        """Send a text to everybody who listens to the channel of a PostgreSQL database."""
        await self._write(lambda connection: connection.execute(select(func.pg_notify(channel, text))))

    def _admit(self, connection: Connection) -> None:
        if self.fence is not None:
            self.fence.admit(connection)

    async def _make(self, change: Change) -> Any:
        return await self._again(lambda: self._writer.make(change))

    async def _write(self, work: Callable[[Connection], T]) -> T:
        return await self._again(lambda: self._writer.run(work))

    async def _again(self, hand_in: Callable[[], Future[T]]) -> T:
        """Hand in what another backend's change got in the way of until it is through."""
        for _ in range(_RACES - 1):
            try:
                return await asyncio.wrap_future(hand_in())
            except LostRace:
                continue
        return await asyncio.wrap_future(hand_in())

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of a reader, over one state of the ledger."""
        return await self._read(work)

    async def _read(self, work: Callable[[Connection], T]) -> T:
        if self._closed:
            raise Unavailable("The ledger is closed.")
        try:
            async with asyncio.timeout(self._patience_s):
                return await asyncio.wrap_future(self._readers.submit(self._read_now, work))
        except TimeoutError:
            told = f"The ledger {self.name} did not answer within {self._patience_s:g} s. Try again."
            raise Unavailable(told, retry_after_s=5.0) from None

    def _read_now(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._ledger.reader.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            raise self._ledger.translate(error) from None


def _delete(connection: Connection, *, operation_id: str) -> None:
    operation = queries.find(connection, operation_id, lock=True)
    if not operation.status.terminal:
        raise not_terminal(operation_id, operation.status)
    connection.execute(delete(operations).where(operations.c.operation_id == operation_id))
    retention.forget_specs(connection, {operation.spec_digest})
    tally = Tally()
    tally.remove(operation)
    tally.write(connection)
