"""A crowd of made-up workers in one process: each has a socket, an id and the worker contract; none computes anything.

Run by :mod:`control.crowd`, not by hand. The process answers on its standard output: a line ``ready`` once all workers
are registered, and for each line on its standard input a line of JSON with what it has counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from control.http import Client, length_of

_REASONS = {200: "OK", 202: "Accepted", 404: "Not Found", 503: "Service Unavailable"}
_AT_ONCE = 16  # registrations and deliveries under way


@dataclass(frozen=True)
class Plan:
    """What one process of the crowd is. ``job_s``: how long a job takes, None: until it is cancelled."""

    backend: str
    prefix: str
    count: int
    kind: str = "backtesting"
    host: str = "127.77.0.1"
    job_s: float | None = None
    context_bytes: int = 0  # of what a job says of itself beside its figures
    again_s: float | None = None  # how often each registers again


@dataclass
class Worker:
    """One worker: its endpoint and what it runs."""

    worker_id: str
    kind: str
    url: str = ""
    job: tuple[str, int] | None = None
    since: float = 0.0
    says: str = ""
    untold: dict[str, int] = field(default_factory=dict)  # operations that ended, until that is acknowledged

    def health(self) -> dict[str, Any]:
        """As a real worker's, with all its keys."""
        return {
            "status": "healthy",
            "worker_status": "busy" if self.job else "idle",
            "current_operation": self.job[0] if self.job else None,
            "current_attempt": self.job[1] if self.job else None,
            "progress": self.progress() if self.job else None,
            "worker_id": self.worker_id,
            "instance_id": f"{self.worker_id}-1",
            "version": "0",
            "uptime_s": round(time.monotonic() - self.since, 3),
            "cpu": 0.4,
            "rss": 81_000_000,
            "disk_free": 500_000_000_000,
            "gpu": {"gpu": False, "gpu_type": None, "gpu_count": 0, "gpu_memory_gb": 0.0},
            "log_size": None,
        }

    def progress(self) -> dict[str, Any]:
        """It moves with time, so each look sees another."""
        done = int((time.monotonic() - self.since) * 1000)
        percent = min(99.0, done / 10_000)
        context = {"current_bar": done, "total_bars": 1_000_000, "win_rate": 0.5, "says": self.says}
        return {
            "percentage": percent,
            "message": f"bar {done}",
            "items_done": done,
            "items_total": 1_000_000,
            "context": context,
        }


class Crowd:
    """All workers of the process, their server and their way to the backend."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.counts: Counter[str] = Counter()
        names = [f"{plan.prefix}-{number:05d}" for number in range(plan.count)]
        self.workers = [Worker(name, plan.kind, says="x" * plan.context_bytes) for name in names]
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = Client(plan.backend)

    async def listen(self) -> None:
        """A socket for each worker, on a loopback address of the crowd's own."""
        loop = asyncio.get_running_loop()
        for worker in self.workers:
            sock = socket.create_server((self.plan.host, 0), backlog=16)
            address, port = sock.getsockname()
            worker.url = f"http://{address}:{port}"
            worker.since = time.monotonic()
            await loop.create_server(lambda worker=worker: Conversation(self, worker), sock=sock)

    async def register(self) -> None:
        """Make every worker known."""
        await asyncio.gather(*(self._register(worker) for worker in self.workers))

    async def register_again(self) -> None:
        """Each in turn, for ever."""
        assert self.plan.again_s is not None
        while True:
            for worker in self.workers:
                await asyncio.sleep(self.plan.again_s / len(self.workers))
                await self._register(worker)

    async def _register(self, worker: Worker) -> None:
        body = {
            "worker_id": worker.worker_id,
            "worker_type": worker.kind,
            "endpoint_url": worker.url,
            "instance_id": f"{worker.worker_id}-1",
            "capabilities": {"cores": 2, "memory_gb": 8.0, "version": "0"},
        }
        if worker.job is not None:
            body |= {"current_operation_id": worker.job[0], "current_attempt": worker.job[1]}
        await self._send("/workers/register", body)

    async def _send(self, path: str, body: object) -> None:
        """Until it is taken; the backend may be away for a while."""
        async with self._gate:
            while True:
                with contextlib.suppress(OSError):
                    if (await self._client.ask("POST", path, body)).status in (200, 404):
                        return
                self.counts["sent again"] += 1
                await asyncio.sleep(0.2)

    # --- what the backend asks ----------------------------------------------------------------------------------

    def answer(self, worker: Worker, method: str, path: str, body: bytes) -> tuple[int, object]:
        """The worker contract."""
        if path == "/health":
            self.counts["probes"] += 1
            return 200, worker.health()
        if method == "POST":
            return self._start(worker, json.loads(body))
        operation_id, _, rest = path.removeprefix("/api/v1/operations/").partition("/")
        if method == "DELETE":
            self.counts["cancels"] += 1
            return self._cancel(worker, operation_id)
        if rest.startswith("metrics"):
            return 200, {"operation_id": operation_id, "bars": [], "next_cursor": 0}
        self.counts["reads"] += 1
        runs = worker.job is not None and worker.job[0] == operation_id
        attempt = worker.job[1] if worker.job is not None and runs else worker.untold.get(operation_id)
        if attempt is None:
            return 404, {"detail": "no such operation"}
        return 200, {
            "operation_id": operation_id,
            "operation_type": worker.kind,
            "status": "running" if runs else "completed",
            "progress": worker.progress(),
            "worker_id": worker.worker_id,
            "attempt": attempt,
            "created_at": "2026-01-01T00:00:00Z",
        }

    def _start(self, worker: Worker, job: dict[str, Any]) -> tuple[int, object]:
        task = (job["task_id"], job["attempt"])
        if worker.job not in (None, task):
            return 503, {"detail": "busy with another operation"}
        if worker.job is None:
            self.counts["starts"] += 1
            worker.job, worker.since = task, time.monotonic()
            if self.plan.job_s is not None:
                asyncio.get_running_loop().call_later(self.plan.job_s, self._end, worker, task, "completed")
        answer = {
            "operation_id": task[0],
            "status": "started",
            "worker_id": worker.worker_id,
            "attempt": task[1],
        }
        return 202, answer

    def _cancel(self, worker: Worker, operation_id: str) -> tuple[int, object]:
        if worker.job is None or worker.job[0] != operation_id:
            return 404, {"detail": "no such operation"}
        self._end(worker, worker.job, "cancelled")
        return 202, {}

    def _end(self, worker: Worker, task: tuple[str, int], status: str) -> None:
        if worker.job == task:
            work = asyncio.get_running_loop().create_task(self._deliver(worker, task, status))
            self._tasks.add(work)
            work.add_done_callback(self._tasks.discard)

    async def _deliver(self, worker: Worker, task: tuple[str, int], status: str) -> None:
        delivery = {"operation_id": task[0], "attempt": task[1], "status": status}
        delivery |= {"summary": {"total_return": 0.1, "sharpe_ratio": 1.0, "total_trades": 7}}
        body = {"instance_id": f"{worker.worker_id}-1", "worker_status": "idle", "delivery": delivery}
        if worker.job == task:
            worker.job = None  # idle from here on, as it says in the report
        worker.untold[task[0]] = task[1]
        await self._send(f"/workers/{worker.worker_id}/report", body)
        worker.untold.pop(task[0], None)
        self.counts["deliveries"] += 1


class Conversation(asyncio.Protocol):
    """One connection to one worker, kept alive."""

    def __init__(self, crowd: Crowd, worker: Worker) -> None:
        self._crowd, self._worker = crowd, worker
        self._read = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._crowd.counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end]
            size = length_of(head)
            if len(self._read) < end + 4 + size:
                return
            body, self._read = self._read[end + 4 : end + 4 + size], self._read[end + 4 + size :]
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            path = target.partition("?")[0]
            status, answer = self._crowd.answer(self._worker, method, path, body)
            content = json.dumps(answer).encode()
            last = b"connection: close" in head.lower()
            self._transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%s\r\n"
                % (status, _REASONS[status].encode(), len(content), b"connection: close\r\n" * last)
                + content
            )
            if last:
                self._transport.close()
                return


async def serve(plan: Plan) -> None:
    """Until the standard input ends."""
    crowd = Crowd(plan)
    await crowd.listen()
    await crowd.register()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    again = None if plan.again_s is None else loop.create_task(crowd.register_again())
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(crowd.counts), flush=True)
    if again is not None:
        again.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(serve(Plan(**json.loads(sys.argv[1]))))
