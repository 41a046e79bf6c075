"""The backend's machine: the real :class:`Backend` on a simulated network, ledger and clock, killed and started again."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Generic, TypeVar, cast

from ktrdr.backend.access.principal import Principal
from ktrdr.backend.cluster.sharing import Cluster
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.fleet.registry import WorkerEndpoint
from ktrdr.backend.problems import problem_of
from ktrdr.backend.submission.orchestrator import Resources, ServiceOrchestrator, Work
from ktrdr.backend.wiring import Backend, Parts
from ktrdr.errors import KtrdrError
from ktrdr.operations.events import Assigned
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.protocol.access import CreateToken
from ktrdr.protocol.messages import OperationView, RegisterRequest, ReportRequest
from ktrdr.protocol.queueing import CancelOperations, QueueChange
from ktrdr.protocol.requests import OperationStarted, StartBacktest, StartTraining
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, TrainingSpec
from ktrdr.protocol.transports import Answer
from ktrdr.protocol.worker_key import HEADER
from ktrdr.settings import ControlSettings
from simulation.backends import Common
from simulation.choice import Choice
from simulation.commands import Commands
from simulation.door import Door
from simulation.election import SimulatedBoard
from simulation.laws import Laws
from simulation.ledger import Connection
from simulation.network import Message, Network, SimulatedTransport
from simulation.passes import ADMINISTRATOR, ENROLMENT
from simulation.plan import Weather
from simulation.shelf import ShelvedCheckpoints
from simulation.trace import Trace
from simulation.upkeep import hurry
from simulation.virtual_time import EPOCH, Process, SimulatedClock, VirtualLoop

__all__ = ["URL", "BackendMachine"]

URL = "http://backend"
_DIGEST = "a" * 64
_DATA = [DatasetRef(symbol="X", timeframe="1d", manifest=_DIGEST)]
_HELD = (OperationStatus.ASSIGNED, OperationStatus.RUNNING, OperationStatus.CANCELLING)
_A_MOMENT_S = 1.0  # in which a backend that was told that it leads no more comes to rest
_REGISTERS: ContextVar[bool] = ContextVar("registers", default=False)
R = TypeVar("R", StartBacktest, StartTraining)


class _Service(ServiceOrchestrator[R], Generic[R]):
    """The real submit path; only what a request means is made up: no prices are needed to test the control plane."""

    async def resolve(self, request: R) -> Work:
        name = request.strategy_name or "s"
        if isinstance(request, StartTraining):
            spec = TrainingSpec(
                strategy_name=name, strategy="s", symbols=["X"], timeframes=["1d"], datasets=_DATA
            )
            return Work(spec, {"prefer_gpu": request.prefer_gpu, "require_gpu": request.require_gpu})
        return Work(
            BacktestSpec(
                strategy_name=name, strategy="s", symbol="X", timeframe="1d", datasets=_DATA, model=_DIGEST
            )
        )


class _Backtests(_Service[StartBacktest]):
    operation_type = OperationType.BACKTESTING


class _Trainings(_Service[StartTraining]):
    operation_type = OperationType.TRAINING


class BackendMachine:
    """Starts backends one after the other on one disk. ``process`` is None while none runs."""

    paused: asyncio.Event | None = None
    at_once = None

    def __init__(
        self,
        url: str,
        common: Common,
        home: Path,
        control: ControlSettings,
        network: Network,
        trace: Trace,
        laws: Laws,
        random: Random,
        weather: Weather,
    ) -> None:
        self.url, self.name, self.control = url, url.removeprefix("http://"), control
        self._config = BackendConfig(
            home=home,
            control=control,
            networks=(ipaddress.ip_network("10.0.0.0/8"),),
            version="1.1.0",
            api_token=ADMINISTRATOR if laws.passes.guarded else None,
            worker_token=ENROLMENT if laws.passes.guarded else None,
            strategy_roots=(home / "strategies",),
        )
        self._network, self._trace, self._laws, self._random = network, trace, laws, random
        self.weather = weather
        self._common, self.shelf = common, common.shelf
        self.disk, self.trouble, self._election = common.disk, common.trouble, common.election
        self.seat = common.seat(self.name, trace, laws)
        self.clock = SimulatedClock(asyncio.get_running_loop())
        self.armed_answer = False  # the next start request that a worker answers kills the backend
        self.process: Process | None = None
        self.backend: Backend
        self.restart_after: Callable[[], None] = lambda: None
        self.out_of_use, self.paused_types = common.out_of_use, common.paused_types
        self.started_at = 0.0
        self._ready = asyncio.Event()
        self._probe_failures: Counter[str] = Counter()
        laws.leases_safe_until = self._leases_safe_until
        laws.ledger_served_since = lambda: self.trouble.failed_at
        laws.find = self.disk.operations.get
        network.endpoints[url] = self

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process; until it has read the ledger it takes no connections."""
        if self.process is not None:
            return
        process = Process(self.name)
        self.process = process
        self.started_at = self._trace.now()
        self._probe_failures.clear()
        self._ready = asyncio.Event()
        transport = SimulatedTransport(
            self._network, self.url, process, on_send=self._sends, on_outcome=self._outcome
        )
        self.store = Connection(
            self.disk, process, self._trace, self._random, self.weather, self.trouble, self._crash_at
        )
        self.store.on_assign = self._assigns
        self.store.on_forget = self.out_of_use.discard  # the mark goes with the worker
        self._trace.tell(f"{self.name} starts")
        cluster = None
        if self.seat is not None:
            self.seat.begin()
            self.seat.leadership.weather, self.store.seat = self.weather, self.seat
            cluster = Cluster(self.seat.leadership, SimulatedBoard(self.seat, process), self.seat.fence)
        process.spawn(self._boot(transport, cluster))

    async def _boot(self, transport: SimulatedTransport, cluster: Cluster | None) -> None:
        parts = Parts(
            store=self.store, transport=transport, clock=self.clock, random=self._random, cluster=cluster
        )
        backend = Backend(self._config, parts)
        self.backend = backend
        backend.operations.checkpoint_files = ShelvedCheckpoints(self.store, self.shelf)
        backend.enrolment._artifacts = self.shelf.as_store
        hurry(backend, self.shelf.as_store)
        self.store.on_expire = lambda before: self._laws.upkeep.asked(
            before, EPOCH + timedelta(seconds=self._trace.now())
        )
        use = Resources(
            store=self.store,
            registry=backend.registry,
            dispatcher=backend.dispatcher,
            data=backend.data,
            library=backend.library,
            artifacts=self.shelf.as_store,
            clock=self.clock,
            random=self._random,
            fresh=backend._fresh,
        )
        self._backtests, self._trainings = _Backtests(use), _Trainings(use)
        self._commands = Commands(backend, self._service_of, self.disk, self._laws, self._trace)
        self.store.choice = Choice(
            self._laws, self.disk, backend.registry, self._trace.now, several=self.seat is not None
        )
        await backend.start()
        process = self.process
        assert process is not None
        self._door = Door(backend, process, self._laws.passes, self._trace, self._heard_until)
        self._ready.set()
        if self._trace.now() > 1.0:
            self._trace.situations["backend restarted"] += 1

    def crash(self, fault: str, operation_id: str | None = None) -> None:
        """``kill -9``, and somebody starts it again."""
        if self.process is None:
            return
        self._trace.fault(fault, f"{self.name} is killed", operation_id)
        process, self.process = self.process, None
        process.thaw(cast("VirtualLoop", asyncio.get_running_loop()))
        process.kill()
        if self.seat is not None:
            self.seat.election.killed(self.seat.leadership)
        self.restart_after()

    def _crash_at(self, fault: str, about: str) -> None:
        self.crash(fault, about or None)

    def _leases_safe_until(self) -> float:
        """Before this no lease may end."""
        began = self.started_at if self._election is None else self._election.granted_at
        return began + self.control.lease_s

    def _heard_until(self) -> float:
        """When the ledger could last not tell this backend anything."""
        cut = self.seat is not None and self.seat.is_cut
        return self._trace.now() if cut else self._common.disturbed_at

    @property
    def ready(self) -> bool:
        """Whether a backend runs and has read the ledger."""
        return self.process is not None and self._ready.is_set()

    # --- what goes out ------------------------------------------------------------------------------------------

    def _assigns(self, operation_id: str, event: Assigned) -> None:
        """The backend has chosen a worker: it must be one that takes work."""
        if self.seat is not None and not self.seat.leads:
            return  # the fence will refuse it
        law, worker = "no dispatch to dead or draining workers", self.backend.registry.find(event.worker_id)
        if worker is None:
            self._laws.broken(law, f"{event.worker_id} is not registered", operation_id)
            return
        names = {
            o.operation_id
            for o in self.disk.held_by(event.worker_id)
            if o.assignment is not None
            and o.assignment.instance_id == event.instance_id
            and not self._laws.just_renewed(o.operation_id)  # the backend learns of it in this very moment
        }
        held = names - self.trouble.doubtful
        self._laws.demand(
            not held,
            "a worker has one attempt",
            f"{event.worker_id} has {sorted(held)} and gets {operation_id}",
            min(held, default=operation_id),
        )
        kind = OperationType(worker.record.worker_type.value)
        self._laws.demand(
            kind not in self.paused_types,
            "what is paused is not dispatched",
            f"to {event.worker_id}",
            operation_id,
        )
        failures = self._probe_failures[worker.record.endpoint_url]
        self._laws.demand(
            event.worker_id not in self.out_of_use, law, f"{event.worker_id} is drained", operation_id
        )
        self._laws.demand(
            worker.verified, law, f"{event.worker_id} was not probed since the start", operation_id
        )
        self._laws.demand(not worker.drains_itself, law, f"{event.worker_id} said it drains", operation_id)
        self._laws.demand(
            failures < self.control.health_failures and worker.failures == 0,
            law,
            f"{event.worker_id} failed {max(failures, worker.failures)} probes in a row",
            operation_id,
        )
        self._laws.demand(
            self._is_reserved_for(worker, operation_id),
            "a worker is reserved before it is assigned",
            f"{worker.reserved_for}",
            operation_id,
        )

    def _is_reserved_for(self, worker: WorkerEndpoint, operation_id: str) -> bool:
        """For it, and no other for a later attempt of it. The registry's index knows whether there is another; audits
        look whether the index is right."""
        mine, registry = worker.reserved_for, self.backend.registry
        if mine is None or mine[0] != operation_id or registry._turns._held[operation_id] < 2:
            return mine is not None and mine[0] == operation_id
        held = (w.reserved_for for w in registry if w.reserved_for is not None)
        return mine[1] == max(attempt for name, attempt in held if name == operation_id)

    def _sends(self, message: Message) -> None:
        """A start request: the assignment must be in the ledger before the worker hears of it."""
        if not message.path.partition("?")[0].endswith("/start"):
            return
        body = message.json
        record = self.disk.operations.get(body["task_id"])
        recorded = record is not None and record.attempt >= body["attempt"]
        self._laws.demand(
            recorded, "assigned before dispatched", f"attempt {body['attempt']}", body["task_id"]
        )
        self._laws.dispatched(body["task_id"], body["attempt"], message.url)
        if self.seat is not None:
            since = self.seat.told_otherwise_at
            self._laws.demand(
                since is None or self._trace.now() - since < _A_MOMENT_S,
                "who does not lead dispatches nothing",
                f"{self.name} knows since {since}",
                body["task_id"],
            )
        message.on_answer = lambda: self._answer_arrives(body["task_id"])

    def _answer_arrives(self, operation_id: str) -> None:
        if self.armed_answer and self.process is not None:
            self.armed_answer = False
            self.crash("backend crash after dispatch before answer", operation_id)

    def _outcome(self, message: Message, status: int | None) -> None:
        if message.path == "/health":
            if status == 200:
                self._probe_failures[message.url] = 0
            elif not _REGISTERS.get():  # what a registration asks is no probe of who is registered
                self._probe_failures[message.url] += 1
            heard = status == 200 and (self.seat is None or self.seat.leads)
            if heard and message.vouches is not None:
                self._laws.vouch(*message.vouches)

    # --- what comes in ------------------------------------------------------------------------------------------

    async def handle(self, message: Message) -> Answer:
        await self._ready.wait()
        try:
            principal = await self._door.enter(message)
            return await self._route(message, principal)
        except KtrdrError as error:
            problem = problem_of(error)
            return Answer(problem.status, {}, problem.model_dump_json(exclude_none=True).encode())

    async def _route(self, message: Message, principal: Principal) -> Answer:
        parts = message.path.partition("?")[0].split("/")[3:]  # after /api/v1
        backend, method = self.backend, message.method
        if (parts[0] == "workers" and method != "GET") or parts[0] == "queue":
            backend.must_lead()
        match method, *parts:
            case "POST", "workers", "register":
                request = RegisterRequest.model_validate(message.json)
                shown, token_id = message.headers.get(HEADER), principal.token_id
                _REGISTERS.set(True)
                registered = await backend.enrolment.register(request, shown, token_id=token_id)
                self._laws.passes.spoke(request.worker_id, message)
                return _answer(200, registered)
            case "POST", "workers", worker_id, "report":
                report = ReportRequest.model_validate(message.json)
                taken = await backend.enrolment.report(worker_id, report, message.headers.get(HEADER))
                self._laws.passes.spoke(worker_id, message)
                return _answer(200, taken)
            case "POST", "workers", worker_id, ("drain" | "undrain") as verb:
                if (
                    verb == "undrain"
                ):  # perhaps a late duplicate: whoever sent it, the worker may be used again
                    self.out_of_use.discard(worker_id)
                return _answer(200, await backend.enrolment.set_draining(worker_id, verb == "drain"))
            case "DELETE", "workers", worker_id:
                await backend.enrolment.forget(worker_id)
                return Answer(204)
            case "POST", "tokens":
                text = await self._door.make(CreateToken.model_validate(message.json))
                return Answer(201, {}, text.encode())
            case "DELETE", "tokens", name:
                await self._door.withdraw(name)
                if backend.leads:
                    backend.health.dismiss_soon()
                return Answer(204)
            case "POST", "queue", ("pause" | "unpause") as verb:
                return await self._switch(verb, QueueChange.model_validate(message.json))
            case "POST", ("backtests" | "trainings") as kind, "start":
                return await self._submit(kind, message)
            case "PUT", "artifacts", _:
                self.shelf.take(message.json["content"], message.json["made"], self.weather.torn)
                return Answer(204)
            case "GET", "operations", operation_id:
                view = await backend.operations.view(operation_id)
                self._laws.queue.shown(view)
                return _answer(200, view)
            case "POST", "operations", operation_id, "cancel":
                return _answer(202, await self._commands.cancel(operation_id))
            case "POST", "operations", "cancel":
                meant = CancelOperations.model_validate(message.json)
                return _answer(202, await self._commands.cancel_all(meant))
            case "POST", "operations", operation_id, ("retry" | "resume") as verb:
                key = message.headers["idempotency-key"]
                return _started(await self._commands.again(operation_id, verb, key))
            case "DELETE", "operations", operation_id:
                await self._commands.delete(operation_id)
                return Answer(204)
        raise AssertionError(f"{method} {message.path}")

    async def _switch(self, verb: str, change: QueueChange) -> Answer:
        pauses = self.backend.operations.pauses
        types = tuple(OperationType) if change.operation_type is None else (change.operation_type,)
        if verb == "pause":
            lifts = self._common.lifts
            await pauses.pause(types)
            if lifts == self._common.lifts:  # else somebody asked for the opposite meanwhile
                self.paused_types.update(types)
        else:
            self._common.lifts += 1
            self.paused_types.difference_update(types)
            await pauses.lift(types)
            self.backend.dispatcher.wake()
        return _answer(200, await pauses.view())

    def _service_of(self, operation: Operation) -> ServiceOrchestrator[Any]:
        training = operation.operation_type is OperationType.TRAINING
        return self._trainings if training else self._backtests

    async def _submit(self, kind: str, message: Message) -> Answer:
        key = message.headers["idempotency-key"]
        if not self.backend.leads:
            self._trace.situations["submitted to a follower"] += 1
        if kind == "backtests":
            work = self._backtests.submit(StartBacktest.model_validate(message.json), key)
        else:
            work = self._trainings.submit(StartTraining.model_validate(message.json), key)
        return _started(await self._commands.submitted(work, message.json, key))

    # --- audits -------------------------------------------------------------------------------------------------

    def audit(self, *, strict: bool = False) -> None:
        """Between two events of a quiet store: what is reserved is held by exactly that attempt.

        Where a commit's outcome was unknown, the worker's next word puts it right; ``strict``: it must have by now.
        """
        if not self.ready or self.store.in_flight:
            return
        if self.seat is not None and not (self.seat.leads and self.backend.leads):
            return
        held = Counter(w.current_operation_id for w in self.backend.registry if w.current_operation_id)
        index = self.backend.registry._turns._held
        self._laws.demand(held == index, "the index of workers is right", f"{held - index}, {index - held}")
        for worker in self.backend.registry:
            if worker.reserved_for is None:
                continue
            operation_id, attempt = worker.reserved_for
            if operation_id in self.trouble.doubtful and not strict:
                continue
            record = self.disk.operations.get(operation_id)
            held = record is not None and record.status in _HELD and record.attempt == attempt
            held = held and record is not None and record.worker_id == worker.worker_id
            self._laws.demand(
                held,
                "slots used are live attempts",
                f"{worker.worker_id} is reserved for attempt {attempt}",
                operation_id,
            )

    def audit_empty(self) -> None:
        """After the end of all operations nothing is left over that could pile up."""
        backend = self.backend
        few = 1 + len(self.disk.operations) // 20  # polls that read before an end may leave something known
        known = list(backend.operations.progress._known)
        left: dict[str, Any] = {
            "reserved slots": [w.worker_id for w in backend.registry if w.reserved_for],
            "counted refusals": list(backend.dispatcher._refusals),
            "known progress": known if len(known) > few else [],
            "background work": list(backend.fleet._tasks)[2 * len(backend.registry) :],
            "waiting polls": list(backend.hub._waiting),
        }
        for what, things in left.items():
            self._laws.demand(not things, "nothing piles up", f"{what}: {things}")


def _started(operation: Operation) -> Answer:
    started = OperationStarted(
        operation_id=operation.operation_id,
        operation_type=operation.operation_type,
        operation_status=operation.status,
        message="",
    )
    return _answer(202, started)


def _answer(status: int, body: Any) -> Answer:
    return Answer(status, {}, body.model_dump_json().encode())


def view_of(answer: Answer) -> OperationView:
    """An operation from an answer."""
    return OperationView.model_validate_json(answer.body)
