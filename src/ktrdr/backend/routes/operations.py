"""Operations: lists, one operation, its results, metrics, logs and events; cancel one or many, retry, resume, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from ktrdr.backend.access.actions import tell
from ktrdr.backend.operations.cancellation import cancel_many
from ktrdr.backend.operations.feeds import Frame, frame_of
from ktrdr.backend.routes.common import PROBLEMS, Services, json_answer, json_bytes, known_etags
from ktrdr.backend.routes.starts import Key, started
from ktrdr.backend.submission.services import BacktestingService, TrainingService
from ktrdr.backend.wiring import Backend
from ktrdr.errors import InvalidInput
from ktrdr.operations.model import Operation, OperationStatus, OperationType
from ktrdr.operations.store import OperationQuery
from ktrdr.protocol.messages import MetricsView, OperationList, OperationView
from ktrdr.protocol.queueing import CancelOperations, OperationsCancelled
from ktrdr.protocol.requests import OperationStarted
from ktrdr.protocol.resources import ResultsView, SpecView, TablePage

__all__ = ["router"]

router = APIRouter(tags=["operations"], responses=PROBLEMS)
Id = Annotated[str, Path(max_length=128)]
_LONGEST_WAIT_S = 60.0


@router.get("/operations", response_model=OperationList)
async def list_operations(
    request: Request,
    services: Services,
    status: Annotated[list[OperationStatus] | None, Query(description="may be repeated")] = None,
    operation_type: OperationType | None = None,
    worker_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: str | None = None,
) -> Response:
    """Operations, newest first."""
    query = OperationQuery(
        statuses=tuple(status or ()),
        operation_type=operation_type,
        worker_id=worker_id,
        limit=limit,
        cursor=cursor,
    )
    return json_answer(await services.operations.page(query), request)


@router.get("/operations/{operation_id}", response_model=OperationView)
async def get_operation(
    operation_id: Id,
    request: Request,
    services: Services,
    wait: Annotated[
        float, Query(ge=0, le=_LONGEST_WAIT_S, description="seconds to wait for a change at most")
    ] = 0.0,
) -> Response:
    """One operation; its progress is at most a second old.

    With ``wait`` it answers when the operation has ended, or, if the request carries ``If-None-Match``, at the first
    change, or when the time is over.
    """
    frame = await _wait(services, operation_id, wait, known_etags(request)) if wait else None
    if frame is not None:
        return json_bytes(frame.body, request)
    return json_answer(await services.operations.view(operation_id), request)


async def _wait(services: Backend, operation_id: str, seconds: float, known: list[str]) -> Frame | None:
    """What the client waits for, or None when the time is over or the server stops."""
    clock, deadline = services.clock, services.clock.monotonic() + seconds
    etag: str | None = None
    with services.feeds.watch(operation_id) as feed:
        while (frame := await feed.beyond(etag, deadline - clock.monotonic())) is not None:
            if frame.terminal or (known and frame.etag not in known):
                return frame
            etag = frame.etag
    return None


@router.get("/operations/{operation_id}/results", response_model=ResultsView)
async def get_results(operation_id: Id, request: Request, services: Services) -> Response:
    """The result of a completed operation; 409 as long as there is none."""
    return json_answer(await services.results.result(operation_id), request)


@router.get("/operations/{operation_id}/results/{table}", response_model=TablePage)
async def get_table(
    operation_id: Id,
    table: Literal["trades", "equity"],
    request: Request,
    services: Services,
    output: Annotated[Literal["json", "csv"] | None, Query(alias="format")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    cursor: str | None = None,
) -> Response:
    """Trades or equity: pages of JSON, or all of it as CSV (``?format=csv`` or ``Accept: text/csv``)."""
    if output == "csv" or (output is None and "text/csv" in request.headers.get("accept", "")):
        pieces = await services.results.csv(operation_id, table)
        name = f'attachment; filename="{operation_id}-{table}.csv"'
        return StreamingResponse(pieces, media_type="text/csv", headers={"Content-Disposition": name})
    return json_answer(await services.results.table(operation_id, table, limit, cursor), request)


@router.get("/operations/{operation_id}/metrics", response_model=MetricsView)
async def get_metrics(
    operation_id: Id, request: Request, services: Services, cursor: Annotated[int, Query(ge=0)] = 0
) -> Response:
    """Metrics records from ``cursor`` on, under ``epochs`` (training) or ``bars`` (backtests); ask again with
    ``next_cursor``."""
    return json_answer(await services.results.metrics(operation_id, cursor), request)


@router.get("/operations/{operation_id}/logs", response_class=PlainTextResponse)
async def get_logs(
    operation_id: Id,
    services: Services,
    tail: Annotated[int | None, Query(ge=0, le=1_000_000, description="only this many last lines")] = None,
    offset: Annotated[int | None, Query(ge=0, description="only what comes after this many bytes")] = None,
) -> Response:
    """What the operation's jobs printed and logged, all attempts in their order, as text: so far, while it runs, and
    as far as it is known where a worker was lost. `X-Log-Size` is the whole size in bytes: the `offset` with which to
    ask for what comes next."""
    if tail is not None and offset is not None:
        raise InvalidInput("'tail' and 'offset' exclude each other.")
    whole = await services.logs.read(await services.store.get(operation_id))
    shown = whole[offset or 0 :] if tail is None else _last_lines(whole, tail)
    headers = {
        "X-Log-Size": str(len(whole)),
        "Content-Disposition": f'inline; filename="{operation_id}.log"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(shown, media_type="text/plain; charset=utf-8", headers=headers)


def _last_lines(text: bytes, count: int) -> bytes:
    return b"".join(text.splitlines(keepends=True)[-count:]) if count else b""


@router.get("/operations/{operation_id}/spec", response_model=SpecView)
async def get_spec(operation_id: Id, services: Services) -> Response:
    """The resolved specification, in the form that a worker's start route takes."""
    operation = await services.store.get(operation_id)
    spec = await services.store.spec(operation.spec_digest)
    return Response(b'{"spec":' + spec + b"}", media_type="application/json")


@router.get("/operations/{operation_id}/events", response_class=StreamingResponse)
async def get_events(
    operation_id: Id,
    services: Services,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Server-sent events ``operation``, each the whole operation, at every change; the stream ends with it.

    The id names the state, so a client that comes back with ``Last-Event-ID`` gets nothing twice; 204 tells it that
    there is nothing more to come.
    """
    last = None if last_event_id is None else f'"{last_event_id}"'
    now = frame_of(await services.operations.view(operation_id))
    if now.terminal and now.etag == last:
        return Response(status_code=204)
    stream = _events(services, operation_id, last)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _events(services: Backend, operation_id: str, etag: str | None) -> AsyncIterator[bytes]:
    """Each state after ``etag``; whoever reads slowly gets the newest one next, and nothing is kept for him."""
    with services.feeds.watch(operation_id) as feed:
        while True:
            frame = await feed.beyond(etag, services.feeds.heartbeat_s)
            if frame is not None:
                yield frame.event
                if frame.terminal:
                    return
                etag = frame.etag
            elif feed.over:
                return
            else:
                yield b": still here\n\n"


@router.post("/operations/{operation_id}/cancel", response_model=OperationView, status_code=202)
@router.delete("/operations/{operation_id}/cancel", response_model=OperationView, status_code=202)
async def cancel_operation(operation_id: Id, request: Request, services: Services) -> Response:
    """Ask for the operation's end. Answers at once and may be repeated; an operation that has ended stays as it is."""
    return json_answer(await services.operations.cancel(operation_id), request, status=202)


@router.post("/operations/cancel", response_model=OperationsCancelled, status_code=202)
async def cancel_operations(body: CancelOperations, request: Request, services: Services) -> Response:
    """Ask for the end of every operation that fits the filters and was there before the request, a thousand at a time:
    repeat it while the answer says `more`. Answers how many; repeating it is no error."""
    answer = await cancel_many(services.operations, services.clock, body)
    tell(request.scope, body.operation_type or "all", answer.model_dump_json())
    return json_answer(answer, request, status=202)


@router.post("/operations/{operation_id}/retry", response_model=OperationStarted, status_code=202)
async def retry_operation(
    operation_id: Id, request: Request, services: Services, idempotency_key: Key = None
) -> Response:
    """Run a failed or cancelled operation again from its start, as a new one with ``parent_operation_id``."""
    earlier = await services.store.get(operation_id)
    service = _service_of(services, earlier)
    return await started(services, await service.retry(earlier, idempotency_key), request)


@router.post("/operations/{operation_id}/resume", response_model=OperationStarted, status_code=202)
async def resume_operation(
    operation_id: Id, request: Request, services: Services, idempotency_key: Key = None
) -> Response:
    """Go on with a failed or cancelled operation where its newest checkpoint left it, as a new one with
    ``parent_operation_id``; 409 if it has none, then retry it."""
    earlier = await services.store.get(operation_id)
    service = _service_of(services, earlier)
    return await started(services, await service.resume(earlier, idempotency_key), request)


def _service_of(services: Backend, operation: Operation) -> TrainingService | BacktestingService:
    training = operation.operation_type is OperationType.TRAINING
    return services.training if training else services.backtesting


@router.delete("/operations/{operation_id}", status_code=204)
async def delete_operation(operation_id: Id, services: Services) -> None:
    """Forget an operation that has ended."""
    await services.operations.delete(operation_id)
