"""From pending to running: a free worker is reserved, the assignment recorded, then the worker is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from pydantic import TypeAdapter

from ktrdr.backend.fleet import Fleet
from ktrdr.backend.operations import OperationsService
from ktrdr.backend.registry import WORKER_TYPE, WorkerEndpoint, WorkerRegistry
from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput, InvalidTransition, NoAnswer, NotFound, ServerUnreachable, Unavailable
from ktrdr.operations.events import Accepted, Assigned, Finished, Refused, Unreachable
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    Operation,
    OperationStatus,
    OperationType,
    WorkerType,
)
from ktrdr.operations.store import LONGEST_WAIT
from ktrdr.protocol.client import problem_detail
from ktrdr.protocol.messages import StartJob
from ktrdr.protocol.specs import JobSpec
from ktrdr.protocol.transports import Answer
from ktrdr.settings import ControlSettings

__all__ = ["Dispatcher", "NeedsProbe"]

_log = logging.getLogger("ktrdr.backend")
_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_FIRST_LOOK = 64  # pending operations read at first; more only if a free worker found nothing among them
_REFUSALS_PER_PASS = 3
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.5, LONGEST_WAIT.total_seconds()
_LEDGER_AWAY_S = 1.0

NeedsProbe = Callable[[str], None]


class Dispatcher:
    """Woken by submissions, reports, registrations and probes; it never polls on its own.

    Laws
    ----
    - A worker is reserved before anything else, the assignment is durable before the worker hears of it.
    - A refusal sends the operation to another worker, after three in a row it waits (0.5 s, doubling to 15 s).
    - A start request without an answer is repeated to the same worker while its lease lasts.
    """

    def __init__(
        self,
        operations: OperationsService,
        registry: WorkerRegistry,
        fleet: Fleet,
        clock: Clock,
        control: ControlSettings,
        needs_probe: NeedsProbe,
    ) -> None:
        self._operations = operations
        self._registry = registry
        self._fleet = fleet
        self._clock = clock
        self._control = control
        self._needs_probe = needs_probe
        self._woken = asyncio.Event()
        self._refusals: dict[str, int] = {}
        operations.wake = self.wake
        operations.on_end = self._forget

    def wake(self) -> None:
        """Something may be dispatched now."""
        self._woken.set()

    @property
    def paused(self) -> Collection[OperationType]:
        """Of these types nothing is dispatched, as far as is known."""
        return self._operations.pauses.known

    def refusals_of(self, operation_id: str) -> int:
        """How often workers in a row refused this operation, as far as this process knows."""
        return self._refusals.get(operation_id, 0)

    def _forget(self, operation_id: str) -> None:
        """However it ended: its refusals are of no interest any more."""
        self._refusals.pop(operation_id, None)

    async def run(self) -> None:
        """Serve wake-ups for ever; a failing pass is logged and tried again a second later."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.dispatch_pending()
            except Unavailable as error:
                _log.warning("Dispatching failed: %s", error)
                asyncio.get_running_loop().call_later(_LEDGER_AWAY_S, self.wake)
            except Exception:  # the edge of a background job: the loop outlives everything
                _log.exception("Dispatching failed; trying again")
                asyncio.get_running_loop().call_later(1.0, self.wake)

    async def dispatch_pending(self) -> None:
        """One pass over the queue, in its order, as far as free workers reach."""
        limit = _FIRST_LOOK
        await self._operations.pauses.read()
        while self._free():
            pending = await self._operations.store.pending(self._clock.now(), limit)
            for operation in pending:
                await self._try(operation)
            if len(pending) < limit or not await self._starved(pending):
                return
            limit *= 4

    def _free(self) -> set[WorkerType]:
        """Types of workers that could take work now: one is free, and not all that it does is paused."""
        paused = self._operations.pauses.known
        kinds = {kind for operation_type, kind in WORKER_TYPE.items() if operation_type not in paused}
        return {kind for kind in kinds if self._registry.select(kind) is not None}

    async def _starved(self, seen: Sequence[Operation]) -> bool:
        """Whether further back in the queue there is work for a worker that is still free."""
        counts = await self._operations.store.counts()
        free = self._free()
        return any(
            WORKER_TYPE[kind] in free and count > sum(o.operation_type is kind for o in seen)
            for (kind, status), count in counts.items()
            if status is OperationStatus.PENDING and kind not in self._operations.pauses.known
        )

    async def _try(self, operation: Operation) -> None:
        if operation.operation_type in self._operations.pauses.known:
            return
        kind = WORKER_TYPE[operation.operation_type]
        wants = operation.requirements
        worker = self._registry.select(
            kind,
            prefer_gpu=bool(wants.get("prefer_gpu")),
            require_gpu=bool(wants.get("require_gpu")),
            rather_not=operation.worker_id if operation.failures else None,
        )
        if worker is None:
            return
        self._registry.reserve(worker, operation.operation_id, operation.attempt + 1)
        assignment = await self._assign(operation, worker)
        if assignment is not None:
            self._fleet.spawn(
                self.deliver(operation, assignment),
                f"start {operation.operation_id}",
                operation_id=operation.operation_id,
                worker_id=assignment.worker_id,
            )

    async def _assign(self, operation: Operation, worker: WorkerEndpoint) -> Assignment | None:
        operation_id, attempt = operation.operation_id, operation.attempt + 1
        event = Assigned(worker.worker_id, worker.record.instance_id, self._operations.lease_end())
        try:
            transition = await self._operations.apply(operation_id, event)
        except (InvalidTransition, NotFound):  # adopted, or deleted, since the queue was read
            transition = None
        except BaseException:
            self._registry.release(worker.worker_id, operation_id, attempt)
            raise
        if transition is None or transition.outcome == "ignored":
            self._registry.release(worker.worker_id, operation_id, attempt)
            return None
        return transition.operation.assignment

    # --- telling the worker -------------------------------------------------------------------------------------

    async def deliver(self, operation: Operation, assignment: Assignment, *, doubtful: bool = False) -> None:
        """Tell the worker until its answer is known or the assignment no longer counts.

        ``doubtful``: an earlier request may have reached it (after a restart of the backend), so that a refused
        connection proves nothing. While the ledger is away nothing can be concluded; then the worker is asked again.
        """
        while True:
            try:
                if not doubtful or await self._still_assigned(operation.operation_id, assignment):
                    await self._deliver(operation, assignment, doubtful)
                return
            except Unavailable as error:
                _log.warning("Starting %s waits for the ledger: %s", operation.operation_id, error)
            doubtful = True
            await asyncio.sleep(_LEDGER_AWAY_S)

    async def _deliver(self, operation: Operation, assignment: Assignment, doubtful: bool) -> None:
        operation_id = operation.operation_id
        try:
            spec = _SPEC.validate_json(await self._operations.store.spec(operation.spec_digest))
        except ValueError as error:
            await self._fail(operation_id, assignment, f"The stored specification is not readable: {error}")
            return
        job = StartJob(
            task_id=operation_id, attempt=assignment.attempt, lease_s=self._control.lease_s, spec=spec
        )
        pause_s = 0.1
        while (worker := self._registry.find(assignment.worker_id)) is not None:
            try:
                answer = await self._fleet.of(worker).start(operation.operation_type, job)
            except (NoAnswer, InvalidInput) as error:  # the latter: it answered more than is read
                doubtful = True
                await self._operations.apply(operation_id, Unreachable(assignment, str(error)))
            except ServerUnreachable as error:
                if not doubtful:
                    self._registry.contact_failed(worker, str(error))
                    self._needs_probe(worker.worker_id)
                    await self._refused(operation_id, assignment, str(error))
                    return
            else:
                if await self._answered(operation_id, assignment, answer, doubtful=doubtful):
                    return
                doubtful = True
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)
            if not await self._still_assigned(operation_id, assignment):
                return

    async def _answered(
        self, operation_id: str, assignment: Assignment, answer: Answer, *, doubtful: bool
    ) -> bool:
        """Record what the worker's answer means; False if the outcome stays unknown."""
        if answer.status == 202:
            self._refusals.pop(operation_id, None)
            await self._operations.apply(operation_id, Accepted(assignment, self._operations.lease_end()))
            return True
        detail = problem_detail(answer)
        if answer.status in (409, 503):
            # 409: the worker has seen a later attempt than ours; whether it counts, the ledger knows
            worker = self._registry.find(assignment.worker_id)
            if worker is not None:
                self._registry.refused(worker)
            await self._refused(operation_id, assignment, detail)
            self._needs_probe(assignment.worker_id)
            return True
        if 400 <= answer.status < 500:
            await self._fail(operation_id, assignment, f"The worker refused the job: {detail}")
            return True
        if not doubtful:
            await self._operations.apply(operation_id, Unreachable(assignment, detail))
        return False

    async def _refused(self, operation_id: str, assignment: Assignment, reason: str) -> None:
        count = self.refusals_of(operation_id) + 1
        self._refusals[operation_id] = count
        not_before = None
        if count >= _REFUSALS_PER_PASS:
            delay_s = min(_BACK_OFF_S * 2 ** min(count - _REFUSALS_PER_PASS, 10), _LONGEST_BACK_OFF_S)
            not_before = self._clock.now() + timedelta(seconds=delay_s)
            asyncio.get_running_loop().call_later(delay_s + 0.01, self.wake)
        await self._operations.apply(operation_id, Refused(assignment, reason, not_before))

    async def _fail(self, operation_id: str, assignment: Assignment, error: str) -> None:
        outcome = JobOutcome(status=OperationStatus.FAILED, error=error)
        await self._operations.apply(operation_id, Finished(assignment, outcome))

    async def _still_assigned(self, operation_id: str, assignment: Assignment) -> bool:
        try:
            now = await self._operations.store.get(operation_id)
        except NotFound:
            return False
        return now.status is OperationStatus.ASSIGNED and now.assignment == assignment
