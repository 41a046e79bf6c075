"""Laws of the dispatcher's choice: which of those that wait goes first, and to which of the free workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ktrdr.backend.fleet.registry import WORKER_TYPE, WorkerEndpoint, WorkerRegistry
from ktrdr.operations.events import Assigned
from ktrdr.operations.model import NewOperation, Operation, OperationStatus, OperationType
from ktrdr.operations.store import Claim
from simulation.disk import Disk
from simulation.laws import Laws

__all__ = ["Choice", "is_free"]

_SMALL = 64  # workers: in larger fleets nobody looks through all of them at each assignment
_A_WHILE_S = 1.5
_NEWS_S = 8.0  # what another backend recorded, the leader may learn of so late
_LONGEST_BACK_OFF_S = 20.0
_SERVED = ("0", "1.0.0", "1.1.0")  # versions of workers that a backend of 1.1.0 gives work to
_Chosen = dict[OperationType, tuple[Operation | None, Operation | None]]


@dataclass(frozen=True, slots=True)
class _Work:
    operation_id: str
    kind: OperationType
    wants: Mapping[str, Any]
    rather_not: str | None


class Choice:
    """One backend's choices. ``now`` of the hooks is virtual time."""

    def __init__(
        self, laws: Laws, disk: Disk, registry: WorkerRegistry, now: Callable[[], float], *, several: bool
    ) -> None:
        self._while_s = _NEWS_S if several else _A_WHILE_S
        self._laws, self._disk, self._registry, self._now = laws, disk, registry, now
        self._queue: Sequence[Operation] = ()
        self._count = 0
        self._chosen: dict[
            int, int
        ] = {}  # number in the registry, which is new for one that was removed: last turn

    def read(self, queue: Sequence[Operation]) -> None:
        """This is what waits, as the backend was told just now."""
        self._queue = queue

    def claims(self, claims: Sequence[Claim]) -> None:
        """All that one pass over the queue assigns."""
        by_name = {claim.operation_id: claim.event for claim in claims}
        self._in_order(by_name)
        for operation in self._queue:
            if (event := by_name.get(operation.operation_id)) is not None:
                rather_not = operation.worker_id if operation.failures else None
                kind, wants = operation.operation_type, operation.requirements
                self._worker(_Work(operation.operation_id, kind, wants, rather_not), event)

    def submission(self, new: NewOperation, event: Assigned, now: float) -> None:
        """A submission that is assigned at once: nobody who waits may have wanted that worker."""
        self._worker(_Work(new.operation_id, new.operation_type, new.requirements, None), event)
        gpu = self._has_gpu(event.worker_id)
        for name, since in self._laws.pending.get(new.operation_type, {}).items():
            if now - since < self._while_s:
                return  # the others came later
            waits = self._disk.operations[name]
            patience = self._while_s if waits.not_before is None else _LONGEST_BACK_OFF_S
            self._laws.demand(
                now - since < patience or (bool(waits.requirements.get("require_gpu")) and not gpu),
                "priority first, then age",
                f"{new.operation_id} gets {event.worker_id} at its submission, {name} has waited since {since}",
                name,
            )

    # --- the queue ----------------------------------------------------------------------------------------------

    def _in_order(self, claims: Mapping[str, Assigned]) -> None:
        passed: _Chosen = dict.fromkeys(OperationType, (None, None))
        left = len(claims)
        for operation in self._queue:
            if not left:
                return
            kind = operation.operation_type
            event, (anywhere, on_gpu) = claims.get(operation.operation_id), passed[kind]
            if event is None:
                needs_gpu = bool(operation.requirements.get("require_gpu"))
                passed[kind] = (
                    (anywhere, on_gpu or operation) if needs_gpu else (anywhere or operation, on_gpu)
                )
                continue
            left -= 1
            earlier = anywhere or (on_gpu if self._has_gpu(event.worker_id) else None)
            self._laws.demand(
                earlier is None or self._gone(earlier),
                "priority first, then age",
                f"{operation.operation_id} gets {event.worker_id}, which was the turn of "
                f"{earlier.operation_id if earlier else ''}",
                earlier.operation_id if earlier else None,
            )
        self._laws.demand(not left, "what is assigned was in the queue", f"{sorted(claims)}")

    def _gone(self, operation: Operation) -> bool:
        now = self._disk.operations.get(operation.operation_id)
        return now is None or now.status is not OperationStatus.PENDING

    # --- the worker ---------------------------------------------------------------------------------------------

    def _has_gpu(self, worker_id: str) -> bool:
        worker = self._registry.find(worker_id)
        return worker is not None and worker.gpu

    def _worker(self, work: _Work, event: Assigned) -> None:
        worker = self._registry.find(event.worker_id)
        if worker is None:
            return  # another law says so
        name, wants, demand = work.operation_id, work.wants, self._laws.demand
        demand(
            worker.record.worker_type is WORKER_TYPE[work.kind],
            "work goes to workers of its type",
            f"{work.kind} to {worker.worker_id}",
            name,
        )
        demand(
            worker.gpu or not wants.get("require_gpu"), "who requires a GPU gets one", worker.worker_id, name
        )
        version = str(worker.record.capabilities.get("version"))
        demand(version in _SERVED, "work goes to workers of a version that fits", version, name)
        token = worker.record.enrolled_by
        demand(
            token is None or not self._laws.passes.long_worthless(token, self._now()),
            "no work goes to workers whose token was withdrawn",
            f"{worker.worker_id} registered with {token}",
            name,
        )
        before = self._chosen.get(worker.number, 0)
        self._count += 1
        self._chosen[worker.number] = self._count
        if len(self._registry) <= _SMALL:
            self._of_all(work, worker, before)

    def _of_all(self, work: _Work, worker: WorkerEndpoint, before: int) -> None:
        """Of the workers that are free even now another may have been the better choice."""
        name, demand = work.operation_id, self._laws.demand
        prefers = bool(work.wants.get("prefer_gpu"))
        others = list(self._others(worker, bool(work.wants.get("require_gpu"))))
        wanted = [other for other in others if other.worker_id != work.rather_not]
        demand(
            worker.worker_id != work.rather_not or not wanted,
            "what was lost rather goes to another worker",
            f"{worker.worker_id} lost it, and {[other.worker_id for other in wanted]} are free",
            name,
        )
        if worker.worker_id == work.rather_not:
            return
        demand(
            worker.gpu or not prefers or not any(other.gpu for other in wanted),
            "GPU workers come first",
            f"{worker.worker_id} has none",
            name,
        )
        earlier = [
            other.worker_id
            for other in wanted
            if (other.gpu == worker.gpu or not prefers) and self._chosen.get(other.number, 0) < before
        ]
        demand(not earlier, "workers take turns", f"{worker.worker_id} before {earlier}", name)

    def _others(self, chosen: WorkerEndpoint, needs_gpu: bool) -> Iterator[WorkerEndpoint]:
        for worker in self._registry:
            same = worker.record.worker_type is chosen.record.worker_type
            if same and worker is not chosen and is_free(worker) and (worker.gpu or not needs_gpu):
                yield worker


def is_free(worker: WorkerEndpoint) -> bool:
    """By the table alone, whatever the index says."""
    return (
        worker.current_operation_id is None
        and worker.verified
        and worker.failures == 0
        and not worker.record.draining
        and not worker.drains_itself
        and str(worker.record.capabilities.get("version")) in _SERVED
    )
