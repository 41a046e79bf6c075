"""What routes share: the backend behind the application, answers with ETag, documented problems."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from ktrdr.backend.problems import MEDIA_TYPE
from ktrdr.backend.wiring import Backend
from ktrdr.protocol.etags import etag_of
from ktrdr.protocol.messages import Problem

__all__ = ["PROBLEMS", "Services", "json_answer", "json_bytes", "known_etags"]


async def _backend(request: Request) -> Backend:  # async, as FastAPI would run a plain function on a thread
    backend: Backend = request.app.state.backend
    return backend


Services = Annotated[Backend, Depends(_backend)]
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "An RFC 9457 problem", "content": {MEDIA_TYPE: {}}},
    "5XX": {"model": Problem, "description": "An RFC 9457 problem", "content": {MEDIA_TYPE: {}}},
}


def known_etags(request: Request) -> list[str]:
    """What the client has already, by its If-None-Match."""
    parts = request.headers.get("if-none-match", "").split(",")
    return [part.strip().removeprefix("W/") for part in parts if part.strip()]


def json_answer(
    message: BaseModel, request: Request, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A message as JSON with its ETag; 304 without a body if the client has that one."""
    return json_bytes(message.model_dump_json().encode(), request, status=status, headers=headers)


def json_bytes(
    body: bytes, request: Request, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """The same of a message that is JSON already."""
    etag = etag_of(body)
    sent = {"ETag": etag, "Cache-Control": "no-cache", **(headers or {})}
    if status == 200 and etag in known_etags(request):
        return Response(status_code=304, headers=sent)
    return Response(body, status, media_type="application/json", headers=sent)
