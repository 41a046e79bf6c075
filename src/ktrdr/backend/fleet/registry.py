"""The workers the backend knows: an in-memory table, rebuilt from the ledger at a start.

Everything here is synchronous and belongs to one event loop; so selecting and reserving a worker is one step that
nothing can come between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ktrdr.backend.fleet.keyed_locks import KeyedLocks
from ktrdr.backend.fleet.turns import Standing, Turns
from ktrdr.clock import Clock
from ktrdr.errors import NotFound
from ktrdr.operations.model import Assignment, OperationType, WorkerRecord, WorkerType
from ktrdr.protocol.messages import Capabilities, HealthView, WorkerStatus, WorkerView
from ktrdr.settings import ControlSettings

__all__ = ["WORKER_TYPE", "WorkerEndpoint", "WorkerRegistry", "serves"]

WORKER_TYPE = {
    OperationType.BACKTESTING: WorkerType.BACKTESTING,
    OperationType.TRAINING: WorkerType.TRAINING,
}

_RECENT = 10


def serves(backend: str, worker: str) -> bool:
    """Whether a backend of one version gives work to a worker of another: same minor version or the one before.

    ``0`` means that the worker did not say; it is trusted.
    """
    if worker in ("", "0"):
        return True
    mine, theirs = _minor(backend), _minor(worker)
    return mine[0] == theirs[0] and mine[1] - theirs[1] in (0, 1)


def _minor(version: str) -> tuple[int, int]:
    parts = [int(part) if part.isdecimal() and len(part) < 10 else 0 for part in version.split(".")[:2]]
    major, minor = [*parts, 0, 0][:2]
    return major, minor


@dataclass(slots=True)
class WorkerEndpoint:
    """One worker: what the ledger knows of it, what the last probe said, and what it is reserved for."""

    record: WorkerRecord
    serves: bool = True
    verified: bool = True  # False after a backend restart until the first good probe
    failures: int = 0
    failing_since: float | None = None  # monotonic
    failure: str | None = None
    last_health_check: datetime | None = None
    last_healthy_at: datetime | None = None
    health: HealthView | None = None
    busy_with: str | None = None  # what the worker itself said last, if we did not reserve it for that
    drains_itself: bool = False
    reserved_for: tuple[str, int] | None = None  # operation, attempt
    accepted: bool = False  # the worker has taken what it is reserved for
    turn: int = 0
    last_selected: datetime | None = None
    revision: int = (
        0  # counts reservations, releases and reports: an answer to an older question is not believed
    )
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_RECENT))
    number: int = 0  # in the order of registration
    standing: Standing | None = None  # as the index knows it

    @property
    def worker_id(self) -> str:
        return self.record.worker_id

    @property
    def gpu(self) -> bool:
        return bool(self.record.capabilities.get("gpu"))

    @property
    def current_operation_id(self) -> str | None:
        return self.reserved_for[0] if self.reserved_for else self.busy_with


class WorkerRegistry:
    """Selects, reserves and watches workers.

    Laws
    ----
    - A worker is reserved for at most one (operation, attempt); ``select`` never returns a reserved one.
    - ``health_failures`` failed contacts in a row make a worker temporarily_unavailable; one good contact undoes it.
    - Of the workers that fit, the least recently selected is chosen; for training GPU workers come first.
    - Who writes a worker's record into the ledger holds its lock in ``writing``, and writes what is true then: of two
      writes that overtook each other the older one would stay.
    - Choosing costs the same among ten thousand workers as among ten: an index follows every change (``_settle``).
    """

    def __init__(self, clock: Clock, control: ControlSettings, version: str) -> None:
        self._clock = clock
        self._control = control
        self._version = version
        self._workers: dict[str, WorkerEndpoint] = {}
        self.writing = KeyedLocks()
        self._turn = self._number = 0
        self._turns = Turns()
        self.on_free: Callable[[], None] = lambda: None  # called at once when a worker may be chosen

    def __iter__(self) -> Iterator[WorkerEndpoint]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    def find(self, worker_id: str) -> WorkerEndpoint | None:
        """The worker, or None."""
        return self._workers.get(worker_id)

    def get(self, worker_id: str) -> WorkerEndpoint:
        """The worker; raises NotFound."""
        worker = self._workers.get(worker_id)
        if worker is None:
            raise NotFound(
                "worker", worker_id, valid=self._workers, hint="'ktrdr workers list' shows who is registered"
            )
        return worker

    def put(self, record: WorkerRecord, *, verified: bool = True) -> WorkerEndpoint:
        """Add a worker, or renew one that registers again; a new incarnation holds no reservation.

        Whether it drains is as :meth:`set_draining` left it: that may have come while the registration was written.
        """
        old = self._workers.get(record.worker_id)
        if old is not None:
            record = replace(record, draining=old.record.draining)
        new = WorkerEndpoint(record, verified=verified)
        new.serves = serves(self._version, str(record.capabilities.get("version", "0")))
        if old is not None:
            new.turn, new.last_selected, new.recent = old.turn, old.last_selected, old.recent
            new.revision = old.revision + 1
            if old.record.instance_id == record.instance_id:
                new.reserved_for, new.accepted, new.busy_with = old.reserved_for, old.accepted, old.busy_with
            new.number = old.number
            self._turns.note(old, None)
        else:
            self._number += 1
            new.number = self._number
        self._workers[record.worker_id] = new
        self._settle(new)
        return new

    def remove(self, worker_id: str) -> None:
        """Forget a worker."""
        worker = self._workers.pop(worker_id, None)
        if worker is not None:
            self._turns.note(worker, None)

    def set_draining(self, worker_id: str, draining: bool) -> WorkerRecord:
        """Set or clear the mark; returns the changed record for the ledger."""
        worker = self.get(worker_id)
        worker.record = replace(worker.record, draining=draining)
        self._settle(worker)
        return worker.record

    def _settle(self, worker: WorkerEndpoint) -> None:
        """Bring the index in line with the worker; at the end of whatever changes one."""
        if self._workers.get(worker.worker_id) is worker:
            status = self.status(worker)
            free = status == "available" and worker.verified and worker.failures == 0
            standing = Standing(
                worker.record.worker_type,
                worker.gpu,
                usable=worker.serves and status in ("available", "busy"),
                free=worker.serves and free,
                holds=worker.current_operation_id,
            )
            was_free = self.is_free(worker)
            self._turns.note(worker, standing)
            if standing.free and not was_free:
                self.on_free()

    # --- status -------------------------------------------------------------------------------------------------

    def status(self, worker: WorkerEndpoint) -> WorkerStatus:
        """available, busy, draining or temporarily_unavailable; the first that holds from the end."""
        if worker.failures >= self._control.health_failures:
            return "temporarily_unavailable"
        if worker.record.draining or worker.drains_itself:
            return "draining"
        return "busy" if worker.current_operation_id is not None else "available"

    def usable(self, worker_type: WorkerType, *, gpu: bool = False) -> int:
        """How many workers take or will take work of this type, busy ones included."""
        return self._turns.usable(worker_type, gpu=gpu)

    def idle(self, worker_type: WorkerType, *, gpu: bool = False) -> int:
        """How many of the usable ones run nothing, though they may not be free to be chosen yet."""
        return self._turns.idle(worker_type, gpu=gpu)

    def is_free(self, worker: WorkerEndpoint) -> bool:
        """Whether the worker may be chosen now."""
        return worker.standing is not None and worker.standing.free

    def holds(self, operation_id: str) -> bool:
        """Whether some worker runs the operation or is reserved for it."""
        return self._turns.holds(operation_id)

    def select(
        self,
        worker_type: WorkerType,
        *,
        prefer_gpu: bool = False,
        require_gpu: bool = False,
        rather_not: str | None = None,
    ) -> WorkerEndpoint | None:
        """The worker whose turn it is, or None if none is free.

        A worker whose last contact failed, or that was not probed since the backend started, is passed over.
        ``rather_not`` is chosen only if it is the only one.
        """
        groups = [(True,)] if require_gpu else [(True,), (False,)] if prefer_gpu else [(True, False)]
        for but in dict.fromkeys((rather_not, None)):
            for gpus in groups:
                found = self._turns.first(worker_type, gpus, but)
                if found is not None:
                    return self._workers[found.worker_id]
        return None

    # --- reservations -------------------------------------------------------------------------------------------

    def reserve(self, worker: WorkerEndpoint, operation_id: str, attempt: int) -> None:
        """Hold a free worker for one attempt, before anything is sent to it."""
        self._turn += 1
        worker.turn = self._turn
        worker.last_selected = self._clock.now()
        self._hold(worker, operation_id, attempt, accepted=False)
        if operation_id not in worker.recent:
            worker.recent.appendleft(operation_id)

    def adopt(self, assignment: Assignment, operation_id: str) -> None:
        """Note that the ledger says this worker runs this attempt; unknown workers are left alone."""
        worker = self._workers.get(assignment.worker_id)
        if worker is None or worker.record.instance_id != assignment.instance_id:
            return
        if worker.reserved_for is None or worker.reserved_for[0] == operation_id:
            known = worker.reserved_for == (operation_id, assignment.attempt) and worker.accepted
            if not known:
                self._hold(worker, operation_id, assignment.attempt, accepted=True)

    def _hold(self, worker: WorkerEndpoint, operation_id: str, attempt: int, *, accepted: bool) -> None:
        worker.reserved_for = (operation_id, attempt)
        worker.accepted = accepted
        worker.busy_with = None
        worker.revision += 1
        self._settle(worker)

    def release(self, worker_id: str | None, operation_id: str, attempt: int) -> None:
        """Free the worker if it is reserved for exactly this attempt."""
        worker = self._workers.get(worker_id) if worker_id else None
        if worker is not None and worker.reserved_for == (operation_id, attempt):
            worker.reserved_for, worker.accepted = None, False
            worker.revision += 1
            self._settle(worker)

    # --- contacts -----------------------------------------------------------------------------------------------

    def contact_failed(self, worker: WorkerEndpoint, reason: str) -> None:
        """A probe or a start request did not get through."""
        worker.failures += 1
        worker.failure = reason
        worker.last_health_check = self._clock.now()
        if worker.failing_since is None:
            worker.failing_since = self._clock.monotonic()
        self._settle(worker)

    def refused(self, worker: WorkerEndpoint) -> None:
        """The worker took no work: it runs something, until a probe says what."""
        worker.busy_with = worker.busy_with or "an operation of its own"
        self._settle(worker)

    def heard(self, worker: WorkerEndpoint, view: HealthView, revision: int) -> bool:
        """A good probe that was asked when the worker's revision was ``revision``.

        Returns False, and believes nothing about its work, if something happened in between.
        """
        now = self._clock.now()
        worker.failures, worker.failing_since, worker.failure = 0, None, None
        worker.verified = True
        worker.last_health_check = worker.last_healthy_at = now
        worker.health = view
        worker.drains_itself = view.worker_status == "draining"
        believed = revision == worker.revision
        if believed:
            worker.busy_with = None
            if view.worker_status == "busy" and worker.reserved_for is None:
                worker.busy_with = view.current_operation or "an operation of its own"
        self._settle(worker)
        return believed

    def reported(self, worker: WorkerEndpoint, worker_status: str, *, delivered: bool) -> None:
        """The worker pushed a change of its state."""
        worker.revision += 1
        worker.drains_itself = worker_status == "draining"
        if delivered or worker_status == "idle":
            worker.busy_with = None
        self._settle(worker)

    def told(
        self,
        worker: WorkerEndpoint,
        *,
        failures: int,
        failure: str | None,
        drains_itself: bool,
        busy_with: str | None,
        verified: bool,
        reserved_for: tuple[str, int] | None,
        accepted: bool,
    ) -> None:
        """Another backend talks to the worker, and says this of it."""
        worker.verified, worker.health, worker.failing_since = verified, None, None
        worker.failures, worker.failure = failures, failure
        worker.drains_itself, worker.busy_with = drains_itself, busy_with
        worker.reserved_for, worker.accepted = reserved_for, accepted
        self._settle(worker)

    def overdue(self) -> list[WorkerEndpoint]:
        """Workers unreachable for so long that they are to be forgotten."""
        now, limit = self._clock.monotonic(), self._control.worker_removal_s
        return [
            w
            for w in self._workers.values()
            if w.failures >= self._control.health_failures
            and w.failing_since is not None
            and now - w.failing_since >= limit
        ]

    # --- views --------------------------------------------------------------------------------------------------

    def view(self, worker: WorkerEndpoint) -> WorkerView:
        """The worker as clients see it."""
        record, status = worker.record, self.status(worker)
        metadata: dict[str, Any] = {"last_selected": worker.last_selected}
        if worker.health is not None:
            health = worker.health
            metadata |= {
                "cpu": health.cpu,
                "rss": health.rss,
                "disk_free": health.disk_free,
                "gpu": health.gpu,
            }
            metadata |= {"uptime_s": health.uptime_s, "version": health.version}
        return WorkerView(
            worker_id=record.worker_id,
            worker_type=record.worker_type,
            endpoint_url=record.endpoint_url,
            status=status,
            current_operation_id=worker.current_operation_id,
            capabilities=Capabilities.model_validate(dict(record.capabilities)),
            instance_id=record.instance_id,
            health_check_failures=worker.failures,
            last_health_check=worker.last_health_check,
            last_healthy_at=worker.last_healthy_at,
            registered_at=record.registered_at,
            reason=self._reason(worker, status),
            seen=worker.verified,
            metadata=metadata,
            recent_operations=list(worker.recent),
        )

    def _reason(self, worker: WorkerEndpoint, status: WorkerStatus) -> str | None:
        if not worker.serves:
            theirs = worker.record.capabilities.get("version")
            return (
                f"It runs version {theirs}; this backend ({self._version}) serves its own minor version "
                "and the one before. Update the older of the two."
            )
        if worker.failure is not None:
            return worker.failure
        if status == "draining":
            return "It finishes what it runs and takes no more."
        return None if worker.verified else "It was not probed since the backend started."
