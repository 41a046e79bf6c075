"""Workers: registration, reports, lists, draining."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from ktrdr.backend.access.actions import tell, unremarkable
from ktrdr.backend.access.principal import principal_of
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer, json_bytes
from ktrdr.errors import NotFound
from ktrdr.logs import about
from ktrdr.operations.model import WorkerType
from ktrdr.operations.store import OperationQuery
from ktrdr.protocol.messages import (
    RegisterRequest,
    RegisterResponse,
    ReportRequest,
    ReportResponse,
    WorkerList,
    WorkerMetrics,
    WorkerMetricsRow,
    WorkerStatus,
    WorkerView,
)
from ktrdr.protocol.worker_key import HEADER

__all__ = ["router"]

router = APIRouter(tags=["workers"], responses=PROBLEMS)
_RECENT = 10
_BREATH = 200  # workers, whose views take some milliseconds
Key = Annotated[
    str | None,
    Header(
        alias=HEADER, max_length=256, description="proves that the worker is the one its instance id names"
    ),
]


@router.post("/workers/register")
async def register_worker(
    body: RegisterRequest, request: Request, services: Services, key: Key = None
) -> RegisterResponse:
    """A worker makes itself known. The backend first asks the endpoint for its health, and refuses it if it cannot
    reach it. Idempotent; ``outbox`` delivers results that were finished while the backend was away."""
    services.must_lead()
    known = services.registry.find(body.worker_id)
    same = known is not None and known.record.instance_id == body.instance_id
    with about(worker_id=body.worker_id):
        tell(request.scope, body.worker_id, body.instance_id)
        token_id = principal_of(request.scope).token_id
        answer = await services.enrolment.register(body, key, token_id=token_id)
        if same and not body.outbox:
            unremarkable(request.scope)
        return answer


@router.post("/workers/{worker_id}/report")
async def report_worker(
    worker_id: str, body: ReportRequest, request: Request, services: Services, key: Key = None
) -> ReportResponse:
    """A worker pushes a change of its state. With ``delivery`` the end of an attempt is durable when this answers,
    and the worker's slot is free."""
    services.must_lead()
    if (end := body.delivery) is not None:
        tell(request.scope, worker_id, f"{end.operation_id} attempt {end.attempt} {end.status}")
    answer = await services.enrolment.report(worker_id, body, key)
    if end is None:
        unremarkable(request.scope)
    return answer


@router.get("/workers", response_model=WorkerList)
async def list_workers(
    request: Request,
    services: Services,
    worker_type: WorkerType | None = None,
    status: Annotated[WorkerStatus | None, Query()] = None,
) -> Response:
    """All registered workers, by id."""
    registry, views = services.registry, list[WorkerView]()
    for number, worker in enumerate(sorted(registry, key=lambda worker: worker.worker_id)):
        if worker_type in (None, worker.record.worker_type) and status in (None, registry.status(worker)):
            views.append(registry.view(worker))
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)  # a list of ten thousand takes a second; others are served meanwhile
    answer = WorkerList(workers=views, total=len(views))
    if len(views) < _BREATH:
        return json_answer(answer, request)
    return json_bytes((await asyncio.to_thread(answer.model_dump_json)).encode(), request)


@router.get("/workers/{worker_id}", response_model=WorkerView)
async def get_worker(worker_id: str, request: Request, services: Services) -> Response:
    """One worker, with the operations it ran last. Those of a worker that was removed are still listed by
    ``GET /operations?worker_id=``."""
    ran = (await services.store.page(OperationQuery(worker_id=worker_id, limit=_RECENT))).operations
    worker = services.registry.find(worker_id)
    if worker is None and ran:
        listed = f"it was removed; what it ran: GET /api/v1/operations?worker_id={worker_id}"
        raise NotFound("worker", worker_id, hint=listed)
    view = services.registry.view(worker or services.registry.get(worker_id))
    recent = dict.fromkeys([*view.recent_operations, *(operation.operation_id for operation in ran)])
    return json_answer(view.model_copy(update={"recent_operations": list(recent)[:_RECENT]}), request)


@router.post("/workers/{worker_id}/drain")
async def drain_worker(
    worker_id: str,
    request: Request,
    services: Services,
    release: Annotated[
        bool, Query(description="what it runs is saved and goes back to the queue, without a failure")
    ] = False,
) -> WorkerView:
    """Let the worker finish what it runs, or give it back at once, and give it no more."""
    await services.must_lead_or_say_why()
    view = await services.enrolment.set_draining(worker_id, True)
    if not release:
        return view
    tell(request.scope, worker_id, f"released {view.current_operation_id or 'nothing'}")
    return await services.enrolment.release(worker_id)


@router.post("/workers/{worker_id}/undrain")
async def undrain_worker(worker_id: str, services: Services) -> WorkerView:
    """Give the worker work again."""
    await services.must_lead_or_say_why()
    return await services.enrolment.set_draining(worker_id, False)


@router.delete("/workers/{worker_id}", status_code=204)
async def delete_worker(worker_id: str, services: Services) -> None:
    """Forget an idle or unreachable worker. One that is alive registers again."""
    await services.must_lead_or_say_why()
    await services.enrolment.forget(worker_id)


@router.get("/metrics/workers", response_model=WorkerMetrics)
async def worker_metrics(request: Request, services: Services) -> Response:
    """Workers counted by status and by type, and a row for each; and the room that is left for the backend's files."""
    registry = services.registry
    rows = [
        WorkerMetricsRow(
            id=worker.worker_id,
            type=worker.record.worker_type,
            status=registry.status(worker),
            current_operation=worker.current_operation_id,
            health_failures=worker.failures,
            seen=worker.verified,
        )
        for worker in sorted(registry, key=lambda worker: worker.worker_id)
    ]
    by_status = Counter(row.status for row in rows)
    by_type = Counter(row.type for row in rows)
    answer = WorkerMetrics(
        total_workers=len(rows),
        by_status=dict(by_status),
        by_type=dict(by_type),
        workers=rows,
        backend_disk_free=await asyncio.to_thread(_room, services.config.home),  # it may be on a network
    )
    return json_answer(answer, request)


def _room(home: Path) -> int | None:
    """Bytes free where ``home`` is or would be made; None where the system does not say."""
    for folder in (home, *home.parents):
        try:
            return shutil.disk_usage(folder).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
