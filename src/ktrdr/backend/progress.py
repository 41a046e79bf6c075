"""Progress on demand: clients' polls pull it from the worker, at most once per second and one request at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ktrdr.backend.fleet import Fleet
from ktrdr.backend.registry import WorkerRegistry
from ktrdr.clock import Clock
from ktrdr.errors import KtrdrError
from ktrdr.operations.model import Operation
from ktrdr.operations.progress import Progress
from ktrdr.protocol.messages import ProgressView

__all__ = ["ProgressReader"]

_PATIENCE_S = 1.0  # a poll is answered with what is known rather than kept waiting for a slow worker


@dataclass(slots=True)
class _Known:
    attempt: int
    view: ProgressView
    asked_at: float
    asking: asyncio.Task[None] | None = None


class ProgressReader:
    """Caches each running operation's progress for ``ttl_s``.

    However many clients poll, one request is under way to a worker, and none if the cached answer is younger than
    ``ttl_s``. Within an attempt progress never goes back. At most ``remembered`` operations are known: a poll that
    began before an operation's end makes it known again after its end, and nobody would forget it then.
    """

    def __init__(
        self, registry: WorkerRegistry, fleet: Fleet, clock: Clock, ttl_s: float, *, remembered: int = 1_000
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._ttl_s, self._remembered = ttl_s, remembered
        self._known: dict[str, _Known] = {}

    def __len__(self) -> int:
        """How many operations are known."""
        return len(self._known)

    async def read(self, operation: Operation) -> ProgressView:
        """The operation's progress, asked for if the known one is too old."""
        entry = self._entry(operation)
        if entry.asking is None and self._clock.monotonic() - entry.asked_at >= self._ttl_s:
            entry.asking = self._fleet.spawn(
                self._ask(operation, entry),
                f"progress {operation.operation_id}",
                operation_id=operation.operation_id,
                worker_id=operation.worker_id,
            )
        if entry.asking is not None:
            await asyncio.wait({entry.asking}, timeout=_PATIENCE_S)
        return entry.view

    def known(self, operation: Operation) -> ProgressView:
        """What is known without asking."""
        return self._entry(operation).view

    def told(self, operation_id: str, attempt: int, progress: Progress | None) -> None:
        """A worker said this of itself when it was probed."""
        entry = self._known.get(operation_id)
        if progress is None or (entry is not None and entry.attempt != attempt):
            return
        view = ProgressView.model_construct(  # it was checked when it came
            percentage=progress.percentage,
            message=progress.message,
            items_done=progress.items_done,
            items_total=progress.items_total,
            context=dict(progress.context),
        )
        if entry is None:
            self._remember(operation_id, _Known(attempt, view, self._clock.monotonic() - self._ttl_s))
        else:
            entry.view = _further(entry.view, view)

    def forget(self, operation_id: str) -> None:
        """The operation has ended; its record holds the last progress."""
        self._known.pop(operation_id, None)

    def _entry(self, operation: Operation) -> _Known:
        recorded = ProgressView.of(operation.progress)
        entry = self._known.get(operation.operation_id)
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

    async def _ask(self, operation: Operation, entry: _Known) -> None:
        worker = self._registry.find(operation.worker_id or "")
        try:
            if worker is not None:
                view = await self._fleet.of(worker).operation(operation.operation_id)
                if view.attempt == entry.attempt:
                    entry.view = _further(entry.view, view.progress)
        except KtrdrError:
            pass  # the probes judge the worker; the poll is answered with what is known
        finally:
            entry.asked_at = self._clock.monotonic()
            entry.asking = None


def _further(old: ProgressView, new: ProgressView) -> ProgressView:
    return new if (new.percentage, new.items_done) >= (old.percentage, old.items_done) else old
