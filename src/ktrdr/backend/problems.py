"""Errors as RFC 9457 problems: the one table from ktrdr's error tree to HTTP."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from ktrdr import errors
from ktrdr.errors import InvalidInput, KtrdrError, Unavailable
from ktrdr.logs import about_path
from ktrdr.protocol.messages import Problem, ProblemItem
from ktrdr.protocol.not_json import not_json

__all__ = [
    "CHALLENGE",
    "MEDIA_TYPE",
    "STATUS",
    "error_response",
    "install",
    "problem_of",
    "problem_response",
    "status_of",
]

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="ktrdr"'
STATUS: Mapping[type[KtrdrError], int] = {
    KtrdrError: 500,
    errors.InvalidInput: 422,
    errors.NotFound: 404,
    errors.NotAuthorised: 401,
    errors.Forbidden: 403,
    errors.Conflict: 409,
    errors.Unavailable: 503,
    errors.ServerUnreachable: 502,
    errors.CorruptArtifact: 500,
    errors.OperationFailed: 409,
    errors.Cancelled: 409,
}
"""Statuses of the tree's branches; a class that is not listed has that of its nearest listed parent."""

_TITLES: Mapping[type[KtrdrError], str] = {
    errors.InvalidInput: "The request is not valid",
    errors.InvalidStrategy: "The strategy is not valid",
    errors.InvalidBars: "The market data is not valid",
    errors.TooFewBars: "There are too few bars",
    errors.InvalidModel: "The model cannot be used",
    errors.NotFound: "Not found",
    errors.NotAuthorised: "Not authorised",
    errors.Forbidden: "Not allowed",
    errors.Conflict: "Not possible in the present state",
    errors.Unavailable: "Not possible now",
    errors.NotLeader: "This backend does not lead",
    errors.Overloaded: "Too much at once",
    errors.NoWorkers: "No workers available",
    errors.CorruptArtifact: "Stored bytes are damaged",
}
_FULL_OR_FORBIDDEN = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.EMFILE, errno.ENFILE),
}
_MAKE_ROOM_S = 30.0
_SLUGS = {  # statuses that are the framework's own
    401: "not-authorised",
    404: "not-found",
    409: "conflict",
    422: "invalid-input",
    503: "unavailable",
}
_LONGEST_VALUE = 60
_log = logging.getLogger("ktrdr.backend")


def status_of(error: KtrdrError) -> int:
    """The HTTP status of an error, by its class or the nearest parent in the table."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def problem_of(error: KtrdrError, instance: str | None = None) -> Problem:
    """The error as a problem; the detail is its message, ``errors`` the faults it carries."""
    items = error.errors if isinstance(error, InvalidInput) else ()
    title = next((_TITLES[cls] for cls in type(error).__mro__ if cls in _TITLES), "Something went wrong")
    return Problem(
        type=f"urn:ktrdr:problem:{error.slug}",
        title=title,
        status=status_of(error),
        detail=error.message,
        instance=instance,
        errors=[
            ProblemItem(pointer=i.pointer, message=i.message, line=i.line, column=i.column) for i in items
        ],
    )


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The HTTP answer that carries a problem."""
    return Response(
        problem.model_dump_json(exclude_none=True), problem.status, media_type=MEDIA_TYPE, headers=headers
    )


def error_response(error: KtrdrError, instance: str | None = None, *, challenge: str = CHALLENGE) -> Response:
    """The HTTP answer to an error, with Retry-After and WWW-Authenticate (``challenge``) where they belong."""
    headers: dict[str, str] = {}
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if isinstance(error, errors.NotAuthorised):
        headers["WWW-Authenticate"] = challenge
    return problem_response(problem_of(error, instance), headers)


def _pointer(location: Sequence[str | int]) -> str:
    """FastAPI's location as a JSON pointer into the body, or ``query/name`` and the like elsewhere."""
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location]
    if parts and parts[0] == "body":
        return "".join(f"/{part}" for part in parts[1:])
    return "/".join(parts)


def _where(fault: Mapping[str, Any]) -> str:
    return "" if fault["type"] == "json_invalid" else _pointer(fault["loc"])


def _said(fault: Mapping[str, Any]) -> str:
    """What is accepted, and the offending value where it is a short plain one."""
    if fault["type"] == "json_invalid":
        return not_json(fault)
    message, value = str(fault["msg"]), fault.get("input")
    plain = isinstance(value, str | int | float) and fault["type"] != "extra_forbidden"
    return f"{message}, got {value!r}" if plain and len(repr(value)) <= _LONGEST_VALUE else message


async def _on_ktrdr_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, KtrdrError)
    if status_of(error) >= 500 and not isinstance(error, Unavailable):
        with about_path(request.url.path):
            _log.error("%s %s: %s", request.method, request.url.path, error)
    return error_response(error, request.url.path)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    items = [ProblemItem(pointer=_where(e), message=_said(e)) for e in error.errors()]
    count = f"{len(items)} fault{'s' if len(items) > 1 else ''}"
    first = f"{items[0].pointer or 'the body'}: {items[0].message}" if items else ""
    return problem_response(
        Problem(
            type="urn:ktrdr:problem:invalid-input",
            title="The request is not valid",
            status=422,
            detail=f"The request has {count}; the first: {first}",
            instance=request.url.path,
            errors=items,
        )
    )


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404 and detail == "Not Found":
        detail = f"There is no route {request.url.path}. The routes are listed at /docs."
    headers = error.headers
    if error.status_code == 405:
        allowed = ", ".join(_methods_of(request)) or (headers or {}).get("Allow", "")
        headers = {**(headers or {}), "Allow": allowed}
        detail = f"{request.url.path} does not take {request.method}" + (
            f"; it takes {allowed}." if allowed else "."
        )
    problem = Problem(
        type=f"urn:ktrdr:problem:{_SLUGS.get(error.status_code, 'http-' + str(error.status_code))}",
        title=HTTPStatus(error.status_code).phrase,
        status=error.status_code,
        detail=detail,
        instance=request.url.path,
    )
    return problem_response(problem, headers)


def _methods_of(request: Request) -> list[str]:
    """Every method that the path takes; the framework names those of the first route only.

    A path that is written out (``/workers/register``) is not the parameter of another one.
    """
    paths: Mapping[str, Mapping[str, object]] = request.app.openapi()["paths"]
    path = request.url.path
    fitting = [path] if path in paths else [p for p in paths if compile_path(p)[0].fullmatch(path)]
    return sorted({method.upper() for name in fitting for method in paths[name]})


async def _on_system(request: Request, error: Exception) -> Response:
    """A full or read-only disk and the like: no fault of the request, and over once somebody makes room."""
    assert isinstance(error, OSError)
    if error.errno not in _FULL_OR_FORBIDDEN:
        return await _on_crash(request, error)
    with about_path(request.url.path):
        _log.error("%s %s: %s", request.method, request.url.path, error)
    place = f" ({error.filename})" if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "Free some space there" if full else "Mend that at the backend"
    told = f"The backend's machine refused: {error.strerror}{place}. Nothing was changed. {advice}, then try again."
    return error_response(Unavailable(told, _MAKE_ROOM_S), request.url.path)


async def _on_crash(request: Request, error: Exception) -> Response:
    with about_path(request.url.path):
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem_response(
        Problem(
            type="urn:ktrdr:problem:internal-error",
            title="Internal error",
            status=500,
            detail=f"The backend failed on this request ({type(error).__name__}); its log says more. This is a bug.",
            instance=request.url.path,
        )
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem."""
    app.add_exception_handler(KtrdrError, _on_ktrdr_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(OSError, _on_system)
    app.add_exception_handler(Exception, _on_crash)
