"""The backend's pulse: probes, what they prove, leases that ended, workers to forget."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence, Set
from functools import partial
from math import ceil

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerEndpoint, WorkerRegistry
from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import KtrdrError, NotFound, Unavailable
from ktrdr.logs import about
from ktrdr.operations.events import LeaseExpired, NotMine, WorkerLost
from ktrdr.operations.model import Assignment
from ktrdr.protocol.messages import HealthView
from ktrdr.settings import ControlSettings

__all__ = ["HealthLoop", "probe_groups"]

_log = logging.getLogger("ktrdr.backend")
_AT_ONCE = 32  # probes that set out in one moment: some milliseconds of work
_TICK_S = 0.02
_SPREAD = 0.8  # of the interval, over which the probes of a large fleet set out
_LEAST_PAUSE = 0.1  # of the interval, between two rounds


class HealthLoop:
    """Probes all workers every ``health_interval_s`` and sweeps leases a few times per lease.

    A few dozen probes set out at once. Those of a large fleet set out in groups that are spread over the interval,
    so that neither the backend nor its network sees ten thousand requests in one moment; nobody waits for an answer
    before the next group.

    Laws
    ----
    - A probe that names (operation, attempt) renews that operation's lease; it never changes a terminal one.
    - A worker that is idle although it accepted an attempt before the probe was sent is asked once more, for the
      operation itself; only if it does not know it, the attempt is lost.
    - After a start of the backend no lease ends before one full lease has passed; nor after the ledger was away or
      the backend stood still, because nobody could renew one meanwhile. Wall clocks have no say in it.
    - No exception ends the loops.
    """

    def __init__(
        self,
        operations: OperationsService,
        registry: WorkerRegistry,
        fleet: Fleet,
        clock: Clock,
        control: ControlSettings,
    ) -> None:
        self._operations = operations
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._control = control
        self._probing: set[str] = set()
        self.worthless: Callable[[Collection[str]], Awaitable[Set[str]]] = _none

    async def run_probes(self) -> None:
        """Probe for ever; a round begins one interval after the one before, or soon after that one's end."""
        interval_s = self._control.health_interval_s
        while True:
            began = self._clock.monotonic()
            await self._guarded("Probing", self.round)
            spent_s = self._clock.monotonic() - began
            await asyncio.sleep(max(interval_s - spent_s, interval_s * _LEAST_PAUSE))

    async def run_sweeps(self) -> None:
        """Sweep leases for ever."""
        lease_s = self._control.lease_s
        pause_s = min(lease_s / 4, self._control.health_interval_s)
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(pause_s)
            if (late_s := self._clock.monotonic() - before - pause_s) > lease_s / 4:
                _log.warning("The backend stood still for %.0f s; leases get a full period", late_s)
                self._operations.leases.honour_all()
            await self._guarded("Sweeping leases", self.sweep)

    async def _guarded(
        self, what: str, work: Callable[[], Awaitable[None]], worker_id: str | None = None
    ) -> None:
        with about(worker_id=worker_id):
            try:
                await work()
            except Unavailable as error:
                _log.warning("%s failed: %s", what, error)
            except Exception:  # the edge of a background job: the loop outlives everything
                _log.exception("%s failed; going on", what)

    async def round(self) -> None:
        """One probe of every worker; then forget those that were away too long."""
        workers = [worker.worker_id for worker in self._registry]
        groups, pause_s = probe_groups(workers, self._control.health_interval_s)
        async with asyncio.TaskGroup() as probes:
            for number, group in enumerate(groups):
                if number:
                    await asyncio.sleep(pause_s)
                for worker_id in group:
                    probe = partial(self.probe, worker_id)
                    probes.create_task(self._guarded("A probe", probe, worker_id))
        await self.dismiss()
        for worker in self._registry.overdue():
            with about(worker_id=worker.worker_id):
                _log.warning("Worker %s was unreachable for too long and is forgotten", worker.worker_id)
                await self.forget(worker.worker_id, "unreachable for too long")
        self._operations.wake()

    def dismiss_soon(self) -> None:
        """A token is worthless now: see in the background whom that concerns."""
        self._fleet.spawn(self.dismiss(), "dismiss workers whose token is gone")

    async def dismiss(self) -> None:
        """Forget workers whose token is worthless by now: nobody would hear of the end of what they are given."""
        shown = {token for worker in self._registry if (token := worker.record.enrolled_by) is not None}
        worthless = await self.worthless(shown) if shown else shown
        for known in self._registry if worthless else ():
            worker = self._registry.find(known.worker_id)
            # as it is now: meanwhile it may have registered again, with another token
            if worker is not None and worker.record.enrolled_by in worthless:
                with about(worker_id=worker.worker_id):
                    _log.warning(
                        "Worker %s is forgotten: its token was revoked or has expired", worker.worker_id
                    )
                    await self.forget(worker.worker_id, "its token was revoked or has expired")

    def probe_soon(self, worker_id: str) -> None:
        """Probe one worker in the background, unless that is under way."""
        if worker_id not in self._probing:
            self._fleet.spawn(self.probe(worker_id), f"probe {worker_id}", worker_id=worker_id)

    async def probe(self, worker_id: str) -> None:
        """Ask one worker how it is and draw the conclusions."""
        worker = self._registry.find(worker_id)
        if worker is None or worker_id in self._probing:
            return
        self._probing.add(worker_id)
        try:
            revision = worker.revision
            accepted = worker.reserved_for if worker.accepted else None
            try:
                view = await self._fleet.probe(worker.record.endpoint_url).health()
            except KtrdrError as error:
                self._failed(worker, str(error))
                return
            if self._registry.find(worker_id) is worker:
                await self.observe(worker, view, revision, accepted)
        finally:
            self._probing.discard(worker_id)

    def _failed(self, worker: WorkerEndpoint, reason: str) -> None:
        self._registry.contact_failed(worker, reason)
        if worker.failures == self._control.health_failures:
            _log.warning("Worker %s is unavailable: %s", worker.worker_id, reason)

    async def observe(
        self,
        worker: WorkerEndpoint,
        view: HealthView,
        revision: int,
        accepted: tuple[str, int] | None,
    ) -> None:
        """Conclude from a probe that was sent when ``revision`` and ``accepted`` held."""
        record = worker.record
        if (view.worker_id, view.instance_id) != (record.worker_id, record.instance_id):
            other = "another worker" if view.worker_id != record.worker_id else "a new incarnation of it"
            self._failed(worker, f"At {record.endpoint_url} answers {other} that has not registered yet.")
            return
        was_free = self._registry.is_free(worker)
        fresh = self._registry.heard(worker, view, revision)
        if view.current_operation is not None and view.current_attempt is not None:
            progress = None if view.progress is None else view.progress.told()
            await self._operations.vouch(
                record.worker_id, record.instance_id, view.current_operation, view.current_attempt, progress
            )
            self._operations.logs.noticed(worker, view)
        if fresh and accepted is not None and view.current_operation != accepted[0]:
            await self._missing(worker, *accepted)
        if not was_free and self._registry.is_free(worker):
            self._operations.wake()

    async def _missing(self, worker: WorkerEndpoint, operation_id: str, attempt: int) -> None:
        """The worker does not say that it runs what it had accepted: finished and about to deliver, or lost?"""
        assignment = Assignment(worker.worker_id, worker.record.instance_id, attempt)
        with about(operation_id=operation_id):
            try:
                await self._fleet.of(worker).operation(operation_id)
                # its end may be in the ledger although the backend was told that it was not written
                await self._operations.release_if_over(operation_id, assignment)
            except NotFound:
                await self._operations.apply(operation_id, NotMine(assignment))
            except KtrdrError as error:
                _log.info(
                    "Worker %s did not say what became of %s: %s", worker.worker_id, operation_id, error
                )

    async def sweep(self) -> None:
        """End the leases that nobody renewed."""
        leases = self._operations.leases
        with leases.look():
            try:
                live = await self._operations.store.live()
            except Unavailable:
                leases.honour_all()
                raise
            ended = leases.ended(live)
        self._operations.progress.retain(live)
        for operation in ended:
            assignment = operation.assignment
            if assignment is not None:
                with about(operation_id=operation.operation_id, worker_id=assignment.worker_id):
                    _log.warning("The lease of %s on %s ended", operation.operation_id, assignment.worker_id)
                    self._doubt(assignment.worker_id)
                    expired = LeaseExpired(assignment, operation.lease_expires_at)
                    await self._operations.apply(operation.operation_id, expired)

    def _doubt(self, worker_id: str) -> None:
        """A worker that let a lease end gets no work, least of all the same, until it answers a probe."""
        worker = self._registry.find(worker_id)
        if worker is not None:
            self._registry.contact_failed(worker, "It did not vouch for what it ran until the lease ended.")

    async def forget(self, worker_id: str, reason: str) -> None:
        """Remove a worker; what it held goes back to the queue. One that registers, or is given work, meanwhile stays."""
        worker = self._registry.find(worker_id)
        held = None if worker is None else worker.reserved_for
        async with self._registry.writing.of(worker_id):
            await self._operations.store.delete_worker(worker_id)
            now = self._registry.find(worker_id)
            if now is not None and (now is not worker or now.reserved_for not in (held, None)):
                await self._operations.store.save_worker(now.record)
                return
            self._registry.remove(worker_id)
        await self.lose(worker_id, None, reason)

    async def lose(self, worker_id: str, but_instance: str | None, reason: str) -> None:
        """Give up everything that incarnations of the worker other than ``but_instance`` hold."""
        for operation in await self._operations.store.held(worker_id):
            assignment = operation.assignment
            if assignment is not None and assignment.instance_id != but_instance:
                await self._operations.apply(operation.operation_id, WorkerLost(assignment, reason))


async def _none(_: Collection[str]) -> Set[str]:
    return frozenset()


def probe_groups(workers: Sequence[str], interval_s: float) -> tuple[list[Sequence[str]], float]:
    """The workers in groups that are probed together, and the pause between two groups."""
    moments = max(1, int(interval_s * _SPREAD / _TICK_S))
    size = max(_AT_ONCE, ceil(len(workers) / moments))
    return [workers[first : first + size] for first in range(0, len(workers), size)], _TICK_S
