"""The backend's face to the ledger: every event goes through here, and every view comes from here."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.leases import Leases
from ktrdr.backend.fleet.registry import WORKER_TYPE, WorkerRegistry
from ktrdr.backend.operations.checkpoints import CheckpointFiles
from ktrdr.backend.operations.hub import Hub
from ktrdr.backend.operations.joblogs import JobLogs
from ktrdr.backend.operations.pauses import Pauses
from ktrdr.backend.operations.progress import ProgressReader
from ktrdr.clock import Clock
from ktrdr.errors import Conflict, KtrdrError, NotFound, ServerUnreachable, Unavailable
from ktrdr.logs import about
from ktrdr.operations.events import (
    Assigned,
    CancelRequested,
    CancelWorker,
    Checkpointed,
    ChildDied,
    Command,
    DropCheckpoints,
    Event,
    Finished,
    LeaseExpired,
    NotMine,
    Progressed,
    Released,
    Reported,
    StopStray,
    Wake,
    WorkerLost,
)
from ktrdr.operations.machine import Transition
from ktrdr.operations.model import (
    Assignment,
    JobOutcome,
    ModelRecord,
    NewOperation,
    Operation,
    OperationStatus,
    OperationType,
)
from ktrdr.operations.progress import Progress
from ktrdr.operations.store import LONGEST_WAIT, Claim, OperationQuery, OperationStore
from ktrdr.protocol.messages import (
    CheckpointNews,
    DeliverRequest,
    OperationList,
    OperationView,
    ProgressView,
)
from ktrdr.protocol.specs import TrainingSpec
from ktrdr.protocol.worker_key import proves
from ktrdr.settings import ControlSettings

__all__ = ["OperationsService", "operation_view"]

_log = logging.getLogger("ktrdr.backend")
_HELD = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_ENDS = (Finished, Released, ChildDied, NotMine, LeaseExpired, WorkerLost)


class OperationsService:
    """Applies events, carries out the commands that come back, and keeps reservations in step with the ledger.

    A delivery is acknowledged only once its end, and the model of a training, are in the ledger.
    """

    def __init__(
        self,
        store: OperationStore,
        registry: WorkerRegistry,
        fleet: Fleet,
        hub: Hub,
        clock: Clock,
        control: ControlSettings,
        logs: JobLogs,
    ) -> None:
        self.store = store
        self.logs = logs
        self._registry = registry
        self._fleet = fleet
        self._hub = hub
        self._clock = clock
        self._control = control
        self.leases = Leases(clock, control.lease_s)
        self.pauses = Pauses(store, clock)
        self.progress = ProgressReader(registry, fleet, clock, control.progress_ttl_s, self._reached)
        self.wake: Callable[[], None] = lambda: None
        self.observe: Callable[[Transition], None] = lambda _: None
        self.traceparent: Callable[[str, int], str | None] = lambda *_: None
        self.submitted: Callable[[], None] = lambda: None
        self.announce: Callable[[str], None] = lambda _: None
        self.on_end: Callable[[str], object] = lambda _: None
        self.checkpoint_files: CheckpointFiles | None = None

    # --- events -------------------------------------------------------------------------------------------------

    async def apply(self, operation_id: str, event: Event, model: ModelRecord | None = None) -> Transition:
        """Record an event and do what follows from it; raises NotFound and InvalidTransition.

        ``model`` is listed from the moment on that the event completes the operation which delivered it.
        """
        with about(operation_id=operation_id):
            try:
                transition = await self.store.apply(operation_id, event, self._clock.now(), model=model)
            except Unavailable:
                self.leases.honour_all()  # what was not written may have been a renewal
                raise
            self._recorded(transition, event)
            return transition

    async def submit(self, new: NewOperation, assign: Assigned | None = None) -> Operation:
        """Record a new operation, at once assigned to the worker that was reserved for it if there is one.

        What comes back is another operation if the key of ``new`` was used before; then nothing is assigned.
        """
        with about(operation_id=new.operation_id):
            operation = await self.store.submit(new, self._clock.now(), assign=assign)
            self.submitted()
            if assign is not None and operation.operation_id == new.operation_id:
                self._recorded(Transition(operation), assign)
            return operation

    async def claim(self, claims: Sequence[Claim]) -> Sequence[Transition | None]:
        """Record assignments in one unit; None for what could not be had."""
        made = await self.store.claim(claims, self._clock.now())
        for claim, transition in zip(claims, made, strict=True):
            if transition is not None:
                with about(operation_id=claim.operation_id, worker_id=claim.event.worker_id):
                    self._recorded(transition, claim.event)
        return made

    def _recorded(self, transition: Transition, event: Event) -> None:
        """Do what follows from a change that is in the ledger."""
        operation = transition.operation
        self.leases.seen(operation)
        self._follow(operation, event)
        self.observe(transition)
        for command in transition.commands:
            self._carry_out(command)
        self._hub.changed(operation.operation_id)
        if not isinstance(
            event, Progressed
        ):  # there are many of those; who waits elsewhere looks now and then
            self.announce(operation.operation_id)

    async def release_if_over(self, operation_id: str, assignment: Assignment) -> Operation | None:
        """Free the worker if the ledger says that nobody runs this attempt; else the operation."""
        with contextlib.suppress(NotFound):
            operation = await self.store.get(operation_id)
            if operation.status in _HELD and operation.assignment == assignment:
                return operation
        self._registry.release(assignment.worker_id, operation_id, assignment.attempt)
        return None

    async def catch_up(self, operation_id: str) -> None:
        """Another backend changed the operation: bring the reservation in line with the record, and tell the worker of
        a cancel, whom the other one may not know."""
        with contextlib.suppress(NotFound):
            operation = await self.store.get(operation_id)
            self.leases.seen(operation)
            self._follow(operation, CancelRequested())
            if operation.status is OperationStatus.CANCELLING and operation.assignment is not None:
                self._carry_out(CancelWorker(operation_id, operation.assignment))
        self._hub.changed(operation_id)

    def lease_end(self) -> datetime:
        """What a renewal of now writes into the ledger; see :class:`Leases` for what it is worth."""
        return self._clock.now() + timedelta(seconds=self._control.lease_s)

    def _follow(self, operation: Operation, event: Event) -> None:
        """Bring the reservation in line with the record."""
        operation_id, assignment = operation.operation_id, operation.assignment
        if isinstance(event, _ENDS) and event.assignment != assignment:
            # an end that was in the ledger before we knew: a commit that was done although it seemed to have failed
            self._registry.release(event.assignment.worker_id, operation_id, event.assignment.attempt)
        if operation.status in _HELD:
            told = not isinstance(event, CancelRequested) and operation.status is not OperationStatus.ASSIGNED
            if told and assignment is not None:
                self._registry.adopt(assignment, operation_id)
            return
        self._registry.release(operation.worker_id, operation_id, operation.attempt)
        if operation.status.terminal:
            self.progress.forget(operation_id)
            self.logs.settled(operation)
            self.on_end(operation_id)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Wake():
                self.wake()
            case CancelWorker(operation_id, assignment):
                work, name = self._cancel_at(operation_id, assignment), f"cancel {operation_id}"
                self._fleet.spawn(work, name, operation_id=operation_id, worker_id=assignment.worker_id)
            case DropCheckpoints(operation_id, digests):
                self._drop(operation_id, digests)
            case StopStray(operation_id, assignment):
                work, name = self._stop_at(operation_id, assignment), f"stop {operation_id}"
                self._fleet.spawn(work, name, operation_id=operation_id, worker_id=assignment.worker_id)

    async def resume_points(self, operation: Operation) -> list[str]:
        """The checkpoints from which the next attempt goes on, the best one first."""
        if self.checkpoint_files is None:
            return list(operation.checkpoints)
        return await self.checkpoint_files.furthest_first(operation.checkpoints)

    def _drop(self, operation_id: str, digests: tuple[str, ...]) -> None:
        if self.checkpoint_files is not None:
            work = self.checkpoint_files.drop(operation_id, digests)
            self._fleet.spawn(work, f"drop checkpoints of {operation_id}", operation_id=operation_id)

    async def _cancel_at(self, operation_id: str, assignment: Assignment) -> None:
        try:
            await self._tell_to_stop(operation_id, assignment)
        except NotFound:
            with contextlib.suppress(Unavailable):  # then a probe finds it out
                await self.apply(operation_id, NotMine(assignment))
        except KtrdrError as error:  # told again by the next probe, and the lease ends it at last
            _log.warning("Worker %s was not told to cancel %s: %s", assignment.worker_id, operation_id, error)

    async def _stop_at(self, operation_id: str, assignment: Assignment) -> None:
        try:
            await self._tell_to_stop(operation_id, assignment)
        except KtrdrError as error:  # if it still runs there, the next probe says so and it is told again
            _log.info("Worker %s was not told to stop %s: %s", assignment.worker_id, operation_id, error)

    async def _tell_to_stop(self, operation_id: str, assignment: Assignment) -> None:
        worker = self._registry.find(assignment.worker_id)
        if worker is None:
            raise ServerUnreachable(f"Worker {assignment.worker_id} is not registered.")
        await self._fleet.of(worker).cancel(operation_id, assignment.attempt)

    # --- what workers say ---------------------------------------------------------------------------------------

    async def vouch(
        self, worker_id: str, instance_id: str, operation_id: str, attempt: int, progress: Progress | None
    ) -> bool:
        """A worker says that it runs this attempt; returns whether it should go on."""
        assignment = Assignment(worker_id, instance_id, attempt)
        if self.leases.vouched(operation_id, assignment):
            self._registry.adopt(assignment, operation_id)  # it may have been held for something else
            self.progress.told(operation_id, attempt, progress)
            return True
        event = Progressed(assignment, self.lease_end(), progress)
        try:
            transition = await self.apply(operation_id, event)
        except NotFound:
            return True  # started by hand at the worker; none of our business
        return not any(isinstance(command, StopStray) for command in transition.commands)

    async def _reached(self, operation: Operation, progress: Progress) -> Operation:
        """Record how far an attempt is; nothing follows from it."""
        assert operation.assignment is not None
        event = Reported(operation.assignment, progress)
        return (await self.store.apply(operation.operation_id, event, self._clock.now())).operation

    async def checkpointed(self, worker_id: str, instance_id: str, news: CheckpointNews) -> bool:
        """A worker tells of a checkpoint, whose file is here; returns whether its job should go on."""
        assignment = Assignment(worker_id, instance_id, news.attempt)
        event = Checkpointed(assignment, news.digest, tuple(news.refused), tuple(news.notes))
        try:
            transition = await self.apply(news.operation_id, event)
        except NotFound:
            return False
        if transition.outcome == "ignored" and news.digest is not None:
            self._drop(news.operation_id, (news.digest,))
        return not any(isinstance(command, StopStray) for command in transition.commands)

    async def deliver(self, worker_id: str, delivery: DeliverRequest, key: str | None = None) -> None:
        """Record the end of an attempt. What is unknown or obsolete is accepted, so that the worker forgets it.

        (worker, key, attempt) is the fence here: an outbox may be delivered by a later incarnation of the worker, but
        not by another worker that was given its id.
        """
        try:
            operation = await self.store.get(delivery.operation_id)
        except NotFound:
            return
        theirs = operation.worker_id == worker_id and proves(key, operation.instance_id or "")
        instance = operation.instance_id if theirs else None
        assignment = Assignment(worker_id, instance or "", delivery.attempt)
        model = None
        if operation.operation_type is OperationType.TRAINING and "model" in delivery.artifacts:
            model = await self._model_of(operation, delivery)
            delivery = delivery.model_copy(
                update={"summary": delivery.summary | {"model_id": model.model_id}}
            )
        ran = instance is not None or _ran(operation, worker_id, delivery.attempt)
        if ran and delivery.attempt <= operation.attempt and not operation.status.terminal:
            await self.logs.keep(delivery)
        await self.apply(delivery.operation_id, _event_of(delivery, assignment), model)

    async def _model_of(self, operation: Operation, delivery: DeliverRequest) -> ModelRecord:
        """The list's entry for what a training delivers; delivering it again gives the same entry."""
        training = TrainingSpec.model_validate_json(await self.store.spec(operation.spec_digest))
        bundle = delivery.artifacts["model"]
        return ModelRecord(
            model_id=_model_id(training, bundle),
            bundle_digest=bundle,
            strategy_name=training.strategy_name,
            operation_id=operation.operation_id,
            created_at=operation.completed_at or self._clock.now(),
            symbols=tuple(training.symbols),
            timeframes=tuple(training.timeframes),
            metrics=delivery.summary,
        )

    # --- what users ask -----------------------------------------------------------------------------------------

    async def cancel(self, operation_id: str) -> OperationView:
        """Ask for the end; asynchronous, and repeating it is no error."""
        operation = await self.store.get(operation_id)
        if not operation.status.terminal:
            await self.apply(operation_id, CancelRequested())
        return await self.view(operation_id)

    async def delete(self, operation_id: str) -> None:
        """Forget an operation that has ended."""
        await self.store.delete(operation_id)
        await self.logs.forget(operation_id)
        self._hub.changed(operation_id)
        self.announce(operation_id)

    async def expire(self, before: datetime, limit: int) -> int:
        """Forget some of the operations that ended before, with their logs; how many they were."""
        gone = await self.store.expire(before, limit)
        for operation_id in gone:
            await self.logs.forget(operation_id)
            self._hub.changed(operation_id)
        return len(gone)

    async def view(self, operation_id: str) -> OperationView:
        """One operation, with progress not older than the TTL."""
        operation = await self.store.get(operation_id)
        queue_position = None
        if operation.status is OperationStatus.PENDING:
            queue_position = await self.store.queue_position(operation_id)
            await self.pauses.read()
        view = operation_view(operation, queue_position, self._why_waiting(operation))
        if operation.status is OperationStatus.RUNNING:
            view = view.model_copy(update={"progress": await self.progress.read(operation)})
        return view

    async def page(self, query: OperationQuery) -> OperationList:
        """A page, with the progress that is known without asking workers."""
        page = await self.store.page(query)
        if any(operation.status is OperationStatus.PENDING for operation in page.operations):
            await self.pauses.read()
        running = [o for o in page.operations if o.status is OperationStatus.RUNNING]
        known = await self.progress.known(running)
        progress = {o.operation_id: view for o, view in zip(running, known, strict=True)}
        views = []
        for operation in page.operations:
            view = operation_view(operation, None, self._why_waiting(operation))
            if operation.operation_id in progress:
                view = view.model_copy(update={"progress": progress[operation.operation_id]})
            views.append(view)
        return OperationList(operations=views, total=page.total, next_cursor=page.next_cursor)

    def _why_waiting(self, operation: Operation) -> str | None:
        if operation.status is not OperationStatus.PENDING:
            return None
        if operation.operation_type in self.pauses.known:
            return f"{operation.operation_type} operations are paused; ktrdr operations unpause lets them go"
        now = self._clock.now()
        if operation.not_before is not None and now < operation.not_before <= now + LONGEST_WAIT:
            return "workers refused it; it is tried again shortly"
        kind, gpu = WORKER_TYPE[operation.operation_type], bool(operation.requirements.get("require_gpu"))
        what = f"{kind.value} worker{' with a GPU' if gpu else ''}"
        if not self._registry.usable(kind, gpu=gpu):
            return f"no {what} is registered and healthy"
        held = self._registry.holds(operation.operation_id)
        if held or self._registry.select(kind, require_gpu=gpu) is not None:
            return None  # it is about to be assigned
        if self._registry.idle(kind, gpu=gpu):
            return f"no free {what} has answered its last probe"
        return f"every {what} is busy"

    async def artifact(self, operation_id: str, name: str) -> str:
        """The digest of one of the operation's files.

        Raises
        ------
        Conflict
            If the operation has no such file (yet); the message says in which status it is.
        """
        operation = await self.store.get(operation_id)
        digest = operation.artifacts.get(name)
        if digest is None:
            if operation.status is OperationStatus.COMPLETED:
                hint = f"a {operation.operation_type} operation has {', '.join(sorted(operation.artifacts))}"
            elif operation.status.terminal:
                hint = f"it ended {operation.status}" + (f": {operation.error}" if operation.error else "")
            else:
                hint = f"it is {operation.status}; wait for its end"
            raise Conflict(f"Operation {operation_id} has no {name}: {hint}")
        return digest


def operation_view(
    operation: Operation, queue_position: int | None, waiting_for: str | None
) -> OperationView:
    """The record as clients see it."""
    return OperationView(
        operation_id=operation.operation_id,
        operation_type=operation.operation_type,
        status=operation.status,
        progress=ProgressView.of(operation.progress),
        worker_id=operation.worker_id,
        attempt=operation.attempt,
        failures=operation.failures,
        priority=operation.priority,
        time_limit_s=operation.requirements.get("time_limit_s"),
        queue_position=queue_position,
        created_at=operation.created_at,
        started_at=operation.started_at,
        completed_at=operation.completed_at,
        error=operation.error,
        result_summary=None if operation.summary is None else dict(operation.summary),
        artifacts=dict(operation.artifacts),
        spec_digest=operation.spec_digest,
        parent_operation_id=operation.parent_operation_id,
        checkpoint_digest=operation.checkpoint_digest,
        waiting_for=waiting_for,
        story=list(operation.story),
    )


def _ran(operation: Operation, worker_id: str, attempt: int) -> bool:
    """Whether the story tells that this worker was given this attempt."""
    told = f" attempt {attempt}: assigned to {worker_id}"
    return any(line.endswith(told) for line in operation.story)


def _event_of(delivery: DeliverRequest, assignment: Assignment) -> Event:
    progress = None if delivery.progress is None else delivery.progress.told()
    if delivery.status == "released":
        return Released(assignment, delivery.checkpoint_digest, progress)
    if delivery.status == "child_died":
        detail, checkpoint = delivery.error or "no reason given", delivery.checkpoint_digest
        return ChildDied(assignment, detail, delivery.out_of_memory, progress, checkpoint)
    outcome = JobOutcome(
        status=OperationStatus(delivery.status),
        summary=delivery.summary,
        artifacts=delivery.artifacts,
        error=delivery.error,
    )
    return Finished(assignment, outcome, progress, delivery.checkpoint_digest)


def _model_id(training: TrainingSpec, bundle: str) -> str:
    """Readable and, as the bundle's digest tells, the same for the same model."""
    return f"{training.strategy_name}-{bundle[:12]}"
