"""The backend in numbers for Prometheus, at the path that it scrapes by default and below the API."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from ktrdr.backend.routes.common import PROBLEMS, Services
from ktrdr.backend.telemetry.metrics import CONTENT_TYPE

__all__ = ["root", "router"]

router = APIRouter(tags=["metrics"], responses=PROBLEMS)
root = APIRouter(tags=["metrics"], responses=PROBLEMS)


@root.get("/metrics", response_class=PlainTextResponse)
@router.get("/metrics/prometheus", response_class=PlainTextResponse)
async def prometheus(services: Services) -> Response:
    """Workers, operations, dispatch latency, durations and ends in Prometheus' text format. The same at `/metrics`
    and at `/api/v1/metrics/prometheus`."""
    paused = await services.operations.pauses.read()
    text = await services.metrics.render(services.registry, await services.store.counts(), paused)
    return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
