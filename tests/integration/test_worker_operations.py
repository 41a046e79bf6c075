"""A worker with real job processes and real HTTP towards a fake backend; requests reach it in process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ktrdr.operations.model import WorkerType
from ktrdr.protocol.messages import Capabilities
from ktrdr.protocol.specs import TrainingSpec
from ktrdr.protocol.transports import Answer, AsgiTransport
from ktrdr.settings import ControlSettings
from ktrdr.testing.fake_backend import FakeBackend
from ktrdr.testing.worker_jobs import spec
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.base import WorkerAPIBase
from ktrdr.workers.settings import WorkerSettings
from ktrdr.workers.training_worker import TrainingWorker
from support.eventually import until
from support.ports import refusing_url

pytestmark = pytest.mark.integration
JOB = "ktrdr.testing.worker_jobs:perform"


class LightBacktests(BacktestWorker):
    """Without the preloads that test jobs do not need."""

    preload = ()


class LightTrainings(TrainingWorker):
    preload = ()


class Client:
    """Asks a worker over its ASGI application."""

    def __init__(self, worker: WorkerAPIBase) -> None:
        self.worker = worker
        self._transport = AsgiTransport({"http://localhost": worker.app})

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await self._transport.request(
            method, f"http://localhost{path}", json=body, headers=headers, timeout_s=60.0
        )

    async def start(
        self,
        instruction: str,
        task_id: str | None = "op",
        attempt: int = 1,
        instance_id: str | None = None,
        **more: Any,
    ) -> Answer:
        body = {"attempt": attempt, "spec": spec(instruction).model_dump(), **more}
        if task_id is not None:
            body["task_id"] = task_id
        query = "" if instance_id is None else f"?instance_id={instance_id}"
        return await self.ask("POST", f"/backtests/start{query}", body)

    async def get(self, operation_id: str = "op") -> dict[str, Any]:
        return dict((await self.ask("GET", f"/api/v1/operations/{operation_id}")).json())

    async def ended(self, operation_id: str = "op") -> dict[str, Any]:
        entry = self.worker.slot.entry(operation_id)
        await until(lambda: entry.delivery == "done" or (entry.ending is not None and not entry.run.fenced))
        return await self.get(operation_id)


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


Fleet = Callable[..., Any]


@pytest.fixture
def worker_of(tmp_path: Path) -> Fleet:
    @asynccontextmanager
    async def make(
        backend: FakeBackend | str,
        cls: type[WorkerAPIBase] = LightBacktests,
        *,
        grace_s: float = 30.0,
        capabilities: Capabilities | None = None,
        **extra: Any,
    ) -> AsyncIterator[Client]:
        settings = WorkerSettings(
            worker_type=cls.worker_type,
            api_urls=(backend if isinstance(backend, str) else backend.url,),
            home=tmp_path,
            worker_id="w",
            control=ControlSettings(cancel_grace_s=grace_s),
            **{"first_retry_s": 0.05, "longest_retry_s": 0.2, **extra},
        )
        worker = cls(settings, capabilities=capabilities or Capabilities(), job=JOB, port=1)
        await worker.start()
        try:
            yield Client(worker)
        finally:
            await worker.close()

    return make


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_from_start_to_delivery(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()
        answer = await client.start("count 3")
        assert (answer.status, answer.json()) == (
            202, {"operation_id": "op", "status": "started", "worker_id": "w", "attempt": 1},
        )  # fmt: skip
        assert (await client.get())["status"] == "running"
        done = await client.ended()
        assert (done["status"], done["progress"]["percentage"]) == ("completed", 100.0)
        assert done["result_summary"] == {"total_return": None, "items": 7}
        [delivery] = backend.deliveries
        assert delivery["artifacts"] == done["artifacts"]
        assert backend.artifacts[delivery["artifacts"]["result"]] == b"result of count 3"
        lines = backend.artifacts[delivery["artifacts"]["metrics"]].splitlines()
        assert [json.loads(line) for line in lines] == [{"item": 0}, {"item": 1}, {"item": 2}]
        log = backend.artifacts[delivery["artifacts"]["log"]].decode()
        assert "instruction: count 3" in log
        assert "logged: count" in log
        assert (await client.ask("GET", "/api/v1/operations/op/logs")).body.decode() == log
        rest = await client.ask("GET", "/api/v1/operations/op/logs?offset=5")
        assert rest.body.decode() == log[5:]
        numbers = [rest.headers[f"x-log-{name}"] for name in ("offset", "size", "attempt")]
        assert numbers == ["5", str(len(log)), "1"]
        scratch = client.worker.settings.home / "workers" / "w" / "scratch"
        assert list(scratch.iterdir()) == []


async def test_metrics_cursor_advances(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.start("count 5")
        await client.ended()
        page = (await client.ask("GET", "/api/v1/operations/op/metrics?cursor=3")).json()
        assert (page["bars"], page["next_cursor"]) == ([{"item": 3}, {"item": 4}], 5)
        rest = (await client.ask("GET", f"/api/v1/operations/op/metrics?cursor={page['next_cursor']}")).json()
        assert (rest["bars"], rest["next_cursor"]) == ([], 5)


async def test_metrics_are_there_while_the_job_runs(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.start("hold 3")
        run = client.worker.slot.entry("op").run
        await until(lambda: (progress := run.progress()) and progress.message == "holding")
        page = (await client.ask("GET", "/api/v1/operations/op/metrics?cursor=1")).json()
        assert (page["bars"], page["next_cursor"]) == ([{"item": 1}, {"item": 2}], 3)
        assert b"instruction: hold 3" in (await client.ask("GET", "/api/v1/operations/op/logs")).body


async def test_four_concurrent_starts_one_taken_three_busy(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        answers = await asyncio.gather(*(client.start("hold", f"op{i}") for i in range(4)))
        assert sorted(answer.status for answer in answers) == [202, 503, 503, 503]
        busy = next(answer for answer in answers if answer.status == 503)
        assert busy.headers["content-type"] == "application/problem+json"
        assert busy.headers["retry-after"] == "1"
        assert busy.json()["type"] == "urn:ktrdr:problem:worker-busy"


async def test_what_was_meant_for_the_process_before_a_restart_is_not_begun(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        own = client.worker.instance_id
        refused = await client.start("hold", instance_id="w-before")
        assert (refused.status, client.worker.slot.current) == (409, None)
        assert refused.json()["type"] == "urn:ktrdr:problem:another-incarnation"
        assert "w-before" in refused.json()["detail"]
        assert own in refused.json()["detail"]
        assert (await client.start("hold", instance_id=own)).status == 202


async def test_a_late_answer_about_an_older_attempt_does_not_stop_the_newer_one(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        assert (await client.start("hold", attempt=2)).status == 202
        run = client.worker.slot.entry("op").run
        client.worker._stop_strays(["op"], 1)
        assert not run.stopping
        client.worker._stop_strays(["op"], 2)
        assert (await client.ended())["status"] == "cancelled"


async def test_the_same_attempt_again_is_accepted_and_older_ones_are_not(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        assert (await client.start("hold", attempt=3)).status == 202
        run = client.worker.slot.entry("op").run
        assert (await client.start("hold", attempt=3)).status == 202
        assert (await client.start("hold", attempt=2)).status == 409
        assert client.worker.slot.entry("op").run is run
        assert (await client.start("hold", attempt=4)).status == 503
        assert (await client.ended())["status"] == "cancelled"
        assert (await client.start("count 1", attempt=3)).status == 202
        assert client.worker.slot.current is None
        assert (await client.start("count 1", attempt=4)).status == 202
        assert (await client.ended())["attempt"] == 4


async def test_without_an_id_the_run_is_unfenced_and_stays_here(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        answer = (await client.start("hold", None)).json()
        health = (await client.ask("GET", "/health")).json()
        assert health["current_operation"] == answer["operation_id"]
        assert health["current_attempt"] is None
        await client.ask("POST", f"/api/v1/operations/{answer['operation_id']}/cancel")
        assert (await client.ended(answer["operation_id"]))["status"] == "cancelled"
        assert answer["operation_id"].startswith("op_backtesting_")
        assert backend.deliveries == []


async def test_health_tells_who_and_what(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        idle = (await client.ask("GET", "/health")).json()
        assert (idle["status"], idle["worker_status"], idle["current_operation"]) == ("healthy", "idle", None)
        assert idle["instance_id"] == client.worker.instance_id
        assert idle["worker_id"] == "w"
        assert min(idle["rss"], idle["disk_free"], idle["uptime_s"]) > 0
        assert idle["cpu"] >= 0
        assert idle["gpu"] == {"gpu": False, "gpu_type": None, "gpu_count": 0, "gpu_memory_gb": 0.0}
        await client.start("hold", attempt=2)
        await until(client.worker.slot.entry("op").run.progress)
        busy = (await client.ask("GET", "/health")).json()
        assert (busy["worker_status"], busy["current_operation"], busy["current_attempt"]) == (
            "busy",
            "op",
            2,
        )
        assert busy["progress"]["items_total"] == 10


@pytest.mark.parametrize("method", ["DELETE", "POST"])
async def test_cancel_is_seen_at_a_yield_and_idempotent(
    worker_of: Fleet, backend: FakeBackend, method: str
) -> None:
    async with worker_of(backend) as client:
        await client.start("hold", attempt=2)
        await until(client.worker.slot.entry("op").run.progress)
        assert (await client.ask(method, "/api/v1/operations/op/cancel?attempt=1")).status == 409
        answer = await client.ask(method, "/api/v1/operations/op/cancel?attempt=2")
        assert (answer.status, answer.json()["status"]) == (202, "cancelling")
        assert (await client.ended())["status"] == "cancelled"
        assert (await client.ask(method, "/api/v1/operations/op/cancel")).json()["status"] == "cancelled"
        assert backend.deliveries[0]["status"] == "cancelled"
        assert b"closed cleanly" in backend.artifacts[backend.deliveries[0]["artifacts"]["log"]]


async def test_a_stubborn_job_is_killed_after_the_grace_with_its_family(
    worker_of: Fleet, backend: FakeBackend, tmp_path: Path
) -> None:
    async with worker_of(backend, grace_s=0.2) as client:
        await client.start(f"family {tmp_path / 'pids'}")
        await until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
        pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
        assert not any(gone(pid) for pid in pids)
        await client.ask("DELETE", "/api/v1/operations/op/cancel")
        assert (await client.ended())["status"] == "cancelled"
        await until(lambda: all(gone(pid) for pid in pids))


async def test_what_a_finished_job_left_running_is_ended(
    worker_of: Fleet, backend: FakeBackend, tmp_path: Path
) -> None:
    async with worker_of(backend) as client:
        await client.start(f"orphan {tmp_path / 'pids'}")
        assert (await client.ended())["status"] == "completed"
        orphan = int((tmp_path / "pids").read_text().split()[1])
        await until(lambda: gone(orphan))


async def test_a_cancel_right_after_the_start(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend, grace_s=0.0) as client:
        await client.start("stubborn")
        await client.ask("DELETE", "/api/v1/operations/op/cancel")
        assert (await client.ended())["status"] == "cancelled"


@pytest.mark.parametrize(
    ("instruction", "status", "words"),
    [
        ("fail", "failed", "There are 3 bars; the warm-up needs 14."),
        ("crash", "failed", "ZeroDivisionError: a bug"),
        ("memory", "failed", "out of memory"),
        ("kill", "child_died", "killed by SIGKILL; peak memory 0."),
        ("segfault", "child_died", "killed by SIGSEGV"),
        ("exit 3", "child_died", "exit code 3"),
        ("missing", "failed", "files that it did not store: result"),
    ],
)
async def test_every_end_is_told_and_the_slot_is_free(
    worker_of: Fleet, backend: FakeBackend, instruction: str, status: str, words: str
) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()  # a registration that is late would tell of the end as well
        await client.start(instruction)
        assert (await client.ended())["status"] == "failed"
        [delivery] = backend.deliveries
        assert delivery["status"] == status
        assert words in delivery["error"]
        assert delivery["out_of_memory"] is (instruction == "memory")
        if instruction in ("crash", "segfault"):
            log = backend.artifacts[delivery["artifacts"]["log"]]
            assert b"Traceback" in log or b"Fatal Python error" in log
        assert (await client.start("count 1", "next")).status == 202
        assert (await client.ended("next"))["status"] == "completed"


@pytest.mark.parametrize("instruction", ["hold", "stubborn"])
async def test_a_job_that_runs_longer_than_it_may_has_failed(
    worker_of: Fleet, backend: FakeBackend, instruction: str
) -> None:
    """Also one that does not hear that it is over."""
    async with worker_of(backend, grace_s=0.2) as client:
        await client.worker.registered()
        assert (await client.start(instruction, time_limit_s=0.3)).status == 202
        assert (await client.start(instruction, time_limit_s=0.3)).status == 202
        assert (await client.ended())["status"] == "failed"
        [delivery] = backend.deliveries
        assert (delivery["status"], delivery["out_of_memory"]) == ("failed", False)
        assert "longer than its time limit of 0.3 s" in delivery["error"]
        assert "or resume it: it has that time again" in delivery["error"]  # resume takes no limit of its own
        assert (await client.start("count 1", "next", time_limit_s=3600)).status == 202
        assert (await client.ended("next"))["status"] == "completed"
        assert (await client.start("count 1", "none", time_limit_s=0)).status == 422


async def test_the_death_of_the_nursery_is_survived(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.start("hold")
        await until(client.worker.slot.entry("op").run.progress)
        pid = client.worker.slot.entry("op").run.pid
        assert pid is not None
        os.kill(psutil.Process(pid).ppid(), signal.SIGKILL)
        assert (await client.ended())["status"] == "failed"
        assert backend.deliveries[0]["status"] == "child_died"
        await until(lambda: gone(pid))
        await client.start("count 1", "next")
        assert (await client.ended("next"))["status"] == "completed"


async def test_a_result_waits_for_the_backend_and_is_named_meanwhile(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()
        backend.refuse["report"] = 503
        await client.start("count 1")
        entry = client.worker.slot.entry("op")
        await until(lambda: entry.delivery == "waiting")
        health = (await client.ask("GET", "/health")).json()
        assert (health["worker_status"], health["current_operation"]) == ("idle", "op")
        backend.refuse.clear()
        await until(lambda: entry.delivery == "done")
        assert (await client.ask("GET", "/health")).json()["current_operation"] is None


async def test_a_probe_makes_a_waiting_result_try_at_once(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend, first_retry_s=3600.0, longest_retry_s=3600.0) as client:
        await client.worker.registered()
        backend.refuse["report"] = 503
        await client.start("count 1")
        entry = client.worker.slot.entry("op")
        await until(lambda: entry.delivery == "waiting")
        backend.refuse.clear()
        await client.ask("GET", "/health")
        await until(lambda: entry.delivery == "done")


async def test_a_result_outlives_the_worker(worker_of: Fleet) -> None:
    async with worker_of(refusing_url()) as client:
        await client.start("count 1")
        await until(lambda: client.worker.slot.entry("op").delivery == "waiting")
    with FakeBackend() as second:
        async with worker_of(second) as client:
            await client.worker.registered()
            await until(lambda: second.deliveries)
        assert second.deliveries[0]["operation_id"] == "op"
        result = second.deliveries[0]["artifacts"]["result"]
        assert second.artifacts[result] == b"result of count 1"
        outbox = client.worker.settings.home / "workers" / "w" / "outbox"
        assert list(outbox.iterdir()) == []


async def test_the_registration_names_the_run_and_ends_strays(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend, reregister_after_s=0.1) as client:
        await client.worker.registered()
        await client.start("hold", attempt=7)
        await until(lambda: backend.registrations[-1].get("current_attempt") == 7)
        backend.stop_next = ["op", "unknown"]
        assert (await client.ended())["status"] == "cancelled"


async def test_a_worker_that_closes_gives_its_work_back(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()
        await client.start("hold")
        await until(client.worker.slot.entry("op").run.progress)
        await client.worker.release()
        assert backend.reports[-1]["worker_status"] == "draining"
        assert backend.deliveries[-1]["status"] == "released"
        refused = await client.start("hold", "other")
        assert (refused.status, refused.json()["detail"]) == (
            503, "This worker is shutting down and takes no more work.",
        )  # fmt: skip
        assert (await client.ask("GET", "/health")).json()["worker_status"] == "draining"


async def test_a_worker_gives_one_operation_back_and_takes_the_next(
    worker_of: Fleet, backend: FakeBackend
) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()
        await client.start("hold")
        await until(client.worker.slot.entry("op").run.progress)
        path = "/api/v1/operations/op/release"
        assert (await client.ask("POST", f"{path}?attempt=2")).status == 409
        assert (await client.ask("POST", "/api/v1/operations/other/release")).status == 404
        assert (await client.ask("POST", f"{path}?attempt=1")).status == 202
        await client.ended()
        await until(lambda: backend.deliveries)
        assert backend.deliveries[-1]["status"] == "released"
        assert (await client.ask("POST", f"{path}?attempt=1")).status == 202  # it ended; nothing to do
        assert (await client.start("hold", "other")).status == 202


async def test_an_idle_worker_that_closes_says_so(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        await client.worker.registered()
    assert [report["worker_status"] for report in backend.reports] == ["draining"]


async def test_data_comes_by_digest_from_the_backend(worker_of: Fleet, backend: FakeBackend) -> None:
    backend.artifacts["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"] = b"hello"
    async with worker_of(backend) as client:
        await client.start("fetch 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
        done = await client.ended()
        assert done["result_summary"] == {"length": 5}
        assert backend.artifacts[done["artifacts"]["result"]] == b"olleh"


async def test_wrong_requests(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        training = TrainingSpec(strategy_name="s", strategy="", symbols=[], timeframes=[], datasets=[])
        answer = await client.ask("POST", "/backtests/start", {"spec": training.model_dump()})
        assert (answer.status, "backtesting worker" in answer.json()["detail"]) == (422, True)
        answer = await client.ask("POST", "/api/v1/backtests/start", {"spec": {"kind": "backtesting"}})
        assert answer.status == 422
        assert {"/spec/backtesting/symbol"} <= {item["pointer"] for item in answer.json()["errors"]}
        for path in ("", "/metrics", "/logs"):
            answer = await client.ask("GET", f"/api/v1/operations/absent{path}")
            assert (answer.status, answer.json()["type"]) == (404, "urn:ktrdr:problem:not-found")
        assert (await client.ask("GET", "/nowhere")).status == 404
        assert (await client.ask("PUT", "/health")).status == 405
        listed = (await client.ask("GET", "/api/v1/operations")).json()
        assert listed == {"operations": [], "total": 0, "next_cursor": None}


async def test_only_local_names_without_a_token(worker_of: Fleet, backend: FakeBackend) -> None:
    async with worker_of(backend) as client:
        answer = await client.ask("GET", "/api/v1/operations", host="evil.example")
        assert (answer.status, "evil.example" in answer.json()["detail"]) == (401, True)
        assert (await client.ask("GET", "/health", host="evil.example")).status == 200


async def test_a_token_opens_every_route_and_is_shown_to_the_backend(worker_of: Fleet) -> None:
    with FakeBackend(token="enrol") as backend:
        async with worker_of(backend, token="api", enrolment_token="enrol") as client:
            await client.worker.registered()
            assert (await client.ask("GET", "/health")).status == 200
            for wrong in ({}, {"authorization": "Bearer nope"}, {"authorization": "Basic api"}):
                answer = await client.ask("GET", "/api/v1/operations", **wrong)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            for right in ("api", "enrol"):
                headers = {"authorization": f"Bearer {right}", "host": "box.example"}
                assert (await client.ask("GET", "/api/v1/operations", **headers)).status == 200


@pytest.mark.parametrize("gpu", [False, True])
async def test_a_training_worker_with_and_without_a_gpu(
    worker_of: Fleet, backend: FakeBackend, gpu: bool
) -> None:
    capabilities = Capabilities(gpu=gpu, gpu_type="CUDA" if gpu else None, gpu_count=int(gpu))
    training = TrainingSpec(
        strategy_name="s", strategy="count 2", symbols=["A"], timeframes=["1d"], datasets=[]
    )
    async with worker_of(backend, LightTrainings, capabilities=capabilities) as client:
        await client.worker.registered()
        assert backend.registrations[0]["capabilities"]["gpu"] is gpu
        assert backend.registrations[0]["worker_type"] == WorkerType.TRAINING
        for attempt in (1, 2):
            body = {"task_id": "op", "attempt": attempt, "spec": training.model_dump()}
            assert (await client.ask("POST", "/training/start", body)).status == 202
            assert (await client.ended())["status"] == "completed"
        page = (await client.ask("GET", "/api/v1/operations/op/metrics")).json()
        assert page["epochs"] == [{"item": 0}, {"item": 1}]


async def test_a_gpu_job_can_be_killed_too(worker_of: Fleet, backend: FakeBackend) -> None:
    capabilities = Capabilities(gpu=True, gpu_type="CUDA", gpu_count=1)
    training = TrainingSpec(
        strategy_name="s", strategy="stubborn", symbols=["A"], timeframes=["1d"], datasets=[]
    )
    async with worker_of(backend, LightTrainings, capabilities=capabilities, grace_s=0.1) as client:
        await client.ask("POST", "/training/start", {"task_id": "op", "spec": training.model_dump()})
        await until(client.worker.slot.entry("op").run.progress)
        await client.ask("DELETE", "/api/v1/operations/op/cancel")
        assert (await client.ended())["status"] == "cancelled"
