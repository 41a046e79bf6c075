"""What people may order beyond a submission: retry, resume, delete, and cancelling all; with the laws of the answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from math import inf
from typing import Any

from ktrdr.backend.fleet.registry import WORKER_TYPE
from ktrdr.backend.operations.cancellation import cancel_many
from ktrdr.backend.submission.orchestrator import ServiceOrchestrator
from ktrdr.backend.wiring import Backend
from ktrdr.errors import Conflict, Unavailable
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.protocol.messages import OperationView
from ktrdr.protocol.queueing import CancelOperations, OperationsCancelled
from simulation.choice import is_free
from simulation.disk import Disk
from simulation.laws import Laws
from simulation.trace import Trace

__all__ = ["Commands"]

_NOT_TO_WAIT = "asked not to wait"
_WANTS = ("prefer_gpu", "require_gpu")
_SMALL = 64  # workers
_LATE_S = 30.0  # if one of the cancels fails the others go on
_LINKS = ("operation_type", "spec_digest", "requirements", "priority")
_UNENDED = (OperationStatus.PENDING, OperationStatus.ASSIGNED, OperationStatus.RUNNING)


class Commands:
    """The routes of one backend's process."""

    def __init__(
        self,
        backend: Backend,
        service_of: Callable[[Operation], ServiceOrchestrator[Any]],
        disk: Disk,
        laws: Laws,
        trace: Trace,
    ) -> None:
        self._backend, self._service_of, self._disk = backend, service_of, disk
        self._laws, self._trace = laws, trace

    async def submitted(
        self, work: Coroutine[Any, Any, Operation], body: Mapping[str, Any], key: str
    ) -> Operation:
        """A submission: what is recorded is what was asked for; who does not want to wait is refused, or does not wait."""
        impatient, known = body.get("when_busy") == "reject", key in self._laws.keys
        kind = OperationType.TRAINING if "require_gpu" in body else OperationType.BACKTESTING
        hopeless = (
            impatient
            and self._backend.leads
            and not known
            and not self._free(kind, bool(body.get("require_gpu")))
        )
        try:
            operation = await work
        except Unavailable as error:
            if _NOT_TO_WAIT in error.message:
                self._trace.situations["refused because it would wait"] += 1
                name = self._laws.keys.get(key, "")
                self._laws.demand(
                    not known or self._laws.find(name) is None,  # it was, and is forgotten since
                    "what is refused is not recorded",
                    f"{key}: {error.message}",
                    name,
                )
            raise
        self._laws.demand(
            not hopeless,
            "who does not want to wait does not",
            f"no worker was free for {key}",
            operation.operation_id,
        )
        same = operation.priority == body["priority"] and all(
            operation.requirements.get(want, False) == body.get(want, False) for want in _WANTS
        )
        if not same:  # only then is it told in full
            self._laws.broken(
                "what is recorded is what was asked for",
                f"{body} became {operation}",
                operation.operation_id,
            )
        return operation

    def _free(self, kind: OperationType, gpu: bool) -> bool:
        workers = self._backend.registry
        if len(workers) > _SMALL:
            return True  # perhaps: nobody looks through all of a large fleet at each submission
        return any(
            is_free(w) and w.record.worker_type is WORKER_TYPE[kind] and (w.gpu or not gpu) for w in workers
        )

    async def again(self, operation_id: str, verb: str, key: str) -> Operation:
        """Retry or resume; what comes back names what it repeats, and is the same work."""
        earlier = await self._backend.store.get(operation_id)
        service = self._service_of(earlier)
        try:
            new = await getattr(service, verb)(earlier, key)
        except Conflict:
            self._trace.situations[f"{verb} refused"] += 1
            raise
        found: Operation = new
        law = "what is run again is the same work, and names what it repeats"
        self._laws.demand(
            found.parent_operation_id == operation_id, law, f"{found.parent_operation_id}", operation_id
        )
        for field in _LINKS:
            self._laws.demand(
                getattr(found, field) == getattr(earlier, field),
                law,
                f"{field}: {getattr(earlier, field)} became {getattr(found, field)}",
                operation_id,
            )
        self._laws.demand(
            earlier.status in (OperationStatus.FAILED, OperationStatus.CANCELLED),
            "only what failed or was cancelled is run again",
            f"{earlier.status}",
            operation_id,
        )
        begins_anew = verb == "retry" and found.attempt == 0
        self._laws.demand(
            not begins_anew or not found.checkpoints,
            "a retry begins at the start",
            f"{found.checkpoints}",
            operation_id,
        )
        self._trace.situations[verb] += 1
        return found

    async def cancel(self, operation_id: str) -> OperationView:
        """Ask for the end of one."""
        self._laws.may_be_cancelled.add(operation_id)
        return await self._backend.operations.cancel(operation_id)

    async def delete(self, operation_id: str) -> None:
        """Forget one that has ended."""
        self._laws.may_go.add(operation_id)
        await self._backend.operations.delete(operation_id)
        self._trace.situations["operation deleted"] += 1

    async def cancel_all(self, request: CancelOperations) -> OperationsCancelled:
        """Nothing that was there before, and fits, goes on after the answer."""
        kind, statuses = request.operation_type, request.status or [str(s) for s in _UNENDED]
        meant = [
            o.operation_id
            for o in self._disk.unended()
            if kind in (None, o.operation_type) and str(o.status) in statuses
        ]
        self._laws.cancels[kind] = inf
        try:
            answer = await cancel_many(self._backend.operations, self._backend.clock, request)
        finally:
            self._laws.cancels[kind] = self._trace.now() + _LATE_S
        self._trace.situations["all cancelled"] += answer.cancelled + answer.cancelling > 1
        if answer.more or request.status:
            return answer
        for name in meant:
            operation = self._disk.operations.get(name)
            if operation is None or operation.created_at >= answer.before:
                continue
            self._laws.demand(
                operation.status not in _UNENDED,
                "what was there goes on after nobody's cancel of all",
                f"{operation.status} after the answer",
                name,
            )
            if operation.status in (OperationStatus.CANCELLING, OperationStatus.CANCELLED):
                self._laws.cancelled.add(name)
        return answer
