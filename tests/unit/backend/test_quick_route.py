"""The quick way to a route gives what the framework's own way gives."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ktrdr.backend import problems
from ktrdr.backend.routes.quick import LONGEST_KEY, QuickRoute
from ktrdr.protocol.transports import AsgiTransport

Key = Annotated[str | None, Header(max_length=LONGEST_KEY)]


class Wish(BaseModel, extra="forbid"):
    name: str = Field(max_length=3)
    count: int = 1


async def start(body: Wish, request: Request, services: str = "", idempotency_key: Key = None) -> Response:
    return JSONResponse([body.model_dump(), idempotency_key], 202)


def app(route_class: type[APIRoute]) -> FastAPI:
    made, router = FastAPI(), APIRouter(route_class=route_class)
    made.state.backend = "the backend"
    problems.install(made)
    router.add_api_route("/start", start, methods=["POST"], response_model=None)
    made.include_router(router, prefix="/api")
    return made


@pytest.mark.parametrize(
    "body",
    [
        *('{"name": "abc"}', '{"name": "abc", "count": "2"}', '{"name": "abcd"}', '{"name": "a", "more": 1}'),
        *(
            "",
            "{",
            "[]",
            "null",
            "17",
            '{"name": NaN}',
            '{"count": 1e400, "name": "a"}',
            "\ud800",
            "[" * 20_000,
        ),
    ],
)
@pytest.mark.parametrize("key", [None, "k" * LONGEST_KEY, "k" * (LONGEST_KEY + 1)])
async def test_both_ways_answer_alike(body: str, key: str | None) -> None:
    content = body.encode("utf-8", "surrogatepass")
    quick, ordinary = [await _post(app(kind), content, key) for kind in (QuickRoute, APIRoute)]
    assert quick == ordinary
    assert (quick[0] == 202) == (
        body in ('{"name": "abc"}', '{"name": "abc", "count": "2"}') and key != "k" * 201
    )


async def _post(application: FastAPI, content: bytes, key: str | None) -> tuple[int, bytes]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [] if key is None else [(b"idempotency-key", key.encode())]
    scope = {"type": "http", "method": "POST", "path": "/api/start", "headers": headers, "query_string": b""}
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    await application(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], sent[1]["body"]  # type: ignore[return-value]


async def test_the_function_gets_the_backend() -> None:
    async def told(body: Wish, request: Request, services: str = "", idempotency_key: Key = None) -> Response:
        return JSONResponse(services)

    made, router = FastAPI(), APIRouter(route_class=QuickRoute)
    made.state.backend = "the backend"
    router.add_api_route("/start", told, methods=["POST"], response_model=None)
    made.include_router(router)
    transport = AsgiTransport({"http://b": made})
    answer = await transport.request("POST", "http://b/start", json={"name": "a"})
    assert json.loads(answer.body) == "the backend"
