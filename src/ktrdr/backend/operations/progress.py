"""Progress on demand: clients' polls pull it from the worker, at most once per second and one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.clock import Clock
from ktrdr.errors import KtrdrError
from ktrdr.operations.model import Operation
from ktrdr.operations.progress import Progress
from ktrdr.protocol.messages import ProgressView

__all__ = ["ProgressReader"]

_PATIENCE_S = (
    1.0  # a poll is answered with what is known rather than kept waiting for a slow worker or ledger
)


@dataclass(slots=True)
class _Known:
    attempt: int
    view: ProgressView  # never further than the ledger
    asked_at: float
    heard: Progress | None = None  # from the last probe; shown once it is in the ledger
    asking: asyncio.Task[None] | None = None


class ProgressReader:
    """Caches each running operation's progress for ``ttl_s``.

    However many clients poll, one request is under way to a worker, and none if the cached answer is younger than
    ``ttl_s``. At most ``remembered`` operations are known: a poll that began before an operation's end makes it known
    again after its end, and an end that another backend recorded is not heard of here. :meth:`retain` forgets those.

    Within an attempt progress never goes back, not even over a restart of the backend or from one backend to another:
    ``keep`` puts it into the ledger before anybody is shown it. While it cannot, what the ledger has is shown.
    """

    def __init__(
        self,
        registry: WorkerRegistry,
        fleet: Fleet,
        clock: Clock,
        ttl_s: float,
        keep: Callable[[Operation, Progress], Awaitable[Operation]],
        *,
        remembered: int = 1_000,
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._keep = keep
        self._ttl_s, self._remembered = ttl_s, remembered
        self._known: dict[str, _Known] = {}

    def __len__(self) -> int:
        """How many operations are known."""
        return len(self._known)

    async def read(self, operation: Operation) -> ProgressView:
        """The operation's progress, asked for if the known one is too old."""
        entry = self._entry(operation)
        if entry.asking is None and self._clock.monotonic() - entry.asked_at >= self._ttl_s:
            self._begin(operation, entry, partial(self._ask, operation, entry))
        if entry.asking is not None:
            await asyncio.wait({entry.asking}, timeout=_PATIENCE_S)
        return entry.view

    async def known(self, operations: Sequence[Operation]) -> list[ProgressView]:
        """What probes told of each operation; no worker is asked."""
        entries = [self._entry(operation) for operation in operations]
        keeping = {
            self._begin(operation, entry, partial(self._show, operation, entry, entry.heard))
            for operation, entry in zip(operations, entries, strict=True)
            if entry.heard is not None and entry.asking is None
        }
        if keeping:
            await asyncio.wait(keeping, timeout=_PATIENCE_S)
        return [entry.view for entry in entries]

    def told(self, operation_id: str, attempt: int, progress: Progress | None) -> None:
        """A worker said this of itself when it was probed."""
        entry = self._known.get(operation_id)
        if progress is None or (entry is not None and entry.attempt != attempt):
            return
        if entry is None:
            asked_at = self._clock.monotonic() - self._ttl_s
            entry = _Known(attempt, ProgressView.of(None), asked_at)
            self._remember(operation_id, entry)
        entry.heard = progress

    def forget(self, operation_id: str) -> None:
        """The operation has ended; its record holds the last progress."""
        self._known.pop(operation_id, None)

    def retain(self, live: Iterable[Operation]) -> None:
        """Forget all but these, which are what the ledger says is running."""
        names = {operation.operation_id for operation in live}
        self._known = {name: entry for name, entry in self._known.items() if name in names}

    def _entry(self, operation: Operation) -> _Known:
        entry = self._known.get(operation.operation_id)
        recorded = ProgressView.of(operation.progress)
        if entry is None or entry.attempt != operation.attempt:
            entry = _Known(operation.attempt, recorded, -self._ttl_s + self._clock.monotonic())
            self._remember(operation.operation_id, entry)
        entry.view = _further(entry.view, recorded)
        return entry

    def _remember(self, operation_id: str, entry: _Known) -> None:
        self._known.pop(operation_id, None)
        self._known[operation_id] = entry
        if len(self._known) > self._remembered:
            del self._known[next(iter(self._known))]

    def _begin(
        self, operation: Operation, entry: _Known, work: Callable[[], Awaitable[None]]
    ) -> asyncio.Task[None]:
        async def attempt() -> None:
            with contextlib.suppress(KtrdrError):  # the poll is answered with what the ledger has
                await work()

        def over(_: asyncio.Task[None]) -> None:  # also if it was cancelled before it began
            entry.asking = None

        entry.asking = task = self._fleet.spawn(
            attempt(),
            f"progress {operation.operation_id}",
            operation_id=operation.operation_id,
            worker_id=operation.worker_id,
        )
        task.add_done_callback(over)
        return task

    async def _ask(self, operation: Operation, entry: _Known) -> None:
        try:
            progress = await self._asked(operation) or entry.heard
            if progress is not None:
                await self._show(operation, entry, progress)
        finally:
            entry.asked_at = self._clock.monotonic()

    async def _asked(self, operation: Operation) -> Progress | None:
        worker = self._registry.find(operation.worker_id or "")
        with contextlib.suppress(KtrdrError):  # the probes judge the worker
            if worker is not None:
                view = await self._fleet.of(worker).operation(operation.operation_id)
                return view.progress.told() if view.attempt == operation.attempt else None
        return None

    async def _show(self, operation: Operation, entry: _Known, progress: Progress) -> None:
        new = ProgressView.of(progress)
        entry.heard = None
        if new != entry.view and _further(entry.view, new) is new:
            kept = await self._keep(operation, progress)
            if kept.attempt == entry.attempt:
                entry.view = _further(entry.view, ProgressView.of(kept.progress))


def _further(old: ProgressView, new: ProgressView) -> ProgressView:
    return new if (new.percentage, new.items_done) >= (old.percentage, old.items_done) else old
