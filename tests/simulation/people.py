"""Who uses the control plane: clients that submit, look and cancel, and operators who drain, forget and stop workers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from ktrdr.errors import InvalidInput, ServerUnreachable
from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.requests import OperationStarted
from ktrdr.protocol.transports import Answer
from simulation.backend import view_of
from simulation.backends import Backends
from simulation.duties import cancel_all, change_nothing, update, withdraw
from simulation.laws import Laws
from simulation.network import Network, SimulatedTransport
from simulation.passes import ADMINISTRATOR
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.virtual_time import Process
from simulation.wishes import Wish
from simulation.worker import SimulatedWorker

__all__ = ["Client", "Operator"]

_LATEST_DUPLICATE_S = 330.0
_TWICE = 0.15  # of the submissions, where there are several backends
_VERSIONS = ("1.2.0", "1.1.0")  # the backend is of the second
_OLDER = ("1.0.0", "1.1.0")
_DUTIES = ("drain", "drain newcomer", "forget", "stop", "hurry")
_CHIEFS_DUTIES = (*3 * ("pause", "hurry", "change nothing", "update"), "cancel all", "withdraw", "withdraw")


class _Person:
    def __init__(
        self, name: str, network: Network, random: Random, doors: Sequence[str], token: str | None
    ) -> None:
        self.name, self.random, self._doors = name, random, doors
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._transport = SimulatedTransport(network, f"http://{name}", Process(name))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer | None:
        """The answer; None if there was none, whatever became of the request. Any backend may be asked."""
        door = self.random.choice(self._doors) if len(self._doors) > 1 else self._doors[0]
        url = f"{door}/api/v1{path}"
        sent = self._headers
        if headers:
            sent = {**sent, **{name.replace("_", "-"): value for name, value in headers.items()}}
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


class _Gone(Exception):
    """Retention was quicker than a client."""


class Client(_Person):
    """Sees one operation through, from the submission to its end; perhaps cancels it."""

    def __init__(
        self, number: int, network: Network, random: Random, laws: Laws, doors: Sequence[str]
    ) -> None:
        token = laws.passes.client if laws.passes.guarded else None
        super().__init__(f"client-{number}", network, random, doors, token)
        self._key, self._laws = f"key-{number}", laws
        self._wish = Wish.of(number, random)
        self._cancel_after = random.uniform(0.0, 90.0) if random.random() < 0.2 else None
        self.operation_id = ""
        self._repeats = 0

    @property
    def url(self) -> str:
        """Where answers go."""
        return f"http://{self.name}"

    async def run(self) -> None:
        with contextlib.suppress(_Gone):
            await self._submit()
            if self.random.random() < 0.1:
                await self._submit()
            await self._see_through()

    async def _see_through(self) -> None:
        if self._cancel_after is not None and not self._repeats:
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
        if self._laws.ended[self.operation_id] is not OperationStatus.COMPLETED:
            if not self._repeats and self.random.random() < 0.4:
                await self._again()
        elif self.random.random() < 0.05:
            await self._regret()

    async def _submit(self) -> None:
        wish, path = self._wish, f"/{self._wish.kind}/start"
        if wish.impatient:
            at_once = await self.ask("POST", path, wish.body, idempotency_key=self._key)
            if at_once is not None and at_once.ok:
                self._started(self._key, at_once)
                return
        body, times = wish.patient.body, 1
        if len(self._doors) > 1 and self.random.random() < _TWICE:  # most often at two backends
            times = 2
        asking = [self.insist("POST", path, body, idempotency_key=self._key) for _ in range(times)]
        for answer in await asyncio.gather(*asking):
            self._started(self._key, answer)

    def _started(self, key: str, answer: Answer) -> None:
        self._unless_gone(answer)
        if answer.status != 202:
            raise InvalidInput(f"{key}: {answer.status} {answer.body!r}")
        self.operation_id = OperationStarted.model_validate_json(answer.body).operation_id
        self._laws.told_submitted(key, self.operation_id)

    async def _again(self) -> None:
        """Resume it if that is possible, else retry it; then see that through, too."""
        self._repeats += 1
        path, key = f"/operations/{self.operation_id}", f"{self._key}-again-{self._repeats}"
        answer = None
        if self.random.random() < 0.3:
            answer = await self.insist("POST", f"{path}/resume", idempotency_key=f"{key}-resumed")
            key = key if answer.status == 409 else f"{key}-resumed"
        if answer is None or answer.status == 409:
            if answer is not None:  # a frozen backend may yet do what another one has refused meanwhile
                self._laws.given_up.add(f"{key}-resumed")
            answer = await self.insist("POST", f"{path}/retry", idempotency_key=key)
        self._started(key, answer)
        await self._see_through()

    async def _regret(self) -> None:
        """A cancel that comes after the end, and a retry of what is completed, change nothing."""
        answer = await self.insist("POST", f"/operations/{self.operation_id}/cancel")
        self._laws.told_state(self.operation_id, view_of(self._found(answer)))
        refused = await self.insist(
            "POST", f"/operations/{self.operation_id}/retry", idempotency_key=f"{self._key}-no"
        )
        self._unless_gone(refused)
        if refused.status != 409:
            raise InvalidInput(f"a retry of what is completed: {refused.status} {refused.body!r}")

    async def _ended(self) -> bool:
        answer = await self.ask("GET", f"/operations/{self.operation_id}")
        if answer is None or answer.status >= 500:
            return False
        view = view_of(self._found(answer))
        self._laws.told_state(self.operation_id, view)
        if view.status is OperationStatus.COMPLETED:
            self._laws.told_result(self.operation_id, view, self._wish.body["strategy_name"])
        return view.status.terminal

    def _unless_gone(self, answer: Answer) -> None:
        """What is to be expected of an operation that has become too old."""
        if answer.status == 404 and self.operation_id in self._laws.may_go:
            raise _Gone

    def _found(self, answer: Answer) -> Answer:
        self._unless_gone(answer)
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
        token = ADMINISTRATOR if laws.passes.guarded else None
        super().__init__("operator", network, random, machine.urls, token)
        self._chief = chief
        self._machine, self.trace, self.workers, self.laws = machine, trace, workers, laws
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
            worker = self.random.choice(self.workers)
            match self.random.choice(_CHIEFS_DUTIES if self._chief else _DUTIES):
                case "drain":
                    await self._drain(worker.worker_id)
                case "drain newcomer":
                    await self.stop(worker)
                    await asyncio.sleep(self.random.uniform(0.0, 0.04))  # it is just being registered
                    await self._drain(worker.worker_id)
                case "forget":
                    await self._forget_one()
                case "stop":
                    await self.stop(worker)
                case "hurry":
                    await self._hurry()
                case "pause":
                    await self._pause()
                case "cancel all":
                    await cancel_all(self)
                case "withdraw":
                    await withdraw(self)
                case "change nothing":
                    await change_nothing(self, worker)
                case "update":
                    await update(self, worker, *(_VERSIONS if self.random.random() < 0.6 else _OLDER))

    async def rest(self, at_least_s: float, at_most_s: float) -> None:
        """Do something else for a while."""
        await asyncio.sleep(self.random.uniform(at_least_s, at_most_s))

    async def stop(self, worker: SimulatedWorker) -> None:
        """Gracefully; a little later it starts again."""
        await worker.leave()
        await asyncio.sleep(self.random.uniform(1.0, 20.0))
        if worker.process is None:
            worker.start()

    async def _hurry(self) -> None:
        """Stops a worker and cancels what it runs at the same moment; the worker releases what is being cancelled."""
        for worker in self.random.sample(self.workers, len(self.workers)):
            if worker.process is not None and worker.slot.current is not None:
                operation_id = worker.slot.current.run.operation_id
                stopping = asyncio.ensure_future(self.stop(worker))
                answer = await self.ask("POST", f"/operations/{operation_id}/cancel")
                if answer is not None and answer.ok:
                    self.laws.told_cancelled(operation_id, view_of(answer))
                await stopping
                return

    async def _pause(self) -> None:
        """Holds back what is queued, of one kind or both, for a while."""
        types = self.random.choice((tuple(OperationType), (OperationType.BACKTESTING,)))
        body = {} if len(types) > 1 else {"operation_type": types[0].value}
        answer = await self.ask("POST", "/queue/pause", body)
        if answer is not None and answer.ok:
            self.trace.situations["queue paused"] += 1
            if self.random.random() < 0.4 and self._machine.weather != Weather.calm():
                self._machine.crash("backend crash")
        await asyncio.sleep(self.random.uniform(2.0, 20.0))
        if len(types) > 1:  # the one before the other
            await self.insist("POST", "/queue/unpause", {"operation_type": self.random.choice(types).value})
            await asyncio.sleep(self.random.uniform(2.0, 20.0))
        await self.insist("POST", "/queue/unpause", {})

    async def _forget_one(self) -> None:
        """The first that runs nothing; it lives, so it registers again."""
        for worker in self.random.sample(self.workers, len(self.workers)):
            answer = await self.ask("DELETE", f"/workers/{worker.worker_id}")
            if answer is not None and answer.status == 204:
                self.trace.situations["worker removed"] += 1
                return

    @contextlib.contextmanager
    def in_hand(self, worker_id: str) -> Iterator[bool]:
        """Whether no other operator has it in hand: of two who want the opposite at once either may be the last."""
        free = worker_id not in self._machine.in_hand
        self._machine.in_hand.add(worker_id)
        try:
            yield free
        finally:
            if free:
                self._machine.in_hand.discard(worker_id)

    async def _drain(self, worker_id: str) -> None:
        with self.in_hand(worker_id) as free:
            if free:
                await self._drain_for_a_while(worker_id)

    async def _drain_for_a_while(self, worker_id: str) -> None:
        answer = await self.insist("POST", f"/workers/{worker_id}/drain")
        if answer.ok:
            self.trace.situations["worker drained"] += 1
            self._machine.out_of_use.add(worker_id)
        await asyncio.sleep(self.random.uniform(5.0, 60.0))
        self._machine.out_of_use.discard(worker_id)
        while True:
            answer = await self.insist("POST", f"/workers/{worker_id}/undrain")
            if answer.ok or answer.status == 404:
                return
