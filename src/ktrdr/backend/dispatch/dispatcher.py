"""From pending to running: a free worker is reserved, the assignment recorded, then the worker is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WORKER_TYPE, WorkerRegistry
from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import InvalidInput, NoAnswer, NotFound, NotLeader, ServerUnreachable, Unavailable
from ktrdr.operations.events import Accepted, Assigned, Finished, Refused, Unreachable, WorkerLost
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
    WorkerType,
)
from ktrdr.operations.store import LONGEST_WAIT, Claim
from ktrdr.protocol.client import problem_detail, restarted_since
from ktrdr.protocol.messages import StartJob
from ktrdr.protocol.specs import JobSpec
from ktrdr.protocol.transports import Answer
from ktrdr.settings import ControlSettings

__all__ = ["Dispatcher", "NeedsProbe"]

_log = logging.getLogger("ktrdr.backend")
_SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
_FIRST_LOOK = 64  # pending operations read at once; more only while there are free workers
_LARGEST_LOOK = 1024
_REFUSALS_PER_PASS = 3
_BACK_OFF_S, _LONGEST_BACK_OFF_S = 0.5, LONGEST_WAIT.total_seconds()
_LEDGER_AWAY_S = 1.0

NeedsProbe = Callable[[str], None]


class Dispatcher:
    """Woken by submissions, reports, registrations and probes; it never polls on its own.

    Laws
    ----
    - A worker is reserved before anything else, the assignment is durable before the worker hears of it.
    - A submission for which a worker is free is recorded and assigned in one commit, unless the queue is to be looked
      at first; what one pass over the queue assigns is one commit, too.
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
        self._at_rest = False  # the last pass is over; nobody in the queue could be given a worker
        self._refusals: dict[str, int] = {}
        operations.wake = registry.on_free = self.wake
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

    def rest(self) -> None:
        """Another backend dispatches from here on: what was refused is its affair, and its end is not heard of here."""
        self._refusals.clear()

    async def run(self) -> None:
        """Serve wake-ups for ever; a failing pass is logged and tried again a second later."""
        looked = True
        try:
            while True:
                self._at_rest = looked and not self._woken.is_set()
                await self._woken.wait()
                self._at_rest = False
                self._woken.clear()
                looked = await self._pass()
        finally:
            self._at_rest = False

    async def _pass(self) -> bool:
        """False if it failed, so that somebody in the queue may still be due."""
        try:
            await self.dispatch_pending()
            return True
        except Unavailable as error:
            _log.warning("Dispatching failed: %s", error)
            asyncio.get_running_loop().call_later(_LEDGER_AWAY_S, self.wake)
        except Exception:  # the edge of a background job: the loop outlives everything
            _log.exception("Dispatching failed; trying again")
            asyncio.get_running_loop().call_later(1.0, self.wake)
        return False

    async def dispatch_pending(self) -> None:
        """One pass over the queue, in its order, as far as free workers reach."""
        limit = _FIRST_LOOK
        if all(self._registry.select(kind) is None for kind in WorkerType):
            return  # as after most submissions to a fleet that is busy: the ledger need not be asked
        await self._operations.pauses.read()
        claimed = True
        while claimed and (free := self._free()):
            # of these alone: before the one for which there is a worker a hundred thousand others may wait
            without_gpu = [kind for kind, gpu in free.items() if not gpu]
            now = self._clock.now()
            pending = await self._operations.store.pending(now, limit, list(free), without_gpu)
            claimed = await self._claim(pending)
            if len(pending) < limit:
                return
            limit = min(4 * limit, _LARGEST_LOOK)

    def _free(self) -> dict[OperationType, bool]:
        """What could be begun now: a worker is free for it and it is not paused; with each, whether one with a GPU is."""
        paused = self._operations.pauses.known
        return {
            kind: self._registry.select(served_by, require_gpu=True) is not None
            for kind, served_by in WORKER_TYPE.items()
            if kind not in paused and self._registry.select(served_by) is not None
        }

    # --- reserving and recording --------------------------------------------------------------------------------

    async def submit(self, new: NewOperation) -> Operation:
        """Record new work; if a worker is free and nobody waits for it, both in one commit.

        Raises
        ------
        Conflict
            If the id, or the idempotency key with another specification, was used before.
        """
        # a pass that is under way or due goes first: what waits in the queue may want the same worker
        at_rest = self._at_rest and not self._woken.is_set()
        event = self._reserve(new.operation_id, 1, new.operation_type, new.requirements) if at_rest else None
        try:
            operation = await self._operations.submit(new, event)
        except BaseException as error:
            if event is not None:
                self._not_recorded(Claim(new.operation_id, event), 1, error)
            if not isinstance(error, NotLeader):
                raise
            event, operation = None, await self._operations.submit(new)  # whoever leads now will assign it
        if event is not None and operation.operation_id == new.operation_id:
            self._start(operation, new.spec)
        else:
            if event is not None:  # the key was used before
                self._registry.release(event.worker_id, new.operation_id, 1)
            self.wake()
        return operation

    async def _claim(self, pending: Sequence[Operation]) -> bool:
        """Assign as many as there are workers for, in one commit, and tell the workers; False if there were none."""
        claims, free = {}, self._free()
        for o in pending:
            if not free:
                break
            if not free.get(o.operation_type, False) and (o.requires_gpu or o.operation_type not in free):
                continue
            rather_not = o.worker_id if o.failures else None
            event = self._reserve(o.operation_id, o.attempt + 1, o.operation_type, o.requirements, rather_not)
            if event is not None:
                claims[o.operation_id] = (Claim(o.operation_id, event), o.attempt + 1)
                free = self._free()
        if not claims:
            return False
        try:
            made = await self._operations.claim([claim for claim, _ in claims.values()])
        except BaseException as error:
            for claim, attempt in claims.values():
                self._not_recorded(claim, attempt, error)
            raise
        for (claim, attempt), transition in zip(claims.values(), made, strict=True):
            if transition is None:  # adopted, ended or deleted since the queue was read
                self._registry.release(claim.event.worker_id, claim.operation_id, attempt)
            else:
                self._start(transition.operation)
        return True

    def _reserve(
        self,
        operation_id: str,
        attempt: int,
        kind: OperationType,
        wants: Mapping[str, Any],
        rather_not: str | None = None,
    ) -> Assigned | None:
        """Hold the worker whose turn it is, if one is free, and say what is to be recorded."""
        if kind in self._operations.pauses.known:
            return None
        worker = self._registry.select(
            WORKER_TYPE[kind],
            prefer_gpu=bool(wants.get("prefer_gpu")),
            require_gpu=bool(wants.get("require_gpu")),
            rather_not=rather_not,
        )
        if worker is None:
            return None
        self._registry.reserve(worker, operation_id, attempt)
        return Assigned(worker.worker_id, worker.record.instance_id, self._operations.lease_end())

    def _not_recorded(self, claim: Claim, attempt: int, error: BaseException) -> None:
        """Give the worker back; if the ledger may have taken the assignment all the same, once that is known."""
        worker_id = claim.event.worker_id
        unknown = isinstance(error, Unavailable | asyncio.CancelledError) and not isinstance(error, NotLeader)
        if unknown:
            work, name = self._find_out(claim, attempt), f"find out about {claim.operation_id}"
            self._fleet.spawn(work, name, operation_id=claim.operation_id, worker_id=worker_id)
        else:
            self._registry.release(worker_id, claim.operation_id, attempt)

    async def _find_out(self, claim: Claim, attempt: int) -> None:
        """Whether an assignment is in the ledger although it did not say so; then the worker is to be told."""
        event = claim.event
        assignment = Assignment(event.worker_id, event.instance_id, attempt)
        operation = None
        while operation is None:
            await asyncio.sleep(_LEDGER_AWAY_S)
            try:
                operation = await self._operations.store.get(claim.operation_id)
            except Unavailable:
                continue
            except NotFound:
                break
        if operation is None or (operation.status, operation.assignment) != (
            OperationStatus.ASSIGNED,
            assignment,
        ):
            self._registry.release(event.worker_id, claim.operation_id, attempt)
            self.wake()
        else:
            await self.deliver(operation, assignment)

    def _start(self, operation: Operation, spec: bytes | None = None) -> None:
        assignment = operation.assignment
        assert assignment is not None
        self._fleet.spawn(
            self.deliver(operation, assignment, spec=spec),
            f"start {operation.operation_id}",
            operation_id=operation.operation_id,
            worker_id=assignment.worker_id,
        )

    # --- telling the worker -------------------------------------------------------------------------------------

    async def deliver(
        self,
        operation: Operation,
        assignment: Assignment,
        *,
        doubtful: bool = False,
        spec: bytes | None = None,
    ) -> None:
        """Tell the worker until its answer is known or the assignment no longer counts.

        ``doubtful``: an earlier request may have reached it (after a restart of the backend), so that a refused
        connection proves nothing. While the ledger is away nothing can be concluded; then the worker is asked again.
        ``spec``: the job's specification, where it is at hand.
        """
        while True:
            try:
                if not doubtful or await self._still_assigned(operation.operation_id, assignment):
                    await self._deliver(operation, assignment, doubtful, spec)
                return
            except Unavailable as error:
                _log.warning("Starting %s waits for the ledger: %s", operation.operation_id, error)
            doubtful = True
            await asyncio.sleep(_LEDGER_AWAY_S)

    async def _deliver(
        self, operation: Operation, assignment: Assignment, doubtful: bool, content: bytes | None
    ) -> None:
        operation_id = operation.operation_id
        try:
            spec = _SPEC.validate_json(content or await self._operations.store.spec(operation.spec_digest))
        except ValueError as error:
            await self._fail(operation_id, assignment, f"The stored specification is not readable: {error}")
            return
        job = StartJob(
            task_id=operation_id,
            attempt=assignment.attempt,
            lease_s=self._control.lease_s,
            spec=spec,
            checkpoints=await self._operations.resume_points(operation) or None,
            time_limit_s=operation.requirements.get("time_limit_s"),
            traceparent=self._operations.traceparent(operation_id, assignment.attempt),
        )
        pause_s = 0.1
        while (worker := self._registry.find(assignment.worker_id)) is not None:
            if self._restarted(assignment):
                await self._lost(operation_id, assignment, told=doubtful)
                return
            try:
                answer = await self._fleet.of(worker).start(
                    operation.operation_type, job, assignment.instance_id
                )
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
        if self._restarted(assignment) and answer.status < 500:
            # one of its incarnations took the job: the one that is gone, or the new one, which will be told to stop
            await self._lost(operation_id, assignment, told=doubtful or answer.status == 202)
            return True
        if answer.status == 202:
            self._refusals.pop(operation_id, None)
            await self._operations.apply(operation_id, Accepted(assignment, self._operations.lease_end()))
            return True
        detail = problem_detail(answer)
        if answer.status in (401, 403, 409, 503):
            # 401: the credential was made for the incarnation that we know, and another one is there now
            # 409: so says the worker, or it has seen a later attempt than ours; whether it counts, the ledger knows
            worker = self._registry.find(assignment.worker_id)
            if worker is not None:
                self._registry.refused(worker)
            if doubtful and (answer.status in (401, 403) or restarted_since(answer)):
                await self._lost(operation_id, assignment, told=True)
            else:
                await self._refused(operation_id, assignment, detail)
            self._needs_probe(assignment.worker_id)
            return True
        if 400 <= answer.status < 500:
            await self._fail(operation_id, assignment, f"The worker refused the job: {detail}")
            return True
        if not doubtful:
            await self._operations.apply(operation_id, Unreachable(assignment, detail))
        return False

    def _restarted(self, assignment: Assignment) -> bool:
        """Whether another incarnation of the worker has registered since. What it did for the one before would count for
        nothing, and it would be told to stop what nobody wants stopped."""
        worker = self._registry.find(assignment.worker_id)
        return worker is not None and worker.record.instance_id != assignment.instance_id

    async def _lost(self, operation_id: str, assignment: Assignment, *, told: bool) -> None:
        """The incarnation that was chosen is gone; ``told``: it may have begun, so this counts as a failure."""
        if told:
            await self._operations.apply(operation_id, WorkerLost(assignment, "it restarted"))
        else:
            await self._operations.apply(operation_id, Refused(assignment, "It restarted.", None))

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
        """Whether the worker is to be told. An attempt that is over is no more held for: its end may have been recorded
        before the worker was reserved, or by another backend whose news got lost, so nobody else would see to it."""
        now = await self._operations.release_if_over(operation_id, assignment)
        return now is not None and now.status is OperationStatus.ASSIGNED
