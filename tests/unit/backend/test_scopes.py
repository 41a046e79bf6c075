"""Every route x method with every kind of credential: what the table says, and nothing else."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.routing import Mount

from ktrdr.backend.access.scopes import ROUTES, listed, needed, unlisted
from ktrdr.backend.app import create_app
from ktrdr.backend.config import BackendConfig
from ktrdr.operations.tokens import Scope
from ktrdr.protocol.transports import Answer
from support.control_plane import ControlPlane

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
ALLOWED = {  # a second opinion: the scopes, and what their holders may do
    "read": {Scope.READ},
    "submit": {Scope.READ, Scope.SUBMIT},
    "worker": {Scope.WORKER},
    "admin": set(Scope),
}


@pytest_asyncio.fixture
async def secured(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    plane = ControlPlane(tmp_path)
    plane.config = dataclasses.replace(
        plane.config, api_token="bootstrap-word", worker_token="enrolment-word", loopback_only=False
    )
    async with plane.running():
        yield plane


async def ask(plane: ControlPlane, method: str, path: str, token: str | None) -> Answer:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return await plane.ask(method, path, **headers)


async def made(plane: ControlPlane, name: str, *scopes: str) -> str:
    body = {"name": name, "scopes": list(scopes)}
    answer = await plane.api("POST", "/tokens", body, authorization="Bearer bootstrap-word")
    return str(answer["token"])


def pairs(plane: ControlPlane) -> list[tuple[str, str]]:
    """Every route of the application with every method of HTTP, variable parts filled in."""
    names = listed(create_app(plane.config, backend=plane.backend).routes)
    paths = sorted({re.sub(r"\{[^}]*\}", "x1", name.split(" ")[1]) for name in names})
    return [(method, path) for path in paths for method in METHODS]


async def test_without_a_credential_every_route_but_health_is_refused(secured: ControlPlane) -> None:
    checked = 0
    for method, path in [*pairs(secured), ("GET", "/"), ("GET", "/no/such"), ("POST", "/api/v1/none")]:
        for token in (None, "", "wrong", "bootstrap-wor", "ktrdr_0000000000000000_" + "0" * 64):
            answer = await ask(secured, method, path, token)
            if (method, path) == ("GET", "/health"):
                assert answer.status == 200
                continue
            assert answer.status == 401, (method, path, token)
            assert answer.headers["www-authenticate"].startswith('Bearer realm="ktrdr"')
            assert answer.headers["content-type"] == "application/problem+json"
            problem = json.loads(answer.body)
            assert (problem["status"], problem["type"]) == (401, "urn:ktrdr:problem:not-authorised")
            checked += 1
    assert checked >= 5 * len(METHODS) * 40


@pytest.mark.parametrize("scope", list(Scope))
async def test_each_scope_opens_exactly_its_routes(secured: ControlPlane, scope: Scope) -> None:
    token = await made(secured, f"a-{scope}", scope)
    opened, closed = set(), set()
    for method, path in pairs(secured):
        answer = await ask(secured, method, path, token)
        wanted = needed(method, path)
        assert answer.status != 401, (method, path)
        if wanted is None:
            assert answer.status in (404, 405), (method, path, answer.status)
        elif not wanted or wanted & ALLOWED[scope]:
            assert answer.status != 403, (method, path)
            opened.add(f"{method} {path}")
        else:
            assert answer.status == 403, (method, path, answer.status)
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            problem = json.loads(answer.body)
            assert problem["type"] == "urn:ktrdr:problem:forbidden"
            assert f"'a-{scope}' has the scope" in problem["detail"]
            closed.add(f"{method} {path}")
    assert opened | closed >= {re.sub(r"\{[^}]*\}", "x1", route) for route in ROUTES}
    assert bool(closed) == (scope is not Scope.ADMIN)


def test_the_table_keeps_its_promises() -> None:
    of = {scope: {route for route, wanted in ROUTES.items() if wanted & ALLOWED[scope]} for scope in Scope}
    changing = {route for route in ROUTES if route.split()[0] in ("POST", "PUT", "PATCH", "DELETE")}
    assert of[Scope.READ] & changing == {"POST /api/v1/strategies/validate"}
    assert {route for route, wanted in ROUTES.items() if not wanted} == {"GET /health"}
    assert of[Scope.WORKER] == {
        "POST /api/v1/workers/register",
        "POST /api/v1/workers/{worker_id}/report",
        "HEAD /api/v1/artifacts/{sha256}",
        "GET /api/v1/artifacts/{sha256}",
        "PUT /api/v1/artifacts/{sha256}",
    }
    assert not {route for route in of[Scope.SUBMIT] & changing if "/workers" in route or "/tokens" in route}
    assert not {route for route in of[Scope.SUBMIT] if "/tokens" in route}


def test_no_variable_part_of_a_route_may_contain_a_slash() -> None:
    """A request is looked for among routes with as many slashes: one that is not found there would need no scope."""
    assert [route for route in ROUTES if ":" in route] == []


async def test_what_names_no_route_of_the_table_is_found(plane: ControlPlane) -> None:
    app = create_app(plane.config, backend=plane.backend)
    assert unlisted(app.routes) == []
    app.add_api_route("/api/v1/forgotten", lambda: None, methods=["GET", "POST"])
    app.mount("/files", app=lambda *_: None)
    assert unlisted(app.routes) == ["GET /api/v1/forgotten", "POST /api/v1/forgotten", "Mount /files"]
    assert isinstance(app.routes[-1], Mount)


@pytest.mark.parametrize(
    "path", ["/health/", "/health%2f", "//health", "/health/../api/v1/operations", "/HEALTH"]
)
async def test_nothing_that_resembles_the_open_route_is_open(secured: ControlPlane, path: str) -> None:
    assert (await ask(secured, "GET", path, None)).status == 401


async def test_the_settings_tokens_are_an_administrator_and_a_worker(secured: ControlPlane) -> None:
    assert (await ask(secured, "GET", "/api/v1/tokens", "bootstrap-word")).status == 200
    assert (await ask(secured, "GET", "/api/v1/tokens", "enrolment-word")).status == 403
    assert (await ask(secured, "POST", "/api/v1/workers/register", "enrolment-word")).status == 422


async def test_several_scopes_add_up(secured: ControlPlane) -> None:
    token = await made(secured, "both", "read", "worker")
    assert (await ask(secured, "GET", "/api/v1/operations", token)).status == 200
    assert (await ask(secured, "POST", "/api/v1/workers/register", token)).status == 422
    assert (await ask(secured, "POST", "/api/v1/backtests/start", token)).status == 403


def test_off_loopback_the_bootstrap_token_stays_required(tmp_path: Path) -> None:
    environ = {"KTRDR_HOME": str(tmp_path), "KTRDR_API_TOKEN_FILE": str(tmp_path / "token")}
    (tmp_path / "token").write_text("from-a-file-0123456789\n")
    assert BackendConfig.from_environment("0.0.0.0", environ=environ).api_token == "from-a-file-0123456789"


@pytest.mark.parametrize(
    "end", ["%0A", "%0D%0A", "/", "%2F", "%00", ";x", "%20", "?x", "#x", "%3F", ".json", "//"]
)
async def test_no_ending_of_a_path_changes_what_it_needs(secured: ControlPlane, end: str) -> None:
    token = await made(secured, "reader", "read")
    for route, wanted in ROUTES.items():
        method, path = route.split(" ")
        if Scope.READ in wanted or not wanted:
            continue
        answer = await ask(secured, method, re.sub(r"\{[^}]*\}", "x1", path) + end, token)
        assert answer.status in (403, 404, 405), (route, answer.status)
        anonymous = await ask(secured, method, re.sub(r"\{[^}]*\}", "x1", path) + end, None)
        assert anonymous.status == 401
