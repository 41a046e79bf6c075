"""What each route needs: the one table. The application does not start with a route that is not in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from starlette.routing import BaseRoute, Route, compile_path

from ktrdr.operations.tokens import Scope

__all__ = ["ROUTES", "RouteMatch", "listed", "matched", "needed", "unlisted"]

_READ, _SUBMIT, _WORKER, _ADMIN = (
    frozenset({Scope.READ}),
    frozenset({Scope.SUBMIT}),
    frozenset({Scope.WORKER}),
    frozenset({Scope.ADMIN}),
)
_FILES = frozenset({Scope.READ, Scope.WORKER})
_NOTHING: frozenset[Scope] = frozenset()

ROUTES: Mapping[str, frozenset[Scope]] = {
    "GET /health": _NOTHING,
    "GET /metrics": _READ,
    "GET /docs": _READ,
    "HEAD /docs": _READ,
    "GET /docs/oauth2-redirect": _READ,
    "HEAD /docs/oauth2-redirect": _READ,
    "GET /redoc": _READ,
    "HEAD /redoc": _READ,
    "GET /openapi.json": _READ,
    "HEAD /openapi.json": _READ,
    "POST /api/v1/workers/register": _WORKER,
    "POST /api/v1/workers/{worker_id}/report": _WORKER,
    "GET /api/v1/workers": _READ,
    "GET /api/v1/workers/{worker_id}": _READ,
    "POST /api/v1/workers/{worker_id}/drain": _ADMIN,
    "POST /api/v1/workers/{worker_id}/undrain": _ADMIN,
    "DELETE /api/v1/workers/{worker_id}": _ADMIN,
    "GET /api/v1/metrics/workers": _READ,
    "GET /api/v1/metrics/prometheus": _READ,
    "POST /api/v1/backtests/start": _SUBMIT,
    "POST /api/v1/trainings/start": _SUBMIT,
    "POST /api/v1/training/start": _SUBMIT,
    "GET /api/v1/operations": _READ,
    "GET /api/v1/operations/{operation_id}": _READ,
    "GET /api/v1/operations/{operation_id}/results": _READ,
    "GET /api/v1/operations/{operation_id}/results/{table}": _READ,
    "GET /api/v1/operations/{operation_id}/metrics": _READ,
    "GET /api/v1/operations/{operation_id}/logs": _READ,
    "GET /api/v1/operations/{operation_id}/spec": _READ,
    "GET /api/v1/operations/{operation_id}/events": _READ,
    "POST /api/v1/operations/{operation_id}/cancel": _SUBMIT,
    "DELETE /api/v1/operations/{operation_id}/cancel": _SUBMIT,
    "POST /api/v1/operations/cancel": _ADMIN,
    "POST /api/v1/operations/{operation_id}/retry": _SUBMIT,
    "POST /api/v1/operations/{operation_id}/resume": _SUBMIT,
    "DELETE /api/v1/operations/{operation_id}": _SUBMIT,
    "GET /api/v1/queue": _READ,
    "POST /api/v1/queue/pause": _ADMIN,
    "POST /api/v1/queue/unpause": _ADMIN,
    "GET /api/v1/data": _READ,
    "POST /api/v1/data/samples": _SUBMIT,
    "POST /api/v1/data/import": _SUBMIT,
    "GET /api/v1/data/{symbol}/{timeframe}": _READ,
    "DELETE /api/v1/data/{symbol}/{timeframe}": _ADMIN,
    "GET /api/v1/models": _READ,
    "GET /api/v1/models/{model_id}": _READ,
    "GET /api/v1/models/{model_id}/signal": _READ,
    "GET /api/v1/strategies": _READ,
    "POST /api/v1/strategies/validate": _READ,
    "GET /api/v1/strategies/{name}": _READ,
    "PUT /api/v1/strategies/{name}": _SUBMIT,
    "GET /api/v1/indicators": _READ,
    "HEAD /api/v1/artifacts/{sha256}": _FILES,
    "GET /api/v1/artifacts/{sha256}": _FILES,
    "PUT /api/v1/artifacts/{sha256}": _WORKER,
    "POST /api/v1/artifacts/gc": _ADMIN,
    "GET /api/v1/audit": _ADMIN,
    "GET /api/v1/tokens": _ADMIN,
    "POST /api/v1/tokens": _ADMIN,
    "DELETE /api/v1/tokens/{name}": _ADMIN,
}
"""Method and path of each route to the scopes of which one is needed; an empty set needs no credential at all."""


class RouteMatch(NamedTuple):
    """A route of the table that a request is for: its name there, its scopes, and the path's variable parts."""

    route: str
    scopes: frozenset[Scope]
    variables: Mapping[str, str]


def _compiled() -> dict[tuple[str, int], list[tuple[re.Pattern[str], str]]]:
    """By method and number of slashes, which no variable part contains; names without a variable part first. The
    patterns are the router's own, so that both always see the same route: a path that the router takes for it and this
    table does not would open to every credential."""
    found: dict[tuple[str, int], list[tuple[re.Pattern[str], str]]] = {}
    for route in sorted(ROUTES, key=lambda route: "{" in route):
        method, path = route.split(" ")
        found.setdefault((method, path.count("/")), []).append((compile_path(path)[0], route))
    return found


_PATTERNS = _compiled()


def matched(method: str, path: str) -> RouteMatch | None:
    """The table's line for a request; None where there is no such route, so that nothing can happen."""
    for pattern, route in _PATTERNS.get((method, path.count("/")), ()):
        if found := pattern.match(path):
            return RouteMatch(route, ROUTES[route], found.groupdict())
    return None


def needed(method: str, path: str) -> frozenset[Scope] | None:
    """Scopes of which the request needs one; None where there is no such route."""
    found = matched(method, path)
    return None if found is None else found.scopes


def listed(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[str]:
    """``METHOD /path`` of each plain route, also inside included routers; what is none is named by its type."""
    for route in routes:
        included = getattr(route, "original_router", None)  # as newer versions of FastAPI keep them
        if isinstance(route, Route):
            yield from (f"{method} {prefix}{route.path}" for method in sorted(route.methods or ()))
        elif included is not None:
            yield from listed(included.routes, prefix + getattr(route, "include_context").prefix)  # noqa: B009
        else:
            yield f"{type(route).__name__} {prefix}{getattr(route, 'path', '')}"


def unlisted(routes: Iterable[BaseRoute]) -> list[str]:
    """Routes of an application that are not in the table; anything that is not a plain route is named too."""
    return [name for name in listed(routes) if name not in ROUTES]
