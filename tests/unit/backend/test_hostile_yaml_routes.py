"""Hostile YAML at the routes that take a strategy: 4xx with the fault in words, and the backend lives."""

from __future__ import annotations

import json

from ktrdr.strategies import example_root
from support.control_plane import ControlPlane
from support.hostile_yaml import hostile_documents

DOCUMENTS = hostile_documents((example_root() / "sp500_trend.yaml").read_text())


async def test_each_is_refused_and_the_backend_lives(plane: ControlPlane) -> None:
    for number, (name, text) in enumerate(DOCUMENTS.items()):
        route, body = [
            ("POST /strategies/validate", {"strategy": text}),
            ("PUT /strategies/trap", {"strategy": text}),
            ("POST /trainings/start", {"strategy": text}),
        ][number % 3]
        method, path = route.split()
        answer = await plane.ask(method, f"/api/v1{path}", body)
        assert 400 <= answer.status < 500, (name, answer.status, answer.body[:300])
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.body)["detail"]
        assert len(answer.body) < 2_000_000
    assert (await plane.ask("GET", "/health")).status == 200
    assert (await plane.api("GET", "/operations"))["total"] == 0
    assert not list(plane.config.home.glob("strategies/*"))
