"""The workers as a backend knows them that does not talk to them: what the ledger and the leader say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from ktrdr.backend.fleet.registry import WorkerEndpoint, WorkerRegistry
from ktrdr.backend.operations.progress import ProgressReader
from ktrdr.clock import Clock
from ktrdr.errors import Unavailable
from ktrdr.operations.model import Operation, OperationStatus, WorkerRecord
from ktrdr.operations.sql.board import Board, WorkerState
from ktrdr.operations.store import OperationStore

__all__ = ["Mirror", "Poster"]

_log = logging.getLogger("ktrdr.backend")
_IDLE_S = 5.0  # between looks if nobody says that something changed
_LEAST_S = 0.5
_FAILED_S = 1.0
_SHARE = 20  # a look that took long is repeated that many times its duration later, or after _IDLE_S
_POST_S = 1.0
_POSTED_AT_ONCE = 1_000


class Mirror:
    """Keeps the registry of a backend that follows like the leader's.

    What it shows is usually half a second old and, while the ledger answers, never more than twice ``_IDLE_S``; :meth:`fresh` makes it younger before a
    decision. What only talking to a worker tells (when it was probed, its memory) is not known here.
    """

    def __init__(
        self,
        store: OperationStore,
        board: Board,
        registry: WorkerRegistry,
        clock: Clock,
        progress: ProgressReader,
    ) -> None:
        self._store, self._board, self._registry, self._clock = store, board, registry, clock
        self._progress = progress
        self._stale = asyncio.Event()
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self.active = False

    def stale(self) -> None:
        """Something changed."""
        self._stale.set()

    async def run(self) -> None:
        """Look for ever."""
        while True:
            began = self._clock.monotonic()
            try:
                await self.look()
            except Unavailable as error:
                _log.debug("The workers cannot be read: %s", error)
                self._stale.set()
                pause_s = _LEAST_S
            except Exception:  # the edge of a background job: the loop outlives everything
                _log.exception("The workers cannot be read; going on")
                pause_s = _FAILED_S
            else:
                pause_s = _SHARE * (self._clock.monotonic() - began)
            # a look that hung says nothing of how much work the next one is
            await asyncio.sleep(min(max(_LEAST_S, pause_s), _IDLE_S))
            # asyncio.wait_for (3.11) loses a cancel that comes together with the news, and this would never end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._stale.wait()

    async def fresh(self) -> None:
        """Look, unless that was done just now; does nothing while this backend leads and knows by itself."""
        if self.active:
            await self.look(unless_since=self._clock.monotonic() - _LEAST_S)

    async def look(self, unless_since: float = float("inf")) -> None:
        """Make the registry like the ledger, unless a look that began after ``unless_since`` has done so: of many who
        want to know at once, one looks for all."""
        if self._looked_at > unless_since:
            return
        async with self._looking:
            if self._looked_at > unless_since:
                return
            self._stale.clear()
            began = self._clock.monotonic()
            records, live = await self._store.workers(), await self._store.live()
            states = await self._board.states()
            if self.active:  # else this backend began to lead meanwhile
                self._show(records, live, states)
                self._progress.retain(live)
                self._looked_at = began

    def _show(
        self, records: Sequence[WorkerRecord], live: Sequence[Operation], states: Mapping[str, WorkerState]
    ) -> None:
        listed = {record.worker_id for record in records}
        for worker in self._registry:
            if worker.worker_id not in listed:
                self._registry.remove(worker.worker_id)
        held = {operation.worker_id: operation for operation in live if operation.assignment is not None}
        for record in records:
            known = self._registry.find(record.worker_id)
            if known is None or known.record != record:
                if known is not None:
                    self._registry.set_draining(record.worker_id, record.draining)
                known = self._registry.put(record)
            state = states.get(record.worker_id) or WorkerState(record.worker_id)
            holds = held.get(record.worker_id)
            if holds is not None and holds.instance_id != record.instance_id:
                holds = None
            self._registry.told(
                known,
                failures=state.failures,
                failure=state.failure,
                drains_itself=state.drains_itself,
                busy_with=state.busy_with,
                verified=state.seen,
                reserved_for=None if holds is None else (holds.operation_id, holds.attempt),
                accepted=holds is not None and holds.status is not OperationStatus.ASSIGNED,
            )


class Poster:
    """Puts up for the others how the leader's workers are, once a second as far as it changed."""

    def __init__(
        self, board: Board, registry: WorkerRegistry, threshold: int, changed: Callable[[], None]
    ) -> None:
        self._board, self._registry, self._threshold, self._changed = board, registry, threshold, changed
        self._posted: Mapping[str, WorkerState] | None = None
        self._known: dict[str, WorkerRecord] = {}

    async def run(self) -> None:
        """Post for ever."""
        self._posted = None  # another leader may have posted since
        while True:
            try:
                await self.post()
            except Unavailable as error:
                _log.debug("The state of the workers was not put up: %s", error)
            except Exception:  # as above
                _log.exception("The state of the workers was not put up; going on")
            await asyncio.sleep(_POST_S)

    async def post(self) -> None:
        """Put up what changed since the last time."""
        if self._posted is None:
            self._posted = await self._board.states()
        records = {worker.worker_id: worker.record for worker in self._registry}
        told = (self._state(worker) for worker in self._registry)
        states = {state.worker_id: state for state in told if state != WorkerState(state.worker_id)}
        news = [state for name, state in states.items() if state != self._posted.get(name)]
        gone = [name for name in self._posted if name not in states]
        for first in range(0, max(len(news), len(gone)), _POSTED_AT_ONCE):
            piece = slice(first, first + _POSTED_AT_ONCE)
            await self._board.post(news[piece], gone[piece])
        self._posted = states
        if news or gone or records != self._known:
            self._known = records
            self._changed()

    def _state(self, worker: WorkerEndpoint) -> WorkerState:
        """What others should know; single failed probes are no news."""
        failing = worker.failures >= self._threshold
        return WorkerState(
            worker.worker_id,
            self._threshold if failing else 0,
            worker.failure if failing else None,
            worker.drains_itself,
            None if worker.reserved_for else worker.busy_with,
            worker.verified,
        )
