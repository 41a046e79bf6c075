"""The ledger's one writer thread: whatever waits is written in one transaction, and acknowledged once it is durable.

A commit costs an fsync, whether it carries one submission or fifty. While one batch is being committed the next
one gathers; so the cost per submission falls as the load grows, and an idle ledger waits for nobody.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from ktrdr.errors import Unavailable

__all__ = ["GroupWriter"]

_BATCH = 256
T = TypeVar("T")
Work = Callable[[Connection], Any]


class GroupWriter:
    """Runs pieces of work one after the other on one connection.

    Laws
    ----
    - Work runs in the order it was handed in, each in a savepoint of its own: a piece that raises changes nothing
      and harms no other.
    - A future gets its result only after the transaction that carries the work was committed; if the commit
      fails, every piece of the batch gets the error.
    - ``close`` finishes what was handed in before it.

    ``translate`` turns a driver's error into one of ktrdr's (others pass through). ``transactions`` counts commits.
    """

    def __init__(self, engine: Engine, translate: Callable[[BaseException], BaseException]) -> None:
        self.transactions = 0
        self._engine = engine
        self._translate = translate
        self._queue: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="ledger-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[Connection], T]) -> Future[T]:
        """Hand in ``work``; the future completes when it is durable.

        Raises
        ------
        Unavailable
            If the writer is closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise Unavailable("The ledger is closed.")
            self._queue.put((work, future))
        return future

    def close(self) -> None:
        """Finish, then stop the thread. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            batch, last = self._gather()
            if batch:
                self._write(batch)
            if last:
                return

    def _gather(self) -> tuple[list[tuple[Work, Future[Any]]], bool]:
        """Wait for one piece, then take all that are there; the flag says that it was the last call."""
        batch: list[tuple[Work, Future[Any]]] = []
        entry = self._queue.get()
        while entry is not None:
            if entry[1].set_running_or_notify_cancel():
                batch.append(entry)
            if len(batch) >= _BATCH:
                return batch, False
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _write(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                outcomes = [self._isolated(connection, work) for work, _ in batch]
            self.transactions += 1
        except BaseException as error:  # the thread's edge: whatever it is, the waiting callers must learn it
            failure = self._translate(error)
            outcomes = [(None, failure)] * len(batch)
        for (_, future), (result, problem) in zip(batch, outcomes, strict=True):
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(problem)

    def _isolated(self, connection: Connection, work: Work) -> tuple[Any, BaseException | None]:
        savepoint = connection.begin_nested()
        try:
            result = work(connection)
        except BaseException as error:  # handed to the caller; the others of the batch go on
            if connection.invalidated:
                raise  # the session is gone, and with it the whole transaction
            savepoint.rollback()
            return None, self._translate(error)
        savepoint.commit()
        return result, None
