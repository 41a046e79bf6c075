"""Whoever refuses a request, middleware or route, says so in one shape (RFC 9457), with the address that was asked."""

from __future__ import annotations

import pytest

from ktrdr.protocol.transports import Answer
from support.control_plane import BACKEND, ControlPlane

API = "/api/v1"
START, ARTIFACT = f"{API}/trainings/start", f"{API}/artifacts/{'a' * 64}"
BINARY = {"content-type": "application/octet-stream"}
REFUSED: list[tuple[int, str, str, dict[str, str]]] = [
    (403, "GET", f"{API}/operations", {"origin": "http://evil.example"}),
    (404, "GET", "/nowhere", {}),
    (404, "GET", f"{API}/operations/absent", {}),
    (405, "PUT", f"{API}/operations", {}),
    (411, "PUT", ARTIFACT, BINARY | {"transfer-encoding": "chunked", "content-length": ""}),
    (413, "PUT", ARTIFACT, BINARY | {"content-length": str(1 << 50)}),
    (413, "POST", START, {"content-type": "application/json", "content-length": str(1 << 21)}),
    (415, "POST", START, {"content-type": "text/plain", "content-length": "2"}),
    (421, "GET", f"{API}/operations", {"host": "evil.example"}),
    (422, "GET", f"{API}/operations?limit=0", {}),
    (422, "GET", f"{API}/operations?simbol=x", {}),
    (422, "GET", f"{API}/artifacts/x", {}),
]


def _is_whole(answer: Answer, status: int, path: str) -> None:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body.keys() == {"type", "title", "status", "detail", "instance", "errors"}
    assert body["type"].startswith("urn:ktrdr:problem:")
    assert body["title"]
    assert body["detail"]
    assert (answer.status, body["status"], body["instance"]) == (status, status, path.partition("?")[0])


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"), REFUSED, ids=[f"{r[0]} {r[1]} {r[2][:30]}" for r in REFUSED]
)
async def test_every_refusal_has_the_whole_shape(
    plane: ControlPlane, status: int, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await plane.transport.request(method, f"{BACKEND}{path}", headers=headers)
    _is_whole(answer, status, path)


async def test_so_has_one_for_want_of_workers(plane: ControlPlane) -> None:
    await plane.api("POST", "/data/samples")
    _is_whole(await plane.ask("POST", START, {"strategy_name": "sp500_trend"}), 503, START)
