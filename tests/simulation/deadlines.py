"""Laws about what must happen in time; looked at every few seconds, where nothing that happens could break them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ktrdr.backend.fleet.registry import WORKER_TYPE, WorkerEndpoint
from ktrdr.operations.model import Operation, OperationType
from ktrdr.settings import ControlSettings
from ktrdr.workers.outbox import entry_key
from simulation.backends import Backends
from simulation.choice import is_free
from simulation.laws import Laws
from simulation.plan import Weather
from simulation.worker import SimulatedWorker

__all__ = ["Deadlines"]

_LEASE_SLACK_S = 35.0  # two sweeps, and a ledger that takes its time
_IDLE_S = 20.0
_STRANGER_S = 90.0  # 30 s of silence, then half a minute between two attempts at most
_LOOKED_AT = 200  # of a queue, for work that a worker may take


class Deadlines:
    """Compares what was so at every look for a while with what may be so only for a moment."""

    def __init__(
        self,
        laws: Laws,
        control: ControlSettings,
        machine: Backends,
        workers: Sequence[SimulatedWorker],
    ) -> None:
        self._laws, self._control, self._machine, self._workers = laws, control, machine, workers
        self._idle: dict[str, tuple[float, int]] = {}  # worker: since when it could have worked, and its turn
        self._strange: dict[str, float] = {}  # worker: since when the backend has not known it

    def look(self, now: float) -> None:
        """Called from time to time; raises Violation."""
        self._leases(now)
        self._names()
        if not self._machine.ready:
            self._idle.clear()
            return
        self._conserved(now)
        if self._machine.weather == Weather.calm():
            self._known(now)

    def _leases(self, now: float) -> None:
        """Measured from whatever gave it a full period last: a sign of life, a start, trouble with the ledger."""
        limit = self._control.lease_s + _LEASE_SLACK_S
        if not self._machine.ready:
            return
        since = max(self._machine.started_at, self._machine.trouble.failed_at)
        for name, heard in self._laws.quiet.items():
            if now - heard <= limit:
                return  # the others were heard later
            self._laws.demand(
                now - max(heard, since) <= limit,
                "a lease that nobody renews ends",
                f"nobody vouched for it since {heard}",
                name,
            )

    def _names(self) -> None:
        for worker in self._workers:
            if worker.process is None:
                continue
            named = worker.slot.visible()
            if named is None or named.ending is None or named.delivery != "waiting":
                continue
            self._laws.demand(
                worker.outbox.holds(entry_key(named.ending)),
                "a worker names what it runs or has to deliver, nothing else",
                f"{worker.instance_id} waits for an acknowledgement that it has",
                named.run.operation_id,
            )

    def _conserved(self, now: float) -> None:
        """A worker that the backend holds for free is not left idle while something waits that it may do."""
        waiting = {kind: list(self._waiting(kind)) for kind in OperationType}
        wanted = {WORKER_TYPE[kind] for kind, operations in waiting.items() if operations}
        idle: dict[str, tuple[float, int]] = {}
        for worker in self._machine.backend.registry:
            may_work = worker.record.worker_type in wanted and is_free(worker)
            fits = _first_fit(worker, waiting) if may_work else None
            if fits is None:
                continue
            since, turn = self._idle.get(worker.worker_id, (now, worker.turn))
            if turn != worker.turn:
                since = now
            idle[worker.worker_id] = (since, worker.turn)
            self._laws.demand(
                now - max(since, self._machine.trouble.failed_at) < _IDLE_S,
                "what waits gets the worker that is free",
                f"{worker.worker_id} has been free since {since}, and {fits} waits",
                fits,
            )
        self._idle = idle

    def _waiting(self, kind: OperationType) -> Iterator[Operation]:
        if kind in self._machine.paused_types or self._machine.disk.holds_back(kind):
            return iter(())
        return self._machine.disk.waiting(kind, self._machine.clock.now(), _LOOKED_AT)

    def _known(self, now: float) -> None:
        """In fine weather a worker that lives is registered, whoever forgot it."""
        registry = self._machine.backend.registry
        for worker in self._workers:
            found = registry.find(worker.worker_id)
            if (
                (found is not None and found.record.instance_id == worker.instance_id)
                or worker.process is None
                or worker.paused is not None
                or worker.slot.closed
                or self._laws.passes.withdrawn(worker.token)
            ):
                self._strange.pop(worker.worker_id, None)
                continue
            since = max(self._strange.setdefault(worker.worker_id, now), self._machine.started_at)
            since = max(since, worker.misled_at)
            self._laws.demand(
                now - since < _STRANGER_S,
                "a worker that lives is registered",
                f"{worker.instance_id} has been unknown since {since}",
            )


def _first_fit(worker: WorkerEndpoint, waiting: dict[OperationType, list[Operation]]) -> str | None:
    for kind, operations in waiting.items():
        if WORKER_TYPE[kind] is worker.record.worker_type:
            for operation in operations:
                if worker.gpu or not operation.requirements.get("require_gpu"):
                    return operation.operation_id
    return None
