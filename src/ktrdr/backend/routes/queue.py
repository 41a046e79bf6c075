"""The queue: what is in it, and whether it is paused."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import APIRouter, Request
from starlette.responses import Response

from ktrdr.backend.access.actions import tell
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer
from ktrdr.operations.model import OperationType
from ktrdr.protocol.queueing import QueueChange, QueueView

__all__ = ["router"]

router = APIRouter(tags=["operations"], responses=PROBLEMS)


@router.get("/queue", response_model=QueueView)
async def get_queue(request: Request, services: Services) -> Response:
    """Operations counted by type and status, and the types that are paused."""
    return json_answer(await services.operations.pauses.view(), request)


@router.post("/queue/pause", response_model=QueueView)
async def pause_queue(body: QueueChange, request: Request, services: Services) -> Response:
    """Dispatch nothing more, of one type or of all, until `unpause`; a restart of the backend does not end it. What
    runs goes on, and what is submitted waits. Repeating it changes nothing."""
    await services.must_lead_or_say_why()  # whose pass over the queue may be under way
    tell(request.scope, body.operation_type or "all")
    await services.operations.pauses.pause(_types(body))
    return json_answer(await services.operations.pauses.view(), request)


@router.post("/queue/unpause", response_model=QueueView)
async def unpause_queue(body: QueueChange, request: Request, services: Services) -> Response:
    """Dispatch again, one type or all. Repeating it changes nothing."""
    await services.must_lead_or_say_why()
    tell(request.scope, body.operation_type or "all")
    await services.operations.pauses.lift(_types(body))
    services.dispatcher.wake()
    return json_answer(await services.operations.pauses.view(), request)


def _types(body: QueueChange) -> Collection[OperationType]:
    return tuple(OperationType) if body.operation_type is None else (body.operation_type,)
