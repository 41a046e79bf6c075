"""The ledger's one writer thread: whatever waits is written in one transaction, and acknowledged once it is durable.

A commit costs an fsync, whether it carries one submission or fifty. While one batch is being committed the next
one gathers; so the cost per submission falls as the load grows, and an idle ledger waits for nobody.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from ktrdr.errors import Unavailable
from ktrdr.operations.sql.changes import Change, Outcome, Unit
from ktrdr.operations.sql.fence import Fence

__all__ = ["GroupWriter"]

_BATCH = 256
T = TypeVar("T")
Work = Callable[[Connection], Any]
Entry = tuple[Change | Work, "Future[Any]"]


class GroupWriter:
    """Makes changes and runs other pieces of work, one after the other on one connection.

    Laws
    ----
    - Work is done in the order it was handed in: changes of operations together as a :class:`Unit`, each other piece
      in a savepoint of its own. A piece that raises changes nothing and harms no other.
    - A future gets its result only after the transaction that carries the work was committed; if the commit
      fails, every piece of the batch gets the error.
    - ``close`` finishes what was handed in before it.

    ``translate`` turns a driver's error into one of ktrdr's (others pass through). ``transactions`` counts commits.
    ``fence`` is that of a backend that shares the ledger with others.
    """

    def __init__(
        self, engine: Engine, translate: Callable[[BaseException], BaseException], max_failures: int = 3
    ) -> None:
        self.transactions = 0
        self._engine = engine
        self._translate = translate
        self._max_failures = max_failures
        self.fence: Fence | None = None
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._next: Entry | None = None
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
        return self._hand_in(work)

    def make(self, change: Change) -> Future[Any]:
        """Hand in a change of operations; the future brings its result, as :mod:`ktrdr.operations.sql.changes` tells.

        Raises
        ------
        Unavailable
            If the writer is closed.
        """
        return self._hand_in(change)

    def _hand_in(self, work: Change | Work) -> Future[Any]:
        future: Future[Any] = Future()
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
                self._answer(batch)
            if last:
                return

    def _gather(self) -> tuple[list[Entry], bool]:
        """Wait for one piece, then take all of its kind that are there; the flag says that it was the last call."""
        batch: list[Entry] = []
        entry, self._next = self._next or self._queue.get(), None
        while entry is not None:
            if batch and isinstance(entry[0], Change) is not isinstance(batch[0][0], Change):
                self._next = entry
                return batch, False
            if entry[1].set_running_or_notify_cancel():
                batch.append(entry)
            if len(batch) >= _BATCH:
                return batch, False
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _answer(self, batch: list[Entry]) -> None:
        works = [work for work, _ in batch]
        changes = [work for work in works if isinstance(work, Change)]
        outcomes = self._together(changes) if changes else self._one_by_one([w for w in works if callable(w)])
        for (_, future), (result, problem) in zip(batch, outcomes, strict=True):
            if problem is None:
                future.set_result(result)
            else:
                future.set_exception(problem)

    def _together(self, changes: list[Change]) -> list[Outcome]:
        """As one unit; if the database refuses that, piece by piece, so that the guilty one is found."""
        begun = made = lost = False
        try:
            with self._engine.begin() as connection:
                begun = True
                try:
                    outcomes = Unit(connection, self._max_failures, self.fence).perform(changes)
                    made = True
                finally:
                    lost = connection.invalidated
            self.transactions += 1
        except BaseException as error:  # the thread's edge: whatever it is, the waiting callers must learn it
            if begun and not made and not lost and len(changes) > 1:
                return self._one_by_one([partial(self._alone, change) for change in changes])
            return [(None, self._translate(error))] * len(changes)
        return outcomes

    def _alone(self, change: Change, connection: Connection) -> Any:
        [(result, problem)] = Unit(connection, self._max_failures, self.fence).perform([change])
        if problem is not None:
            raise problem
        return result

    def _one_by_one(self, works: list[Work]) -> list[Outcome]:
        try:
            with self._engine.begin() as connection:
                outcomes = [self._isolated(connection, work) for work in works]
            self.transactions += 1
        except BaseException as error:  # as above
            return [(None, self._translate(error))] * len(works)
        return outcomes

    def _isolated(self, connection: Connection, work: Work) -> Outcome:
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
