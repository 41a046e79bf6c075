"""A backend and fake workers in one event loop, on an in-process transport and a clock that stands still."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

from ktrdr.artifacts import sha256_of
from ktrdr.backend.app import create_app
from ktrdr.backend.cluster.sharing import Cluster
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.wiring import Backend, Parts
from ktrdr.operations.memory.ledger import MemoryStore
from ktrdr.operations.model import NewOperation, OperationStatus, OperationType
from ktrdr.operations.store import OperationStore
from ktrdr.protocol.specs import BacktestSpec, DatasetRef, TrainingSpec, canonical_json
from ktrdr.protocol.transports import Answer, AsgiTransport
from ktrdr.settings import ControlSettings
from ktrdr.testing.clock import FakeClock
from ktrdr.testing.fake_worker import FakeWorker
from ktrdr.tracing import Traces

BACKEND = "http://127.0.0.1:8000"
STILL = ControlSettings(health_interval_s=3600.0)  # one round of probes at the start, further ones by hand
DIGEST = "a" * 64


def spec_of(kind: OperationType, name: str = "s") -> bytes:
    """Some valid specification; nothing here runs it."""
    data = [DatasetRef(symbol="X", timeframe="1d", manifest=DIGEST)]
    common: dict[str, Any] = {"strategy_name": name, "strategy": "name: s", "datasets": data}
    if kind is OperationType.TRAINING:
        return canonical_json(TrainingSpec(**common, symbols=["X"], timeframes=["1d"]))
    return canonical_json(BacktestSpec(**common, symbol="X", timeframe="1d", model=DIGEST))


class ControlPlane:
    """What a test moves: ``workers`` by id, ``clock``, requests through the real application."""

    def __init__(
        self,
        home: Path,
        control: ControlSettings = STILL,
        store: OperationStore | None = None,
        *,
        cluster: Cluster | None = None,
        address: str = BACKEND,
    ) -> None:
        self.cluster, self.address = cluster, address
        self.clock = FakeClock()
        self.apps: dict[str, Any] = {}
        self.workers: dict[str, FakeWorker] = {}
        self.store = store or MemoryStore(max_failures=control.max_failures)
        networks = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
        self.config = BackendConfig(
            home=home, control=control, networks=networks, strategy_roots=(home / "strategies",)
        )
        self.transport = AsgiTransport(self.apps)
        self.backend: Backend
        self.count = 0
        self.traces: Traces | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ControlPlane]:
        """The backend, started; leaving is a stop of the backend alone, so that it can be started again."""
        parts = Parts(
            store=self.store,
            transport=self.transport,
            clock=self.clock,
            random=Random(self.count),
            traces=self.traces,
            cluster=self.cluster,
        )
        self.backend = Backend(self.config, parts)
        app = create_app(self.config, backend=self.backend)
        self.apps[self.address] = app
        async with app.router.lifespan_context(app):
            yield self

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request to the backend."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.transport.request(method, f"{self.address}{path}", json=body, headers=sent)

    async def api(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """A request below /api/v1 that must succeed; its JSON."""
        answer = await self.ask(method, f"/api/v1{path}", body, **headers)
        assert answer.ok, (answer.status, answer.body)
        return json.loads(answer.body) if answer.body else None

    def machine(self, worker_id: str, worker_type: str = "backtesting", **more: Any) -> FakeWorker:
        """A reachable worker that has not registered."""
        # a loopback address of its own, because endpoints are resolved
        url = f"http://127.0.1.{len(self.workers) + 1}:5003"
        worker = FakeWorker(worker_id, worker_type, url=url, **more)
        self.workers[worker_id] = worker
        self.apps[url] = worker.app
        return worker

    def unplug(self, worker: FakeWorker) -> None:
        """Make its machine unreachable."""
        self.apps.pop(worker.url, None)

    def plug(self, worker: FakeWorker) -> None:
        """Make it reachable again."""
        self.apps[worker.url] = worker.app

    async def join(self, worker_id: str, worker_type: str = "backtesting", **more: Any) -> FakeWorker:
        """A worker that is registered."""
        worker = self.machine(worker_id, worker_type, **more)
        await self.api("POST", "/workers/register", worker.registration())
        return worker

    async def submit(self, kind: OperationType = OperationType.BACKTESTING, **more: Any) -> str:
        """An operation in the ledger, and the dispatcher awake."""
        self.count += 1
        new = NewOperation(operation_id=f"op-{self.count}", operation_type=kind, spec=spec_of(kind), **more)
        await self.store.submit(new, self.clock.now())
        self.clock.advance(0.001)
        self.backend.dispatcher.wake()
        return new.operation_id

    async def status(self, operation_id: str) -> OperationStatus:
        return (await self.store.get(operation_id)).status

    async def until(self, operation_id: str, status: str) -> None:
        """Let the loop run until the operation has this status."""
        await settle(lambda: self.store.get(operation_id), lambda o: o.status == status)

    async def deliver(
        self, worker: FakeWorker, operation_id: str, status: str = "completed", **more: Any
    ) -> Any:
        """The worker reports the end of a job."""
        body = worker.report(operation_id, status, **more)
        return await self.api("POST", f"/workers/{worker.worker_id}/report", body)

    async def probe(self) -> None:
        """One round of probes and one sweep of leases."""
        await self.backend.health.round()
        await self.backend.health.sweep()
        await calm()

    async def until_its_lease_ends(self, operation_id: str) -> None:
        """A minute passes, in which nobody vouches for what runs: not before its end the operation is pending again."""
        for seconds, status in ((59.0, "running"), (2.0, "pending")):
            self.clock.advance(seconds)
            await self.backend.health.sweep()
            assert str(await self.status(operation_id)) == status

    def put(self, content: bytes) -> str:
        """An artifact in the backend's store."""
        return self.backend.artifacts.put(content) or sha256_of(content)


async def calm(turns: int = 30) -> None:
    """Let everything that can go on go on, also what threads work at."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 20.0
    while True:
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.sleep(0.005)
        if not _threads_work(loop) or loop.time() > deadline:
            return


def _threads_work(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a thread of the loop has something to do; it tells nobody when it is done with everything."""
    executor = getattr(loop, "_default_executor", None)
    return executor is not None and len(executor._threads) > executor._idle_semaphore._value


async def settle(read: Callable[[], Any], good: Callable[[Any], bool], timeout_s: float = 60.0) -> Any:
    """Let the loop run until ``good(await read())``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        value = await read()
        if good(value):
            return value
        if loop.time() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain; last seen: {value}")
        await asyncio.sleep(0.002)
