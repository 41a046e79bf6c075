"""A worker whose disk, cache, jobs and backend misbehave: every end is told and the slot is free again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ktrdr.artifacts import FileArtifactStore
from ktrdr.protocol.messages import Capabilities
from ktrdr.protocol.transports import Answer, AsgiTransport
from ktrdr.settings import ControlSettings
from ktrdr.testing.fake_backend import FakeBackend
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.settings import WorkerSettings
from support.eventually import until

pytestmark = pytest.mark.integration
JOB = "ktrdr.testing.chaos_jobs:perform"


class Light(BacktestWorker):
    """Without the preloads that test jobs do not need."""

    preload = ()


class Client:
    """Asks a worker over its ASGI application."""

    def __init__(self, worker: Light, home: Path) -> None:
        self.worker, self.home = worker, home
        self._transport = AsgiTransport({"http://localhost": worker.app})

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await self._transport.request(
            method, f"http://localhost{path}", json=body, headers=headers, timeout_s=60.0
        )

    async def start(self, instruction: str, task_id: str = "op", attempt: int = 1) -> Answer:
        body = {"attempt": attempt, "task_id": task_id, "spec": spec(instruction).model_dump()}
        return await self.ask("POST", "/backtests/start", body)

    async def free(self) -> dict[str, Any]:
        """Wait until a probe hears that this worker is idle and holds nothing back."""
        async with asyncio.timeout(60):
            while True:
                answer = await self.ask("GET", "/health")
                assert answer.ok, answer.body
                health = dict(answer.json())
                if health["worker_status"] == "idle" and health["current_operation"] is None:
                    return health
                await asyncio.sleep(0.02)


Fleet = Callable[..., Any]


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


@pytest.fixture
def worker_of(tmp_path: Path) -> Fleet:
    @asynccontextmanager
    async def make(backend: FakeBackend | str, **extra: Any) -> AsyncIterator[Client]:
        settings = WorkerSettings(
            worker_type=Light.worker_type,
            api_urls=(backend if isinstance(backend, str) else backend.url,),
            home=tmp_path,
            worker_id="w",
            control=ControlSettings(cancel_grace_s=30.0, http_timeout_s=5.0),
            **{"first_retry_s": 0.05, "longest_retry_s": 0.2, **extra},
        )
        worker = Light(settings, capabilities=Capabilities(), job=JOB, port=1)
        await worker.start()
        try:
            yield Client(worker, next((tmp_path / "workers").iterdir()))
        finally:
            await worker.close()

    return make


async def test_the_last_progress_travels_with_the_delivery(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.start("late")
        await until(lambda: backend.deliveries)
        last = backend.deliveries[0]["progress"]
        assert (last["items_done"], last["items_total"], last["context"]) == (4, 4, {"step": 4})
        await client.free()


async def test_results_that_have_no_form_on_the_wire_are_told_and_the_slot_is_free(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    expected = {
        "poison summary": ("completed", None),  # a half character becomes a question mark
        "poison error": ("failed", "ValueError: ?"),
        "poison digest": ("failed", "did not store: result"),
        "poison deep": ("failed", "summary: Value error, nested more than"),
        "boast 3000000": ("failed", "summary: Value error, more than"),
        "shout 3000000": ("failed", "ValueError: xxx"),
        "mutter": ("completed", None),
    }
    async with worker_of(backend) as client:
        for instruction, (status, words) in expected.items():
            backend.reports.clear()
            assert (
                await client.start(instruction, instruction.split()[0] + str(len(instruction)))
            ).status == 202
            await until(lambda: backend.deliveries)
            delivery = backend.deliveries[0]
            assert delivery["status"] == status, delivery
            assert len(json.dumps(delivery)) < 20_000
            assert words is None or words in delivery["error"]
            await client.free()


async def test_a_job_that_prints_without_end_does_not_fill_the_disk(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    most = 0

    def used(folder: Path) -> int:
        return sum(file.stat().st_blocks * 512 for file in folder.glob("scratch/*/job.log"))

    async with worker_of(backend) as client:
        await client.start("flood 400", "op")
        async with asyncio.timeout(120):
            while not backend.deliveries:
                with suppress(FileNotFoundError):  # the folder has gone
                    most = max(most, used(client.home))
                await asyncio.sleep(0.05)
        log = (await client.ask("GET", "/api/v1/operations/op/logs?offset=0")).body
        await client.free()
        stored = FileArtifactStore(client.home / "artifacts").read(backend.deliveries[0]["artifacts"]["log"])
    assert 16 << 20 < most < 160 << 20, "what is printed between two looks comes on top"
    assert len(stored) < 5 << 20
    assert log == stored[: len(log)]
    assert b"000000 x" in stored[:2000]
    assert b"000399 x" in stored[-(2 << 20) :]
    assert stored.count(b"bytes are left out here: the job printed too much ...]") == 1
    assert b"\0" not in stored


async def test_a_disk_that_takes_nothing_costs_no_end_and_no_slot(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        await client.start("late", "before")
        await client.free()
        # The worker may be root, whom permissions do not stop: a file stands where a folder was.
        for number, folder in enumerate(("outbox", "artifacts", "scratch")):
            backend.reports.clear()
            place = client.home / folder
            place.rename(client.home / "elsewhere")
            place.write_text("no folder")
            assert (await client.start("late", f"op{number}")).status == 202
            await until(lambda: backend.deliveries)
            await client.free()
            place.unlink()
            (client.home / "elsewhere").rename(place)
            told = {"outbox": "completed", "artifacts": "child_died", "scratch": "child_died"}
            assert backend.deliveries[0]["status"] == told[folder], backend.deliveries
        backend.reports.clear()
        await client.start("late", "after")
        await until(lambda: backend.deliveries)
        assert backend.deliveries[0]["status"] == "completed"


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


async def test_a_damaged_file_of_the_cache_is_fetched_again(worker_of: Fleet, backend: FakeBackend) -> None:
    content = b"bars of a year"
    digest = hashlib.sha256(content).hexdigest()
    backend.artifacts[digest] = content
    async with worker_of(backend) as client:
        await client.start(f"fetch {digest}", "first")
        await client.free()
        _damage(client.home / "artifacts" / digest[:2] / digest)
        await client.start(f"fetch {digest}", "second")
        await client.free()
        assert [d["status"] for d in backend.deliveries] == ["completed", "completed"]


async def test_a_damaged_result_is_a_failure_and_made_again_it_is_whole(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    """The second run makes the very bytes whose file is damaged."""
    content = b"bars of a year"
    source, result = (hashlib.sha256(c).hexdigest() for c in (content, content[::-1]))
    backend.artifacts[source] = content
    async with worker_of(backend) as client:
        backend.refuse["artifacts/" + result] = 503
        await client.start(f"fetch {source}", "first")
        entry = client.worker.slot.entry("first")
        await until(lambda: entry.delivery == "waiting")
        _damage(client.home / "artifacts" / result[:2] / result)
        backend.refuse.clear()
        await until(lambda: backend.deliveries)
        assert "lost a file" in backend.deliveries[0]["error"]
        await client.start(f"fetch {source}", "second")
        await until(lambda: len(backend.deliveries) == 2)
        assert backend.deliveries[1]["status"] == "completed"
        assert backend.artifacts[result] == content[::-1]


async def test_web_pages_and_malformed_hosts_reach_no_worker_without_a_token(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        for headers in (
            {"host": "["},
            {"host": "evil.example"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": "http://["},
        ):
            answer = await client.ask("POST", "/api/v1/operations/op/cancel", **headers)
            assert answer.status == 401, headers
        assert (await client.ask("GET", "/api/v1/operations", origin="http://localhost:3000")).status == 200


async def test_a_worker_reads_no_body_without_end(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        body = {"task_id": "op", "spec": spec("x" * (5 << 20)).model_dump()}
        answer = await client.ask("POST", "/backtests/start", body)
        assert (answer.status, answer.json()["status"]) == (413, 413)
