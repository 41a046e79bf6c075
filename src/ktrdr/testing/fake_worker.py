"""A worker as the backend sees it: the worker contract over HTTP, with every move made by the test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from ktrdr.errors import AnotherIncarnation
from ktrdr.operations.model import OperationStatus, OperationType
from ktrdr.protocol.messages import OperationView, ProgressView, StartJob

__all__ = ["FakeWorker"]


@dataclass(slots=True)
class _Job:
    attempt: int
    status: str = "running"
    progress: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)


class FakeWorker:
    """``app`` answers probes, starts, reads and cancels; ``starts`` and ``cancels`` collect what came.

    ``script`` holds answers for the next starts, taken one by one: ``busy`` (503), ``older`` (409), ``bad`` (422),
    ``crash`` (500 after taking it), ``hang`` (takes it and never answers). Without a script a start is taken if no
    job runs.
    """

    def __init__(
        self,
        worker_id: str,
        worker_type: str = "backtesting",
        *,
        gpu: bool = False,
        version: str = "0",
        url: str = "",
    ) -> None:
        self.worker_id = worker_id
        self.worker_type = worker_type
        self.gpu = gpu
        self.version = version
        self.url = url or f"http://{worker_id}"
        self.instance_id = f"{worker_id}-1"
        self.jobs: dict[str, _Job] = {}
        self.starts: list[StartJob] = []
        self.cancels: list[tuple[str, int | None]] = []
        self.releases: list[tuple[str, int | None]] = []
        self.reads = 0
        self.probes = 0
        self.script: list[str] = []
        self.logs: dict[str, bytes] = {}  # of operations whose log is told in pieces
        self.holes: dict[str, tuple[int, int]] = {}  # of them, what was printed and not kept
        self.piece = 4  # bytes of one piece
        self.draining = False
        self.extra: dict[str, Any] = {}  # what else it says of itself when probed
        self.gate = asyncio.Event()  # reads of an operation wait for it
        self.gate.set()
        self.health_gate = asyncio.Event()  # answers to probes wait for it
        self.health_gate.set()
        self.app = _make_app(self)

    @property
    def running(self) -> str | None:
        """The operation it runs."""
        return next((name for name, job in self.jobs.items() if job.status == "running"), None)

    def restart(self) -> None:
        """Come back as a new incarnation that knows nothing."""
        number = int(self.instance_id.rpartition("-")[2]) + 1
        self.instance_id = f"{self.worker_id}-{number}"
        self.jobs.clear()

    def registration(self, **changes: Any) -> dict[str, Any]:
        """The body of a registration."""
        message: dict[str, Any] = {
            "worker_id": self.worker_id,
            "worker_type": self.worker_type,
            "endpoint_url": self.url,
            "instance_id": self.instance_id,
            "capabilities": {"cores": 2, "gpu": self.gpu, "version": self.version},
        }
        if self.gpu:
            message["capabilities"] |= {"gpu_type": "CUDA", "gpu_count": 1, "gpu_memory_gb": 8.0}
        if (name := self.running) is not None:
            message |= {"current_operation_id": name, "current_attempt": self.jobs[name].attempt}
        return message | changes

    def delivery(self, operation_id: str, status: str = "completed", **more: Any) -> dict[str, Any]:
        """The end of a job, as it is delivered; the job no longer runs."""
        job = self.jobs.get(operation_id)
        attempt = job.attempt if job is not None else 1
        if job is not None:
            job.status = status
        return {"operation_id": operation_id, "attempt": attempt, "status": status, **more}

    def report(
        self, operation_id: str | None = None, status: str = "completed", **more: Any
    ) -> dict[str, Any]:
        """The body of a report, with a delivery if an operation is named."""
        message: dict[str, Any] = {"instance_id": self.instance_id, "worker_status": "idle"}
        if operation_id is not None:
            message["delivery"] = self.delivery(operation_id, status, **more)
        if self.draining:
            message["worker_status"] = "draining"
        return message

    def health(self) -> dict[str, Any]:
        """The answer to a probe, as things stand now."""
        name = self.running
        job = self.jobs[name] if name is not None else None
        return {
            "status": "healthy",
            "worker_status": "draining" if self.draining else "busy" if name else "idle",
            "current_operation": name,
            "current_attempt": job.attempt if job else None,
            "progress": job.progress if job else None,
            "worker_id": self.worker_id,
            "instance_id": self.instance_id,
            "version": self.version,
            "log_size": len(self.logs.get(name or "", b"")),
            **self.extra,
        }


def _problem(status: int, detail: str, slug: str = "x") -> Response:
    return JSONResponse(
        {"type": f"urn:ktrdr:problem:{slug}", "title": detail, "status": status, "detail": detail}, status
    )


def _make_app(worker: FakeWorker) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    async def health() -> Response:
        worker.probes += 1
        answer = worker.health()
        await worker.health_gate.wait()
        return JSONResponse(answer)

    async def start(request: Request) -> Response:
        job = StartJob.model_validate_json(await request.body())
        worker.starts.append(job)
        if request.query_params.get("instance_id", worker.instance_id) != worker.instance_id:
            slug = AnotherIncarnation.slug
            return _problem(409, "meant for another incarnation", slug)
        return await _answer_start(worker, job)

    app.add_api_route("/backtests/start", start, methods=["POST"])
    app.add_api_route("/training/start", start, methods=["POST"])
    _tell_logs(app, worker)

    @app.get("/api/v1/operations/{operation_id}")
    async def read(operation_id: str) -> Response:
        worker.reads += 1
        await worker.gate.wait()
        job = worker.jobs.get(operation_id)
        if job is None:
            return _problem(404, "no such operation")
        return Response(_view(worker, operation_id, job).model_dump_json(), media_type="application/json")

    @app.get("/api/v1/operations/{operation_id}/metrics")
    async def metrics(operation_id: str, cursor: int = 0) -> Response:
        job = worker.jobs.get(operation_id)
        if job is None:
            return _problem(404, "no such operation")
        records = job.records[cursor:]
        return JSONResponse(
            {"operation_id": operation_id, "bars": records, "next_cursor": cursor + len(records)}
        )

    @app.delete("/api/v1/operations/{operation_id}/cancel")
    async def cancel(operation_id: str, attempt: int | None = None) -> Response:
        worker.cancels.append((operation_id, attempt))
        if operation_id not in worker.jobs:
            return _problem(404, "no such operation")
        return JSONResponse({}, 202)

    @app.post("/api/v1/operations/{operation_id}/release")
    async def release(operation_id: str, attempt: int | None = None) -> Response:
        worker.releases.append((operation_id, attempt))
        if operation_id not in worker.jobs:
            return _problem(404, "no such operation")
        return JSONResponse({}, 202)

    return app


def _tell_logs(app: FastAPI, worker: FakeWorker) -> None:
    @app.get("/api/v1/operations/{operation_id}/logs")
    async def log(operation_id: str, offset: int = 0) -> Response:
        if (text := worker.logs.get(operation_id)) is None:
            return Response(f"log of {operation_id}\n", media_type="text/plain")
        low, high = worker.holes.get(operation_id, (0, 0))
        offset = high if low <= offset < high else offset
        numbers = {"offset": offset, "size": len(text), "attempt": worker.jobs[operation_id].attempt}
        headers = {f"x-log-{key}": str(value) for key, value in numbers.items()}
        return Response(text[offset : offset + worker.piece], media_type="text/plain", headers=headers)


_REFUSALS = {"older": 409, "stranger": 401, "bad": 422}


async def _answer_start(worker: FakeWorker, job: StartJob) -> Response:
    word = worker.script.pop(0) if worker.script else ""
    name = job.task_id or "by-hand"
    if word == "busy" or (not word and worker.running not in (None, name)):
        return _problem(503, "busy with another operation")
    if word in _REFUSALS:
        return _problem(_REFUSALS[word], f"scripted: {word}")
    worker.jobs[name] = _Job(job.attempt)
    if word == "crash":
        return _problem(500, "scripted: crash")
    if word == "hang":
        await asyncio.Event().wait()
    return JSONResponse(
        {"operation_id": name, "status": "started", "worker_id": worker.worker_id, "attempt": job.attempt},
        202,
    )


def _view(worker: FakeWorker, operation_id: str, job: _Job) -> OperationView:
    kind = OperationType.TRAINING if worker.worker_type == "training" else OperationType.BACKTESTING
    return OperationView(
        operation_id=operation_id,
        operation_type=kind,
        status=OperationStatus(job.status),
        progress=ProgressView.model_validate(job.progress),
        worker_id=worker.worker_id,
        attempt=job.attempt,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
