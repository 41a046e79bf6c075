"""A worker's HTTP face."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import psutil
from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.responses import PlainTextResponse

from ktrdr.protocol.messages import (
    HealthView,
    MetricsView,
    OperationList,
    OperationView,
    Problem,
    StartAccepted,
    StartJob,
)
from ktrdr.protocol.queries import known_query
from ktrdr.workers.problems import Guard, install
from ktrdr.workers.views import metrics_view, operation_view, progress_view

if TYPE_CHECKING:
    from ktrdr.workers.base import WorkerAPIBase

__all__ = ["make_app"]

Cursor = Annotated[int, Query(ge=0, description="number of the first record wanted")]
Offset = Annotated[int | None, Query(ge=0, description="first byte wanted; else the log's end is sent")]
_PIECE = 512 << 10


def make_app(worker: WorkerAPIBase) -> FastAPI:
    """The application of one worker; its lifespan starts and closes the worker."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await worker.start()
        try:
            yield
        finally:
            await worker.close()

    app = FastAPI(
        title=f"ktrdr {worker.worker_type.value} worker",
        lifespan=lifespan,
        dependencies=[Depends(known_query)],
        responses={"4XX": {"model": Problem, "description": "An RFC 9457 problem"}},
    )
    install(app)
    app.add_middleware(Guard, credentials=worker.credentials)
    app.include_router(_health(worker))
    start = _start(worker)
    app.include_router(start)
    app.include_router(start, prefix="/api/v1", include_in_schema=False)
    app.include_router(_operations(worker), prefix="/api/v1/operations")
    return app


def _health(worker: WorkerAPIBase) -> APIRouter:
    router = APIRouter()
    process = psutil.Process(os.getpid())

    @router.get("/health")
    async def health() -> HealthView:
        """Who this is and what it does; also the backend's probe."""
        worker.heard()
        entry = worker.slot.visible()
        fenced = entry is not None and entry.run.fenced
        disk = psutil.disk_usage(str(worker.settings.home))
        return HealthView(
            worker_status=worker.status(),
            current_operation=entry.run.operation_id if entry else None,
            current_attempt=entry.run.attempt if entry and fenced else None,
            progress=progress_view(entry.run.progress()) if entry else None,
            worker_id=worker.worker_id,
            instance_id=worker.instance_id,
            version=worker.capabilities.version,
            uptime_s=round(worker.clock.monotonic() - worker.started_at, 3),
            cpu=process.cpu_percent(),
            rss=process.memory_info().rss,
            disk_free=disk.free,
            gpu=worker.capabilities.model_dump(include={"gpu", "gpu_type", "gpu_count", "gpu_memory_gb"}),
            log_size=worker.log_size(entry) if entry and entry.ending is None else None,
        )

    return router


def _start(worker: WorkerAPIBase) -> APIRouter:
    router = APIRouter()

    async def start(job: StartJob, instance_id: str | None = None) -> StartAccepted:
        """Take an operation: 202; 503 while another one runs here; 409 for an outdated attempt, and for another
        incarnation of this worker than the one named."""
        run = worker.accept(job, instance_id)
        return StartAccepted(operation_id=run.operation_id, worker_id=worker.worker_id, attempt=run.attempt)

    for path in worker.start_paths:
        router.add_api_route(path, start, methods=["POST"], status_code=202)
    return router


def _operations(worker: WorkerAPIBase) -> APIRouter:
    router = APIRouter()

    @router.get("")
    async def list_operations() -> OperationList:
        """What runs and ran here, newest first; the last 50."""
        views = [operation_view(entry, worker.worker_id) for entry in worker.slot.newest_first()]
        return OperationList(operations=views, total=len(views))

    @router.get("/{operation_id}")
    async def get_operation(operation_id: str) -> OperationView:
        return operation_view(worker.slot.entry(operation_id), worker.worker_id)

    @router.get("/{operation_id}/metrics")
    async def get_metrics(operation_id: str, cursor: Cursor = 0) -> MetricsView:
        """Metrics records from ``cursor`` on; ask again with ``next_cursor``."""
        return metrics_view(worker.slot.entry(operation_id), worker.metrics_key, cursor)

    @router.get("/{operation_id}/logs", response_class=PlainTextResponse)
    async def get_log(operation_id: str, offset: Offset = None) -> PlainTextResponse:
        """What the job printed and logged so far, up to 512 KiB of it. ``X-Log-Offset`` says where the piece begins,
        ``X-Log-Size`` how long the log is, ``X-Log-Attempt`` whose it is."""
        entry = worker.slot.entry(operation_id)
        size = worker.log_size(entry)
        first, piece = worker.log_piece(entry, max(0, size - _PIECE) if offset is None else offset, _PIECE)
        numbers = {"X-Log-Offset": first, "X-Log-Size": size, "X-Log-Attempt": entry.run.attempt}
        headers = {name: str(value) for name, value in numbers.items()}
        return PlainTextResponse(piece, headers=headers)

    async def cancel(operation_id: str, attempt: Annotated[int | None, Query(ge=1)] = None) -> OperationView:
        """Ask the job to stop; it is killed after the grace. Answers at once; repeating it changes nothing."""
        return operation_view(worker.cancel(operation_id, attempt), worker.worker_id)

    @router.post("/{operation_id}/release", status_code=202)
    async def release(operation_id: str, attempt: Annotated[int | None, Query(ge=1)] = None) -> OperationView:
        """Ask the job to save a checkpoint and stop, and give the operation back; answers at once. A job that does
        not stop is killed after a grace, and its operation given back all the same."""
        return operation_view(worker.give_back(operation_id, attempt), worker.worker_id)

    router.add_api_route("/{operation_id}/cancel", cancel, methods=["DELETE", "POST"], status_code=202)
    return router
