"""Who uses the control plane: clients that submit, look and cancel, and operators who drain, forget and stop workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from ktrdr.errors import InvalidInput, ServerUnreachable
from ktrdr.operations.model import OperationType
from ktrdr.protocol.requests import OperationStarted
from ktrdr.protocol.transports import Answer
from simulation.backend import view_of
from simulation.backends import Backends
from simulation.laws import Laws
from simulation.network import Network, SimulatedTransport
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.virtual_time import Process
from simulation.worker import SimulatedWorker

__all__ = ["Client", "Operator"]

_LATEST_DUPLICATE_S = 330.0
_TWICE = 0.15  # of the submissions, where there are several backends
_DUTIES = ("drain", "drain newcomer", "forget", "stop", "hurry")
_CHIEFS_DUTIES = (*_DUTIES, "pause")


class _Person:
    def __init__(self, name: str, network: Network, random: Random, doors: Sequence[str]) -> None:
        self.name, self.random, self._doors = name, random, doors
        self._transport = SimulatedTransport(network, f"http://{name}", Process(name))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """The answer; None if there was none, whatever became of the request. Any backend may be asked."""
        door = self.random.choice(self._doors) if len(self._doors) > 1 else self._doors[0]
        url = f"{door}/api/v1{path}"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return await self._transport.request(method, url, json=body, headers=sent, timeout_s=15.0)
        except ServerUnreachable:
            return None

    async def insist(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Ask until there is an answer that is no 5xx."""
        pause_s = 0.5
        while True:
            answer = await self.ask(method, path, body, **headers)
            if answer is not None and answer.status < 500:
                return answer
            await asyncio.sleep(pause_s * self.random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, 20.0)


class Client(_Person):
    """Sees one operation through, from the submission to its end; perhaps cancels it."""

    def __init__(
        self, number: int, network: Network, random: Random, laws: Laws, doors: Sequence[str]
    ) -> None:
        super().__init__(f"client-{number}", network, random, doors)
        self._key, self._laws = f"key-{number}", laws
        self._strategy = f"s{number % 5_000}"  # specs are stored once
        self._kind = "backtests" if random.random() < 0.6 else "trainings"
        self._cancel_after = random.uniform(0.0, 90.0) if random.random() < 0.2 else None
        self.operation_id = ""

    @property
    def url(self) -> str:
        """Where answers go."""
        return f"http://{self.name}"

    async def run(self) -> None:
        await self._submit()
        if self.random.random() < 0.1:
            await self._submit()
        if self._cancel_after is not None:
            await asyncio.sleep(self._cancel_after)
            answer = await self.insist("POST", f"/operations/{self.operation_id}/cancel")
            self._laws.told_cancelled(self.operation_id, view_of(self._found(answer)))
        patience = 1.0
        while not await self._ended():
            await asyncio.sleep(patience * self.random.uniform(2.0, 15.0))
            patience = min(1.5 * patience, 6.0)
        if self.random.random() < 0.2:
            await asyncio.sleep(self.random.uniform(0.0, 200.0))
            await self._ended()

    async def _submit(self) -> None:
        body = {"strategy_name": self._strategy, "priority": self.random.choice((0, 0, 0, 5))}
        times = 2 if len(self._doors) > 1 and self.random.random() < _TWICE else 1
        asking = (self.insist("POST", f"/{self._kind}/start", body, idempotency_key=self._key),)
        if times > 1:  # most often at two backends
            again = self.insist("POST", f"/{self._kind}/start", body, idempotency_key=self._key)
            asking = (*asking, again)
        for answer in await asyncio.gather(*asking):
            if answer.status != 202:
                raise InvalidInput(f"{self._key}: {answer.status} {answer.body!r}")
            self.operation_id = OperationStarted.model_validate_json(answer.body).operation_id
            self._laws.told_submitted(self._key, self.operation_id)

    async def _ended(self) -> bool:
        answer = await self.ask("GET", f"/operations/{self.operation_id}")
        if answer is None or answer.status >= 500:
            return False
        view = view_of(self._found(answer))
        self._laws.told_state(self.operation_id, view)
        return view.status.terminal

    def _found(self, answer: Answer) -> Answer:
        if answer.status == 404:
            self._laws.told_missing(self.operation_id)
        if not answer.ok:
            raise InvalidInput(f"{self.operation_id}: {answer.status} {answer.body!r}")
        return answer


class Operator(_Person):
    """Drains workers and lets them work again, forgets one now and then, stops one gracefully; the chief pauses all."""

    def __init__(
        self,
        network: Network,
        random: Random,
        machine: Backends,
        trace: Trace,
        workers: Sequence[SimulatedWorker],
        laws: Laws,
        *,
        chief: bool,
    ) -> None:
        super().__init__("operator", network, random, machine.urls)
        self._chief = chief
        self._machine, self._trace, self._workers, self._laws = machine, trace, workers, laws
        self.at_home = False

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.random.uniform(10.0, 40.0))
            if self.at_home and not self._chief:
                return
            if self.at_home:
                await asyncio.sleep(_LATEST_DUPLICATE_S)  # a late pause must not be the last word
                await self.insist("POST", "/queue/unpause", {})
                return
            worker = self.random.choice(self._workers)
            match self.random.choice(_CHIEFS_DUTIES if self._chief else _DUTIES):
                case "drain":
                    await self._drain(worker.worker_id)
                case "drain newcomer":
                    await self._stop(worker)
                    await asyncio.sleep(self.random.uniform(0.0, 0.04))  # it is just being registered
                    await self._drain(worker.worker_id)
                case "forget":
                    await self._forget_one()
                case "stop":
                    await self._stop(worker)
                case "hurry":
                    await self._hurry()
                case "pause":
                    await self._pause()

    async def _stop(self, worker: SimulatedWorker) -> None:
        await worker.leave()
        await asyncio.sleep(self.random.uniform(1.0, 20.0))
        if worker.process is None:
            worker.start()

    async def _hurry(self) -> None:
        """Stops a worker and cancels what it runs at the same moment; the worker releases what is being cancelled."""
        for worker in self.random.sample(self._workers, len(self._workers)):
            if worker.process is not None and worker.slot.current is not None:
                operation_id = worker.slot.current.run.operation_id
                stopping = asyncio.ensure_future(self._stop(worker))
                answer = await self.ask("POST", f"/operations/{operation_id}/cancel")
                if answer is not None and answer.ok:
                    self._laws.told_cancelled(operation_id, view_of(answer))
                await stopping
                return

    async def _pause(self) -> None:
        """Holds back what is queued, of one kind or both, for a while."""
        types = self.random.choice((tuple(OperationType), (OperationType.BACKTESTING,)))
        body = {} if len(types) > 1 else {"operation_type": types[0].value}
        answer = await self.ask("POST", "/queue/pause", body)
        if answer is not None and answer.ok:
            self._trace.situations["queue paused"] += 1
            if self.random.random() < 0.4 and self._machine.weather != Weather.calm():
                self._machine.crash("backend crash")
        await asyncio.sleep(self.random.uniform(2.0, 20.0))
        await self.insist("POST", "/queue/unpause", {})

    async def _forget_one(self) -> None:
        """The first that runs nothing; it lives, so it registers again."""
        for worker in self.random.sample(self._workers, len(self._workers)):
            answer = await self.ask("DELETE", f"/workers/{worker.worker_id}")
            if answer is not None and answer.status == 204:
                self._trace.situations["worker removed"] += 1
                return

    async def _drain(self, worker_id: str) -> None:
        answer = await self.insist("POST", f"/workers/{worker_id}/drain")
        if answer.ok:
            self._trace.situations["worker drained"] += 1
            self._machine.out_of_use.add(worker_id)
        await asyncio.sleep(self.random.uniform(5.0, 60.0))
        self._machine.out_of_use.discard(worker_id)
        while True:
            answer = await self.insist("POST", f"/workers/{worker_id}/undrain")
            if answer.ok or answer.status == 404:
                return
