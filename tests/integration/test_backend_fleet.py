"""The backend and scripted workers over real HTTP on loopback, with the ledger in SQLite and short periods."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn

from ktrdr.backend.app import create_app
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.server import listen
from ktrdr.backend.wiring import Backend
from ktrdr.operations.model import NewOperation, OperationType
from ktrdr.protocol.transports import AiohttpTransport
from ktrdr.settings import ControlSettings
from ktrdr.testing.fake_worker import FakeWorker
from support.control_plane import calm, settle, spec_of

pytestmark = pytest.mark.integration

FAST = ControlSettings(
    health_interval_s=0.1,
    health_timeout_s=2.0,
    health_failures=2,
    worker_removal_s=1.0,
    lease_s=1.5,
    progress_ttl_s=0.05,
)
# Whoever is away comes back in time, though the machine stands still meanwhile.
PATIENT = replace(FAST, worker_removal_s=60.0, lease_s=60.0)


class _Server(uvicorn.Server):
    """Serves inside the test's own loop, leaving signals alone."""

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Served:
    """An application on a port of its own; ``stop`` and ``start`` are its machine going down and coming back."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.port = 0
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        sock: socket.socket = listen("127.0.0.1", self.port)
        self.port = sock.getsockname()[1]
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="auto", timeout_graceful_shutdown=1
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[sock]))
        await settle(_value(lambda: self._server is not None and self._server.started), bool)

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._server = self._task = None


def _value(read: Callable[[], Any]) -> Callable[[], Any]:
    async def value() -> Any:
        return read()

    return value


class Fleet:
    """A backend that can be stopped and started over the same home, and workers."""

    def __init__(self, home: Path, control: ControlSettings) -> None:
        self.config = BackendConfig(home=home, control=control)
        self.http = AiohttpTransport()
        self.backend: Backend
        self.served: Served
        self.port = 0
        self.workers: dict[str, FakeWorker] = {}
        self.machines: dict[str, Served] = {}
        self.count = 0

    async def up(self) -> None:
        self.backend = Backend(self.config)
        self.served = Served(create_app(self.config, backend=self.backend))
        self.served.port = self.port
        await self.served.start()
        self.port = self.served.port

    async def down(self) -> None:
        self.backend.hub.close()
        await self.served.stop()

    async def join(self, name: str, kind: str = "backtesting", **more: Any) -> FakeWorker:
        worker = FakeWorker(name, kind, **more)
        machine = Served(worker.app)
        await machine.start()
        worker.url = machine.url
        self.workers[name], self.machines[name] = worker, machine
        await self.api("POST", "/workers/register", worker.registration())
        return worker

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await self.http.request(method, f"{self.served.url}/api/v1{path}", json=body, timeout_s=30)

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.ok, answer.body
        return answer.json() if answer.body else None

    async def submit(self, kind: OperationType = OperationType.BACKTESTING, **more: Any) -> str:
        """Past the submit path, which has tests of its own."""
        self.count += 1
        new = NewOperation(operation_id=f"op-{self.count}", operation_type=kind, spec=spec_of(kind), **more)
        await self.backend.store.submit(new, self.backend.clock.now())
        self.backend.dispatcher.wake()
        return new.operation_id

    async def until(self, name: str, *statuses: str) -> Any:
        read = _bind(self.api, "GET", f"/operations/{name}")
        return await settle(read, lambda view: view["status"] in statuses)

    async def worker_status(self, name: str, *statuses: str) -> Any:
        read = _bind(self.api, "GET", f"/workers/{name}")
        return await settle(read, lambda view: view["status"] in statuses)

    async def deliver(self, worker: FakeWorker, name: str, status: str = "completed", **more: Any) -> Any:
        body = worker.report(name, status, **more)
        return await self.api("POST", f"/workers/{worker.worker_id}/report", body)


def _bind(call: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    async def bound() -> Any:
        return await call(*arguments)

    return bound


@pytest_asyncio.fixture
async def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    made = Fleet(tmp_path, getattr(request, "param", PATIENT))
    await made.up()
    yield made
    await made.down()
    for machine in made.machines.values():
        await machine.stop()
    await made.http.close()


async def test_register_start_finish(fleet: Fleet) -> None:
    worker = await fleet.join("w1")
    name = await fleet.submit()
    view = await fleet.until(name, "running")
    assert (view["worker_id"], view["attempt"]) == ("w1", 1)
    worker.jobs[name].progress = {"percentage": 50.0, "items_done": 5, "items_total": 10}
    await settle(_bind(fleet.api, "GET", f"/operations/{name}"), lambda v: v["progress"]["items_done"] == 5)
    await fleet.deliver(worker, name, summary={"x": 1})
    view = await fleet.until(name, "completed")
    assert (view["result_summary"], view["progress"]["percentage"]) == ({"x": 1}, 100.0)


async def test_five_backtests_on_three_workers(fleet: Fleet) -> None:
    workers = [await fleet.join(f"w{n}") for n in range(3)]
    names = [await fleet.submit() for _ in range(5)]
    done = 0
    while done < 5:
        busy = await settle(_value(lambda: [w for w in workers if w.running]), bool)
        await fleet.deliver(busy[0], busy[0].running or "")
        done += 1
    for name in names:
        await fleet.until(name, "completed")
    assert sorted(len(w.starts) for w in workers) in ([1, 2, 2], [1, 1, 3])


async def test_gpu_first_then_cpu(fleet: Fleet) -> None:
    await fleet.join("cpu", "training")
    await fleet.join("gpu", "training", gpu=True)
    names = [await fleet.submit(OperationType.TRAINING, requirements={"prefer_gpu": True}) for _ in range(2)]
    ran_on = [(await fleet.until(name, "running"))["worker_id"] for name in names]
    assert ran_on == ["gpu", "cpu"]


async def test_an_endpoint_that_does_not_answer_is_refused(fleet: Fleet) -> None:
    worker = FakeWorker("w1", url="http://127.0.0.1:9")
    answer = await fleet.ask("POST", "/workers/register", worker.registration())
    assert (answer.status, "cannot reach the worker" in answer.json()["detail"]) == (422, True)


async def test_a_busy_worker_is_passed_over(fleet: Fleet) -> None:
    first = await fleet.join("w1")
    await fleet.join("w2")
    first.script = ["busy"]
    view = await fleet.until(await fleet.submit(), "running")
    assert (view["worker_id"], view["failures"]) == ("w2", 0)


@pytest.mark.parametrize("fleet", [FAST], indirect=True, ids=["impatient"])
async def test_a_worker_lost_and_removed_gives_its_work_to_another(fleet: Fleet) -> None:
    await fleet.join("w1")
    name = await fleet.submit()
    await fleet.until(name, "running")
    await fleet.machines["w1"].stop()
    await fleet.worker_status("w1", "temporarily_unavailable")
    await fleet.join("w2")
    view = await settle(_bind(fleet.api, "GET", f"/operations/{name}"), lambda v: v["worker_id"] == "w2")
    assert (view["failures"], view["attempt"] >= 2) == (1, True)
    gone = await settle(_bind(fleet.ask, "GET", "/workers/w1"), lambda answer: answer.status == 404)
    assert gone.status == 404


async def test_a_worker_back_in_time_goes_on(fleet: Fleet) -> None:
    worker = await fleet.join("w1")
    name = await fleet.submit()
    await fleet.until(name, "running")
    await fleet.machines["w1"].stop()
    await fleet.worker_status("w1", "temporarily_unavailable")
    await fleet.machines["w1"].start()
    await fleet.worker_status("w1", "busy")
    view = await fleet.until(name, "running")
    assert view["attempt"] == 1
    await fleet.deliver(worker, name)
    await fleet.until(name, "completed")


async def test_a_restarted_backend_adopts_what_runs_and_dispatches_what_waits(fleet: Fleet) -> None:
    worker = await fleet.join("w1")
    first = await fleet.submit()
    await fleet.until(first, "running")
    second = await fleet.submit()
    await fleet.down()
    await fleet.up()
    view = await fleet.until(first, "running")
    assert (view["attempt"], view["failures"]) == (1, 0)
    await fleet.deliver(worker, first)
    await fleet.until(second, "running")
    assert [s.task_id for s in worker.starts] == [first, second]


async def test_what_finished_while_the_backend_was_away_is_delivered_with_the_registration(
    fleet: Fleet,
) -> None:
    worker = await fleet.join("w1")
    name = await fleet.submit()
    await fleet.until(name, "running")
    await fleet.down()
    delivery = worker.delivery(name, summary={"x": 2})
    await fleet.up()
    for _ in range(2):  # the answer to the first one may be lost
        answer = await fleet.api("POST", "/workers/register", worker.registration(outbox=[delivery]))
        assert answer["acknowledged"] == [f"{name}:1"]
    view = await fleet.until(name, "completed")
    assert view["result_summary"] == {"x": 2}


async def test_a_delivery_twice_and_one_after_the_cancel(fleet: Fleet) -> None:
    worker = await fleet.join("w1")
    name = await fleet.submit()
    await fleet.until(name, "running")
    for _ in range(2):
        assert (await fleet.deliver(worker, name))["acknowledged"]
    await fleet.until(name, "completed")
    other = await fleet.submit()
    await fleet.until(other, "running")
    await fleet.api("DELETE", f"/operations/{other}/cancel")
    await settle(_value(lambda: (other, 1) in worker.cancels), bool)
    await fleet.deliver(worker, other, "completed")
    await fleet.until(other, "cancelled")
    await calm()
    assert (await fleet.until(other, "cancelled"))["attempt"] == 1


async def test_many_clients_make_one_request_to_the_worker(fleet: Fleet) -> None:
    worker = await fleet.join("w1")
    name = await fleet.submit()
    await fleet.until(name, "running")
    await asyncio.sleep(FAST.progress_ttl_s)
    worker.gate.clear()
    before = worker.reads
    polls = [asyncio.create_task(fleet.api("GET", f"/operations/{name}")) for _ in range(30)]
    await settle(_value(lambda: worker.reads), lambda reads: reads > before)
    await calm()
    assert worker.reads == before + 1
    worker.gate.set()
    await asyncio.gather(*polls)
