"""A network in memory, with its own idea of when and whether a message arrives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache, partial
from random import Random
from typing import Any, Protocol, cast

from ktrdr.errors import NoAnswer, ServerUnreachable
from ktrdr.protocol.transports import Answer
from simulation.plan import Weather
from simulation.trace import Trace
from simulation.virtual_time import Process, VirtualLoop

_QUICKEST_S, _SPREAD_S = 0.001, 0.01 - 0.001  # on the way: at least, and how much more at most
_MACHINES = 1 << 15  # and what they are asked, of which is remembered what is the machine and what the path
_STARTS = 10.0  # so many times as often are requests doubled that begin something

__all__ = ["Endpoint", "Message", "Network", "SimulatedTransport"]

_BACKEND = "http://backend"


@dataclass(slots=True, eq=False)
class Message:
    """One request on its way. ``answer`` is None for a duplicate: nobody waits for its answer."""

    sender: str
    url: str
    method: str
    path: str
    json: Any
    headers: Mapping[str, str]
    number: int
    answer: asyncio.Future[Answer] | None
    on_answer: Callable[[], None] | None = None  # called when the answer sets out
    vouches: tuple[str, int] | None = (
        None  # the operation and attempt that a worker's answer to a probe names
    )

    @property
    def about(self) -> str | None:
        """The operation it names, for the story."""
        if "/operations/" in self.path:
            return self.path.split("/operations/")[1].split("/")[0].split("?")[0]
        if not self.json:
            return None
        return self.json.get("task_id") or (self.json.get("delivery") or {}).get("operation_id")


class Endpoint(Protocol):
    """A machine on the network. ``process`` is None while it is down, ``paused`` unless it is frozen; ``at_once`` answers
    without waiting for anything, where the machine can (None: this time it cannot)."""

    process: Process | None
    paused: asyncio.Event | None

    @property
    def at_once(self) -> Callable[[Message], Answer | None] | None: ...

    def handle(self, message: Message) -> Awaitable[Answer]: ...


class Network:
    """Every message passes :meth:`send`; what becomes of it is drawn from ``random``."""

    def __init__(self, trace: Trace, random: Random, weather: Weather) -> None:
        self._trace, self._random = trace, random
        self.weather = weather
        self.endpoints: dict[str, Endpoint] = {}
        self.cut: Counter[tuple[str, str]] = Counter()  # (from, to) machine urls that are cut off, one way
        self._sent: dict[tuple[str, str], int] = {}
        self._arrived: dict[tuple[str, str], int] = {}
        self._wire = Context()  # nobody's: what is on its way arrives whatever becomes of its sender

    def send(self, message: Message, timeout_s: float) -> None:
        """Put it on the wire."""
        loop, random, weather = asyncio.get_running_loop(), self._random, self.weather
        link = (message.sender, message.url)
        message.number = self._sent[link] = self._sent.get(link, 0) + 1
        latency = _QUICKEST_S + _SPREAD_S * random.random()
        if self._is_cut(link):
            self._trace.fault(_direction(link), f"{message.method} {message.path}", message.about)
            if random.random() < 0.5:  # no connection, so nothing left; else an old connection swallowed it
                why = f"no route to {message.url}"
                loop.call_later(timeout_s * 0.9, _fail, message.answer, why, context=self._wire)
            return
        if random.random() < weather.drop:
            self._trace.fault("drop request", f"{message.method} {message.path}", message.about)
            return
        if random.random() < weather.delay:
            latency += random.uniform(2.0, 20.0)
            self._trace.fault("delay", f"{message.method} {message.path} by {latency:.3f} s", message.about)
        elif random.random() < weather.hold:
            latency += random.uniform(0.0, 1.0)
        loop.call_later(latency, self._arrive, message, context=self._wire)
        if random.random() < weather.duplicate * (_STARTS if message.path.endswith("/start") else 1.0):
            late = random.random() < 0.4
            after = random.uniform(60.0, 300.0) if late else random.uniform(0.0, 3.0)
            name = "duplicate minutes late" if late else "duplicate"
            self._trace.fault(name, f"{message.method} {message.path} after {after:.3f} s", message.about)
            twin = Message(
                message.sender,
                message.url,
                message.method,
                message.path,
                message.json,
                message.headers,
                message.number,
                None,
            )
            loop.call_later(latency + after, self._arrive, twin, context=self._wire)

    def _is_cut(self, link: tuple[str, str]) -> bool:
        return bool(self.cut) and self.cut.get(link, 0) > 0

    def forget(self, url: str, doors: Sequence[str]) -> None:
        """Somebody has left who sends nothing any more."""
        for links in (self._sent, self._arrived):
            for door in doors:
                links.pop((url, door), None)

    def _arrive(self, message: Message) -> None:
        endpoint = self.endpoints.get(message.url)
        if endpoint is None or endpoint.process is None:
            _fail(message.answer, f"connection to {message.url} refused")
            return
        link = (message.sender, message.url)
        if message.answer is not None:
            if message.number < self._arrived.get(link, 0):
                self._trace.fault("reorder", f"{message.method} {message.path}", message.about)
            else:
                self._arrived[link] = message.number
        if endpoint.paused is None and (at_once := endpoint.at_once) is not None:
            self._tell(message)
            answer = endpoint.process.do(at_once, message)
            if answer is not None:
                self._sends_back(message, answer)
                return
            task = endpoint.process.spawn(_waiting(endpoint, message))
        else:
            task = endpoint.process.spawn(self._handled(endpoint, message))
        task.add_done_callback(partial(self._answered, message), context=self._wire)

    def _tell(self, message: Message) -> None:
        self._trace.tell(f"{message.sender} -> {message.url} {message.method} {message.path}", message.about)

    async def _handled(self, endpoint: Endpoint, message: Message) -> Answer:
        if endpoint.paused is not None:
            await endpoint.paused.wait()
        self._tell(message)
        return await endpoint.handle(message)

    def _answered(self, message: Message, task: asyncio.Task[Answer]) -> None:
        if task.cancelled():
            _break(message.answer, f"{message.url} died")
            return
        if (error := task.exception()) is not None:
            raise error
        self._sends_back(message, task.result())

    def _sends_back(self, message: Message, answer: Answer) -> None:
        random = self._random
        if message.answer is None:
            return
        if message.on_answer is not None:
            message.on_answer()
        link = (message.url, message.sender)
        if self._is_cut(link):
            self._trace.fault(_direction(link), f"answer {answer.status} to {message.path}", message.about)
            return
        if random.random() < self.weather.drop:
            self._trace.fault("drop answer", f"{answer.status} to {message.path}", message.about)
            return
        latency = _QUICKEST_S + _SPREAD_S * random.random()
        if random.random() < self.weather.hold:
            latency += random.uniform(0.0, 1.0)
        asyncio.get_running_loop().call_later(latency, _give, message.answer, answer, context=self._wire)


async def _waiting(endpoint: Endpoint, message: Message) -> Answer:
    return await endpoint.handle(message)


def _direction(link: tuple[str, str]) -> str:
    return "partition to backend" if link[1].startswith(_BACKEND) else "partition to worker"


def _fail(answer: asyncio.Future[Answer] | None, why: str) -> None:
    if answer is not None and not answer.done():
        answer.set_exception(ServerUnreachable(f"Cannot connect: {why}."))


def _break(answer: asyncio.Future[Answer] | None, why: str) -> None:
    if answer is not None and not answer.done():
        answer.set_exception(NoAnswer(f"The connection broke off: {why}."))


def _give_up(answer: asyncio.Future[Answer], url: str, timeout_s: float) -> None:
    if not answer.done():
        answer.set_exception(NoAnswer(f"{url} did not answer within {timeout_s:g} s."))


def _give(answer: asyncio.Future[Answer], what: Answer) -> None:
    if not answer.done():
        answer.set_result(what)


@lru_cache(_MACHINES)
def _parts(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"


class SimulatedTransport:
    """One process's way onto the network; satisfies ``ktrdr.protocol.transports.Transport``.

    ``watch`` hears of every request and its outcome (an Answer or the error's class), ``paused`` holds a frozen
    process's requests back.
    """

    def __init__(
        self,
        network: Network,
        url: str,
        process: Process,
        *,
        on_send: Callable[[Message], None] | None = None,
        on_outcome: Callable[[Message, int | None], None] | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        self._network, self._url, self._process = network, url, process
        self._on_send, self._on_outcome, self._endpoint = on_send, on_outcome, endpoint

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> Answer:
        self._process.check()
        if self._endpoint is not None and self._endpoint.paused is not None:
            await self._endpoint.paused.wait()
        machine, path = _parts(url)
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        future: asyncio.Future[Answer] = loop.create_future()
        message = Message(self._url, machine, method, path, json, headers or {}, 0, future)
        if self._on_send is not None:
            self._on_send(message)
        self._process.check()
        self._network.send(message, timeout_s)
        too_late = loop.limit(timeout_s, _give_up, future, url, timeout_s)
        status: int | None = None
        try:
            answer = await future
            self._process.check()
            status = answer.status
            return answer
        finally:
            too_late.cancel()
            if self._on_outcome is not None and self._process.alive:
                self._on_outcome(message, status)

    async def close(self) -> None:
        """Nothing is held."""
