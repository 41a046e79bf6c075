"""One run: a seed, a fleet, a storm, then fine weather in which everything must finish."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from ktrdr.errors import KtrdrError, Unavailable
from ktrdr.operations.model import OperationStatus, OperationType, WorkerType
from ktrdr.settings import ControlSettings
from simulation.backend import URL, BackendMachine
from simulation.backends import Backends, Common, backends_of
from simulation.deadlines import Deadlines
from simulation.intruder import Intruder
from simulation.laws import Laws
from simulation.network import Network
from simulation.passes import Passes, guarded_by
from simulation.people import Client, Operator
from simulation.plan import Size, Weather
from simulation.trace import Trace, Violation
from simulation.virtual_time import VirtualLoop
from simulation.weather import Storm
from simulation.worker import SimulatedWorker

__all__ = ["Report", "simulate"]

_AUDIT_EVERY_S = 5.0
_PER_OPERATOR = 25
_LATE_MESSAGES_S = 400.0  # so long after the end, duplicates that are minutes late still arrive


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did. ``violation`` is None if every law held; ``story`` tells of the operation it befell."""

    seed: int
    events: int
    operations: int
    digest: str
    virtual_s: float
    faults: Counter[str]
    situations: Counter[str]
    outcomes: Counter[str]
    backends: int = 1
    violation: Violation | None = None
    story: list[str] = field(default_factory=list)


def simulate(
    seed: int,
    home: Path,
    size: Size | None = None,
    weather: Weather | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run one seed; ``home`` is a folder for the little that the backend keeps in files. ``tell`` hears now and then how
    far it is."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    world = _World(seed, home, size or Size(), weather or Weather.of(seed), loop)
    world.tell = tell
    log = logging.getLogger("ktrdr")
    listener, level, spreads = _Listener(world), log.level, log.propagate
    log.addHandler(listener)
    log.setLevel(logging.ERROR)
    log.propagate = False
    thresholds = gc.get_threshold()
    gc.collect()  # the run before this one
    gc.freeze()  # a run makes much, and little of it in cycles: those are looked for seldom
    gc.set_threshold(100_000, 20, 50)
    try:
        return world.run()
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
        log.propagate = spreads
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        asyncio.set_event_loop(None)
        loop.close()


class _Listener(logging.Handler):
    """Loops that outlive everything log what went wrong in them; only trouble of storage and network may."""

    def __init__(self, world: _World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, Unavailable):
            self._world.failed(error)


class _World:
    tell: Callable[[str], None]

    def __init__(self, seed: int, home: Path, size: Size, weather: Weather, loop: VirtualLoop) -> None:
        self._seed, self._home, self._size, self._weather, self._loop = seed, home, size, weather, loop
        self.backends = size.backends or backends_of(seed)
        self._trace = Trace(loop.time)
        self._broken: asyncio.Future[None] = loop.create_future()
        self._control = ControlSettings()
        self._laws = Laws(self._trace, self._control, self._report)
        guarded = guarded_by(seed) and weather != Weather.calm()
        self._passes = self._laws.passes = Passes(self._laws, guarded=guarded)
        self._clients: dict[asyncio.Task[None], Client] = {}
        loop.set_exception_handler(self._unexpected)

    def _random(self, name: str) -> Random:
        return Random(f"{self._seed}/{name}")

    def _report(self, violation: Violation) -> None:
        if not self._broken.done():
            self._broken.set_exception(violation)

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """Something raised what nobody expected."""
        if isinstance(error, Violation):
            self._report(error)
        else:
            self._report(Violation("nothing fails unexpectedly", "".join(traceback.format_exception(error))))

    def run(self) -> Report:
        violation: Violation | None = None
        try:
            self._loop.run_until_complete(self._live())
        except Violation as broken:
            violation = broken
        except KtrdrError as error:
            violation = Violation("nobody gets a strange answer", repr(error))
        finally:
            self._end()
        return self._told(violation)

    async def _live(self) -> None:
        size, trace = self._size, self._trace
        network = self._network = Network(trace, self._random("network"), self._weather)
        self._machine = machine = self._backends(network)
        await self._passes.set_up(machine.disk.access, size.workers)
        machine.start()
        await asyncio.sleep(0.5)
        self._workers = workers = [self._worker(number, network) for number in range(size.workers)]
        self._deadlines = Deadlines(self._laws, self._control, machine, workers)
        for worker in workers:
            worker.start()
        storm = Storm(str(self._seed), self._weather, network, machine, workers, trace)
        storm.begin()
        operators = [
            Operator(
                network,
                self._random(f"operator/{number}"),
                machine,
                trace,
                group,
                self._laws,
                chief=number == 0,
            )
            for number, group in enumerate([workers, *_shares(workers)])
        ]
        operating = [asyncio.ensure_future(operator.run()) for operator in operators]
        submitting = asyncio.ensure_future(self._submit_all(network))
        auditing = asyncio.ensure_future(self._audit())
        intruding = asyncio.ensure_future(self._intrude(network))
        intruding.add_done_callback(self._intruded)
        await self._unless_broken(asyncio.sleep(size.chaos_s))
        intruding.cancel()
        for operator in operators:
            operator.at_home = True
        storm.heal()
        everyone = asyncio.gather(submitting, *operating)
        await self._unless_broken(asyncio.wait({everyone}, timeout=size.heal_s))
        self._demand_finished()
        await self._unless_broken(everyone)
        await self._unless_broken(asyncio.sleep(_LATE_MESSAGES_S))
        auditing.cancel()
        for machine in network.endpoints.values():
            if machine.process is not None:
                machine.process.tidy()
        await self._unless_broken(asyncio.sleep(0))
        self._final_audit()

    async def _intrude(self, network: Network) -> None:
        if self._passes.guarded:
            random, urls = self._random("intruder"), self._machine.urls
            await Intruder(network, random, self._trace, self._laws, self._workers, urls).run()

    def _intruded(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def _backends(self, network: Network) -> Backends:
        """The backend, or all of them."""
        count, restart = self.backends, self._random("restart")
        common = Common.of(count, self._control, self._trace, self._laws, self._random)
        machines = []
        for number in range(count):
            name = "backend" if number == 0 else f"backend-{number}"
            random, url = self._random(name), f"{URL}{name.removeprefix('backend')}"
            machine = BackendMachine(
                url,
                common,
                self._home,
                self._control,
                network,
                self._trace,
                self._laws,
                random,
                self._weather,
            )
            machine.restart_after = partial(self._restart, machine, restart)
            machines.append(machine)
        return Backends(machines, common, self._trace)

    def _restart(self, machine: BackendMachine, random: Random) -> None:
        self._loop.call_later(random.uniform(0.2, 20.0), machine.start, context=Context())

    async def _submit_all(self, network: Network) -> None:
        """Clients come one by one at random moments; each is there until it was told the end of its operation."""
        random, now = self._random("begins"), self._loop.time
        moments = sorted(random.uniform(1.0, self._size.chaos_s * 0.8) for _ in range(self._size.operations))
        began = now()
        for number, moment in enumerate(moments):
            await asyncio.sleep(max(began + moment - now(), 0.0))
            client = Client(number, network, self._random(f"client/{number}"), self._laws, self._machine.urls)
            task = asyncio.ensure_future(client.run())
            self._clients[task] = client
            task.add_done_callback(self._content)
        while self._clients:
            await asyncio.wait(list(self._clients))

    def _content(self, task: asyncio.Task[None]) -> None:
        """A client has seen the end of its operation."""
        client = self._clients.pop(task)
        self._network.forget(client.url, self._machine.urls)
        if not task.cancelled():
            if (error := task.exception()) is not None:
                self.failed(error)
            elif client.operation_id not in self._laws.ended and client.operation_id not in self._laws.may_go:
                self._report(Violation("nobody gets a strange answer", "a client left", client.operation_id))

    def _worker(self, number: int, network: Network) -> SimulatedWorker:
        kind = WorkerType.BACKTESTING if number % 2 == 0 else WorkerType.TRAINING
        return SimulatedWorker(
            f"w{number}",
            kind,
            network,
            self._trace,
            self._random(f"worker/{number}"),
            self._laws,
            gpu=number % 4 == 1,
            longest_s=self._size.longest_s,
            doors=self._machine.urls,
            shelf=self._machine.common.shelf,
        )

    async def _unless_broken(self, work: Any) -> None:
        """Wait for the work, or for the first broken law."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()
        await task

    async def _audit(self) -> None:
        while True:
            await asyncio.sleep(_AUDIT_EVERY_S)
            self._machine.audit()
            self._deadlines.look(self._loop.time())
            ended, all_of_them = len(self._laws.ended), self._size.operations
            self.tell(
                f"seed {self._seed}: {self._loop.time():.0f} s, {self._trace.events} events, clients were told the end of "
                f"{ended} of {all_of_them} operations"
            )

    def _demand_finished(self) -> None:
        for name, operation in self._machine.disk.operations.items():
            self._laws.demand(
                operation.status.terminal,
                "after the healing everything finishes",
                f"{operation.status} after {self._size.heal_s:.0f} s",
                name,
            )
        for client in self._clients.values():
            self._laws.broken(
                "after the healing everything finishes",
                f"a client was not told the end of '{client.operation_id}'",
                client.operation_id,
            )

    def _final_audit(self) -> None:
        operations = self._machine.disk.operations
        told = self._laws.acknowledged
        missing = [n for n in told.values() if n not in operations and n not in self._laws.may_go]
        self._laws.demand(not missing, "an acknowledged operation is never missing", f"{missing}")
        given_up = {n for n, found in operations.items() if found.idempotency_key in self._laws.given_up}
        unknown = set(operations).difference(told.values(), given_up)
        self._laws.demand(
            not unknown and len(told) >= self._size.operations, "one operation per key", f"{unknown}"
        )
        for name, operation in operations.items():
            if (
                operation.operation_type is OperationType.TRAINING
                and operation.status is OperationStatus.COMPLETED
            ):
                listed = self._machine.disk.has_model((operation.summary or {}).get("model_id"))
                self._laws.demand(listed, "the model of a completed training is listed", name, name)
        self._machine.audit(strict=True)
        self._machine.audit_empty()
        for worker in self._workers:
            named = worker.slot.visible()
            self._laws.demand(
                named is None,
                "a worker names what it runs, nothing else",
                f"{worker.worker_id} names an attempt that has ended",
                None if named is None else named.run.operation_id,
            )

    def _end(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.set_exception_handler(lambda loop, context: None)
        self._loop.run_until_complete(asyncio.sleep(0))
        if self._broken.done():
            self._broken.exception()

    def _told(self, violation: Violation | None) -> Report:
        trace, operations = self._trace, self._machine.disk.operations
        story: list[str] = []
        if violation is not None:
            name = violation.operation_id
            story = trace.story(name)
            if name in operations:
                story += ["as the ledger tells it:", *operations[name].story]
        gone = self._laws.upkeep.gone
        outcomes = gone + Counter(str(o.status) for o in operations.values())
        return Report(
            self._seed,
            trace.events,
            len(operations) + gone.total(),
            trace.digest,
            self._loop.time(),
            trace.faults,
            trace.situations,
            outcomes,
            self.backends,
            violation,
            story,
        )


def _shares(workers: list[SimulatedWorker]) -> list[list[SimulatedWorker]]:
    """One operator looks after so many workers."""
    return [workers[first : first + _PER_OPERATOR] for first in range(0, len(workers), _PER_OPERATOR)]
