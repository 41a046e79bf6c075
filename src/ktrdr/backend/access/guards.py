"""Who may ask, and how much they may send: one ASGI middleware before every route."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ktrdr.backend.access.actions import ACTIONS, recording
from ktrdr.backend.access.doorman import Doorman, check_scope
from ktrdr.backend.access.hosts import foreign
from ktrdr.backend.access.scopes import RouteMatch, matched
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.problems import CHALLENGE, error_response, problem_response
from ktrdr.errors import Forbidden, KtrdrError, NotAuthorised
from ktrdr.logs import about_path
from ktrdr.protocol.hosts import is_address, is_loopback
from ktrdr.protocol.messages import Problem
from ktrdr.protocol.serving import bounded

__all__ = ["JSON_BODY_CAP", "Guard"]

JSON_BODY_CAP = 1 << 20
_QUIET_S = 1.0
_log = logging.getLogger("ktrdr.backend")
_RAW = re.compile(r"/api/v1/(artifacts/(?!gc\Z)[^/]*|data/import)\Z")  # bodies of any size, streamed


class Guard:
    """Checks each request in this order: Host and Origin, credential, content type, body size."""

    def __init__(self, app: ASGIApp, config: BackendConfig, doorman: Doorman | None = None) -> None:
        self._app = app
        self._config = config
        self._doorman = doorman or Doorman(config)
        self._quiet_until, self._unsaid = 0.0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        raw = bool(_RAW.match(scope["path"]))
        found = matched(scope["method"], scope["path"])
        refusal = self._foreign(scope, headers) or await self._unknown(scope, headers, found)
        if refusal is None:
            send = self._recorded(scope, found, send)
            refusal = (
                self._unauthorised(scope, found)
                or _wrong_type(headers, scope["path"], raw=raw)
                or (None if raw else _too_large(headers, scope["path"]))
            )
        with about_path(scope["path"]):
            if refusal is not None:
                await refusal(scope, receive, send)
            else:
                await self._app(scope, receive if raw else bounded(receive, JSON_BODY_CAP), send)

    def _recorded(self, scope: Scope, found: RouteMatch | None, send: Send) -> Send:
        log = self._doorman.audit
        if log is None or found is None or found.route not in ACTIONS:
            return send
        return recording(log, scope, found.route, found.variables, send)

    def _foreign(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        server = (scope.get("server") or ("",))[0]
        exposed = is_address(server) and not is_loopback(
            server
        )  # loopback by a name that now leads elsewhere
        if exposed and self._config.loopback_only and not self._config.api_token:
            told = "This backend has no token and therefore serves loopback only."
            return _problem(403, "forbidden", told, scope["path"])
        fault = foreign(self._config, headers.get("host", ""), headers.get("origin"))
        return (
            None if fault is None else problem_response(fault.model_copy(update={"instance": scope["path"]}))
        )

    async def _unknown(self, scope: Scope, headers: Headers, found: RouteMatch | None) -> ASGIApp | None:
        """Find out who asks. Where there is no route, any credential will do: the router says that there is none."""
        if found is not None and not found.scopes:
            return None
        path, shown = scope["path"], headers.get("authorization", "")
        try:
            principal = await self._doorman.principal(shown)
        except NotAuthorised as error:
            self._complain(scope)
            return error_response(
                error, path, challenge=f'{CHALLENGE}, error="invalid_token"' if shown else CHALLENGE
            )
        except KtrdrError as error:
            return error_response(error, path)
        scope.setdefault("state", {})["principal"] = principal
        return None

    def _complain(self, scope: Scope) -> None:
        """Log who came without a valid token, at most a line a second: whoever tries must not fill the disk."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last line)" if self._unsaid else ""
        self._quiet_until, self._unsaid = now + _QUIET_S, 0
        address = (scope.get("client") or ("?",))[0]
        _log.warning(
            "%s %s from %s was refused: no valid token%s",
            scope["method"],
            ascii(scope["path"])[:120],
            address,
            more,
        )

    def _unauthorised(self, scope: Scope, found: RouteMatch | None) -> ASGIApp | None:
        """Whether the route is theirs."""
        if found is None or not found.scopes:
            return None
        try:
            check_scope(scope["state"]["principal"], found.scopes)
        except Forbidden as error:
            which = " ".join(sorted(found.scopes))
            challenge = f'{CHALLENGE}, error="insufficient_scope", scope="{which}"'
            return error_response(error, scope["path"], challenge=challenge)
        return None


def _wrong_type(headers: Headers, path: str, *, raw: bool) -> ASGIApp | None:
    has_body = headers.get("transfer-encoding") is not None or headers.get("content-length", "0") != "0"
    if not has_body:
        return None
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    wanted = "application/octet-stream" if raw else "application/json"
    if kind == wanted:
        return None
    told = f"Content-Type must be {wanted}, not '{kind[:100]}'."
    return _problem(415, "unsupported-media-type", told, path)


def _too_large(headers: Headers, path: str) -> ASGIApp | None:
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) <= JSON_BODY_CAP:
        return None
    told = f"A JSON body may have up to {JSON_BODY_CAP} bytes, this one has {length}."
    return _problem(413, "too-large", told, path)


def _problem(status: int, slug: str, detail: str, path: str) -> ASGIApp:
    return problem_response(
        Problem(
            type=f"urn:ktrdr:problem:{slug}",
            title=slug.replace("-", " ").capitalize(),
            status=status,
            detail=detail,
            instance=path,
        )
    )
