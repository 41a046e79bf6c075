"""A worker's errors as RFC 9457 problems, and the guard before its routes."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ktrdr import errors
from ktrdr.errors import FieldError, InvalidInput, KtrdrError, NotAuthorised, Unavailable
from ktrdr.logs import about_path
from ktrdr.protocol.hosts import host_of, host_of_origin, is_loopback
from ktrdr.protocol.messages import Problem, ProblemItem
from ktrdr.protocol.not_json import not_json
from ktrdr.protocol.serving import bounded
from ktrdr.workers.credentials import Credentials

__all__ = ["JSON_BODY_CAP", "Guard", "install", "problem_response"]

JSON_BODY_CAP = 4 << 20  # the backend takes requests of 1 MiB; a job's specification holds a bit more

_STATUS: Mapping[type[KtrdrError], tuple[int, str]] = {
    errors.InvalidInput: (422, "The request is not valid"),
    errors.NotFound: (404, "Not found"),
    errors.NotAuthorised: (401, "Not authorised"),
    errors.Forbidden: (403, "Not allowed"),
    errors.Conflict: (409, "Not possible in the present state"),
    errors.Unavailable: (503, "Not possible now"),
    KtrdrError: (500, "Something went wrong"),
}
_log = logging.getLogger(__name__)


def problem_response(error: KtrdrError, instance: str | None = None) -> Response:
    """The HTTP answer to an error of ktrdr's tree."""
    status, title = next(_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS)
    items = error.errors if isinstance(error, InvalidInput) else ()
    problem = Problem(
        type=f"urn:ktrdr:problem:{error.slug}",
        title=title,
        status=status,
        detail=error.message,
        instance=instance,
        errors=[ProblemItem(pointer=i.pointer, message=i.message, line=i.line) for i in items],
    )
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, NotAuthorised):
        headers["WWW-Authenticate"] = "Bearer"
    return _answer(problem, headers)


def _answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, problem.status, media_type="application/problem+json", headers=headers)


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KtrdrError)
    return problem_response(error, request.url.path)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    items = [_fault(fault) for fault in error.errors()]
    first = f"{items[0].pointer or 'the body'}: {items[0].message}" if items else "unknown"
    wrong = InvalidInput(f"The request is not valid; first fault: {first}", items)
    return problem_response(wrong, request.url.path)


def _fault(fault: Mapping[str, Any]) -> FieldError:
    if fault["type"] == "json_invalid":
        return FieldError("", not_json(fault))
    return FieldError("".join(f"/{part}" for part in fault["loc"][1:]), fault["msg"])


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}. The routes are listed at /docs."
    slug = f"urn:ktrdr:problem:http-{error.status_code}"
    problem = Problem(
        type=slug, title=error.detail, status=error.status_code, detail=detail, instance=request.url.path
    )
    return _answer(problem, error.headers)


async def _on_crash(request: Request, error: Exception) -> Response:
    with about_path(request.url.path):
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    told = f"The worker failed on this request ({type(error).__name__}); its log says more. This is a bug."
    problem = Problem(
        type="urn:ktrdr:problem:internal-error",
        title="Internal error",
        status=500,
        detail=told,
        instance=request.url.path,
    )
    return _answer(problem)


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(KtrdrError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_crash)


class Guard:
    """Before every route but ``/health``: a credential where the worker has one, a local Host and Origin where not.

    The second keeps web pages away from a worker that listens on loopback without a credential: a page may send
    simple requests to any address, and read what comes back where a name of its own leads there (DNS rebinding).
    Bodies are read up to ``JSON_BODY_CAP`` and for half a minute.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials) -> None:
        self._app = app
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            refusal = await self._refusal(Headers(scope=scope), (scope.get("server") or ("",))[0])
            if refusal is not None:
                await problem_response(refusal, scope["path"])(scope, receive, send)
                return
        if scope["type"] == "http":
            receive = bounded(receive, JSON_BODY_CAP)
        await self._app(scope, receive, send)

    async def _refusal(self, headers: Headers, server: str) -> KtrdrError | None:
        if not self._credentials.needed:
            host = host_of(headers.get("host", ""))
            origin = headers.get("origin")
            page = host if origin is None else host_of_origin(origin)
            foreign = next((name for name in (host, server or host, page) if not is_loopback(name)), None)
            if foreign is None:
                return None
            return NotAuthorised(
                f"This worker has no token, so it serves local names only, not '{foreign[:100]}'. "
                "Set KTRDR_ENROLMENT_TOKEN where it starts."
            )
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if await self._credentials.admit(shown.strip() if scheme.lower() == "bearer" else ""):
            return None
        return NotAuthorised(
            "This worker needs a token: send 'Authorization: Bearer TOKEN'. It takes what its backend made for it, and "
            "the KTRDR_API_TOKEN with which it was started, if any."
        )
