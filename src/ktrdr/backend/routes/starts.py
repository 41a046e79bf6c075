"""Starting work: backtests and trainings."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.backend.routes.quick import LONGEST_KEY, QuickRoute
from ktrdr.backend.wiring import Backend
from ktrdr.operations.model import Operation, OperationStatus
from ktrdr.protocol.requests import OperationStarted, StartBacktest, StartTraining

__all__ = ["Key", "router", "started"]

router = APIRouter(tags=["start"], responses=PROBLEMS, route_class=QuickRoute)
Key = Annotated[
    str | None, Header(max_length=LONGEST_KEY, description="same key and body: the same operation")
]


async def started(services: Backend, operation: Operation, request: Request) -> Response:
    """202 with the operation's id, its place in the queue and its address."""
    operation_id = operation.operation_id
    pending = operation.status is OperationStatus.PENDING
    position = await services.store.queue_position(operation_id) if pending else None
    answer = OperationStarted(
        operation_id=operation_id,
        operation_type=operation.operation_type,
        operation_status=operation.status,
        queue_position=position,
        parent_operation_id=operation.parent_operation_id,
        message=f"Follow it at /api/v1/operations/{operation_id}.",
    )
    location = {"Location": f"/api/v1/operations/{operation_id}"}
    return json_answer(answer, request, status=202, headers=location)


@router.post("/backtests/start", response_model=OperationStarted, status_code=202)
async def start_backtest(
    body: StartBacktest, request: Request, services: Services, idempotency_key: Key = None
) -> Response:
    """Backtest a trained model on a backtesting worker."""
    return await started(services, await services.backtesting.submit(body, idempotency_key), request)


@router.post("/trainings/start", response_model=OperationStarted, status_code=202)
@router.post("/training/start", response_model=OperationStarted, status_code=202, include_in_schema=False)
async def start_training(
    body: StartTraining, request: Request, services: Services, idempotency_key: Key = None
) -> Response:
    """Train a model on a training worker, with a GPU if one is free."""
    return await started(services, await services.training.submit(body, idempotency_key), request)
