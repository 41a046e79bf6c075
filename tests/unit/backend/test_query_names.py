"""Query parameters that a route does not have are refused, at every route."""

from __future__ import annotations

import re

import pytest

from ktrdr.backend.access.scopes import listed
from ktrdr.backend.app import create_app
from support.control_plane import ControlPlane

_FRAMEWORKS_OWN = {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}


async def test_a_misspelt_filter_does_not_answer_with_everything(plane: ControlPlane) -> None:
    answer = await plane.ask("GET", "/api/v1/operations?statuss=running")
    assert (answer.status, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert [fault["pointer"] for fault in problem["errors"]] == ["query/statuss"]
    assert "it takes cursor, limit, operation_type, status, worker_id" in problem["detail"]
    assert "did you mean 'status'?" in problem["detail"]


async def test_each_route_refuses_what_it_does_not_know(plane: ControlPlane) -> None:
    routes = set(listed(create_app(plane.config, backend=plane.backend).routes))
    asked = sorted(route for route in routes if route.split(" ")[1] not in _FRAMEWORKS_OWN)
    assert len(asked) > 40
    for route in asked:
        method, path = re.sub(r"\{[^}]*\}", "x1", route).split(" ")
        body = {"strategy_name": "x1"} if path.endswith("/start") else None
        answer = await plane.ask(method, f"{path}?no_such=1", body)
        assert answer.status == 422, route
        if method != "HEAD":
            assert "query/no_such" in [fault["pointer"] for fault in answer.json()["errors"]], route


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("status=running&status=pending", 200),
        ("limit=1&limit=2", 422),
        ("Limit=1", 422),
        ("worker_id=", 200),
        ("=1", 422),
        ("x", 422),
        ("&&", 200),
        ("%ff=1", 422),
        ("~/=1", 422),
    ],
)
async def test_names_and_how_often(plane: ControlPlane, query: str, status: int) -> None:
    assert (await plane.ask("GET", f"/api/v1/operations?{query}")).status == status


async def test_each_fault_is_told_but_not_without_end(plane: ControlPlane) -> None:
    answer = await plane.ask("GET", "/api/v1/queue?a=1&b=2&" + "&".join(f"n{i}=1" for i in range(50)))
    problem = answer.json()
    assert problem["detail"].startswith("The request has 52 faults; the first: query/a: ")
    assert "it takes none" in problem["detail"]
    assert len(problem["errors"]) == 10
    twice = (await plane.ask("GET", "/api/v1/operations?limit=1&limit=2")).json()
    assert twice["errors"][0]["message"] == "is there 2 times; /api/v1/operations takes it once."
