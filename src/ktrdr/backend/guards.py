"""Who may ask, and how much they may send: one ASGI middleware before every route."""

from __future__ import annotations

import hmac
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ktrdr.backend.config import BackendConfig, is_loopback
from ktrdr.backend.problems import error_response, problem_response
from ktrdr.errors import NotAuthorised
from ktrdr.logs import about_path
from ktrdr.protocol.messages import Problem
from ktrdr.protocol.serving import bounded, host_of, host_of_origin

__all__ = ["JSON_BODY_CAP", "Guard"]

JSON_BODY_CAP = 1 << 20
_OPEN = ("/health",)
_RAW = re.compile(r"/api/v1/(artifacts/[^/]*|data/import)\Z")  # bodies of any size, streamed
_FOR_WORKERS = re.compile(r"/api/v1/(workers/register|workers/[^/]+/report|artifacts/[^/]*)\Z")


class Guard:
    """Checks each request in this order: Host and Origin (on loopback), credential, content type, body size.

    On loopback the Host must be a local name and an Origin, where a browser sends one, too: a web page the user
    visits can then neither read from the backend (DNS rebinding) nor send to it.
    """

    def __init__(self, app: ASGIApp, config: BackendConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        raw = bool(_RAW.match(scope["path"]))
        refusal = (
            self._foreign(scope, headers)
            or self._unauthorised(scope["path"], headers)
            or (_wrong_type(headers, raw=raw))
            or (None if raw else _too_large(headers))
        )
        with about_path(scope["path"]):
            if refusal is not None:
                await refusal(scope, receive, send)
            else:
                await self._app(scope, receive if raw else bounded(receive, JSON_BODY_CAP), send)

    def _foreign(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        if not self._config.loopback_only:
            return None
        server = (scope.get("server") or ("",))[0]
        if server and _looks_like_address(server) and not is_loopback(server) and not self._config.api_token:
            return _problem(403, "forbidden", "This backend has no token and therefore serves loopback only.")
        host = host_of(headers.get("host", ""))
        if not is_loopback(host):
            return _problem(
                421,
                "foreign-host",
                f"This backend is bound to loopback and is not '{host[:100]}'; use 127.0.0.1 or localhost.",
            )
        origin = headers.get("origin")
        if origin is not None and not is_loopback(host_of_origin(origin)):
            return _problem(
                403, "foreign-origin", f"Requests of pages from '{origin[:100]}' are not accepted."
            )
        return None

    def _unauthorised(self, path: str, headers: Headers) -> ASGIApp | None:
        accepted = [self._config.api_token]
        if _FOR_WORKERS.match(path):
            accepted.append(self._config.worker_token)
        tokens = [token.encode() for token in accepted if token]
        if path in _OPEN or self._config.api_token is None:
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        offered = shown.strip().encode()
        # every token is compared, in constant time each
        if scheme.lower() == "bearer" and any([hmac.compare_digest(offered, token) for token in tokens]):  # noqa: C419
            return None
        return error_response(
            NotAuthorised(
                "This backend needs a token: send 'Authorization: Bearer TOKEN'; "
                "the command line reads it from KTRDR_API_TOKEN."
            ),
            path,
        )


def _looks_like_address(host: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", host))


def _wrong_type(headers: Headers, *, raw: bool) -> ASGIApp | None:
    has_body = headers.get("transfer-encoding") is not None or headers.get("content-length", "0") != "0"
    if not has_body:
        return None
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = "application/octet-stream" if raw else "application/json"
    if kind == wanted:
        return None
    return _problem(415, "unsupported-media-type", f"Content-Type must be {wanted}, not '{kind[:100]}'.")


def _too_large(headers: Headers) -> ASGIApp | None:
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) <= JSON_BODY_CAP:
        return None
    return _problem(
        413, "too-large", f"A JSON body may have up to {JSON_BODY_CAP} bytes, this one has {length}."
    )


def _problem(status: int, slug: str, detail: str) -> ASGIApp:
    return problem_response(
        Problem(
            type=f"urn:ktrdr:problem:{slug}",
            title=slug.replace("-", " ").capitalize(),
            status=status,
            detail=detail,
        )
    )
