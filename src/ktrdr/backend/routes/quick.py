"""Routes that are asked hundreds of times a second: the framework's way to a function's arguments costs more than
what the function does."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response

__all__ = ["LONGEST_KEY", "QuickRoute"]

LONGEST_KEY = 200
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class QuickRoute(APIRoute):
    """A POST to a function ``(body, request, services, idempotency_key)`` that answers with a Response.

    What is plainly right goes straight to the function; whatever else there is goes the framework's way, which finds
    out and says what is wrong. So answers are the same, and so is the documentation.
    """

    def get_route_handler(self) -> _Handler:
        careful = super().get_route_handler()
        answer: Callable[..., Awaitable[Response]] = self.endpoint
        message: type[BaseModel] = get_type_hints(self.endpoint)["body"]

        async def handle(request: Request) -> Response:
            try:
                content = await request.body()  # kept, so that the careful way reads it again
            except ClientDisconnect:  # it left in the middle; nobody hears the answer
                return Response(status_code=400)
            key = request.headers.get("idempotency-key")
            if request.scope["query_string"] or (key is not None and len(key) > LONGEST_KEY):
                return await careful(request)
            try:
                body = message.model_validate(json.loads(content))
            except (ValueError, RecursionError):  # the latter: nested too deeply
                return await careful(request)
            return await answer(body, request, request.app.state.backend, key)

        return handle
