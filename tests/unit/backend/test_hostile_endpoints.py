"""Endpoint URLs that would make the backend call somebody else: none gets through, none is called."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.endpoints import check_endpoint
from ktrdr.errors import InvalidInput, KtrdrError, ServerUnreachable
from ktrdr.protocol.transports import AiohttpTransport, Answer, AsgiTransport
from support.control_plane import BACKEND, ControlPlane

URLS = [
    json.loads(line)
    for line in (Path(__file__).parent / "hostile_endpoints.txt").read_text().splitlines()
    if line.startswith('"')
]
LOCAL = (ipaddress.ip_network("127.0.0.0/8"),)


def test_there_are_many_and_each_is_another() -> None:
    assert len(URLS) >= 120
    assert len(set(URLS)) == len(URLS)


@pytest.mark.parametrize("url", URLS)
async def test_a_hostile_endpoint_is_refused_in_words(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await check_endpoint(url, LOCAL)
    message = caught.value.message
    assert message.isprintable()
    assert "word" not in message.replace("password", "")
    assert len(message) < 600
    assert caught.value.errors[0].pointer == "/endpoint_url"


class Watched(AsgiTransport):
    """Collects whom the backend calls."""

    def __init__(self, apps: Mapping[str, Any]) -> None:
        super().__init__(apps)
        self.called: list[str] = []

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        if not url.startswith(BACKEND):
            self.called.append(url)
        return await super().request(method, url, **options)


async def test_the_route_refuses_each_before_it_calls_anybody(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    plane.config = dataclasses.replace(plane.config, networks=LOCAL)
    watched = plane.transport = Watched(plane.apps)
    async with plane.running():
        for url in URLS:
            body = {"worker_id": "w", "worker_type": "backtesting", "instance_id": "i", "endpoint_url": url}
            answer = await plane.ask("POST", "/api/v1/workers/register", body)
            assert answer.status == 422, (url, answer.status)
        assert watched.called == []
        assert (await plane.api("GET", "/workers"))["total"] == 0
        assert (await plane.ask("GET", "/health")).status == 200
        worker = plane.machine("w")  # the watch sees what is called
        await plane.api("POST", "/workers/register", worker.registration())
        assert watched.called == [f"{worker.url}/health"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5003",
        "https://127.0.0.1",
        "HTTP://127.0.0.1:5003/",
        "http://localhost:65535",
        "http://[::ffff:127.0.0.1]:5003",
    ],
)
async def test_plain_ones_are_accepted(url: str) -> None:
    assert await check_endpoint(url, LOCAL)


async def serve(answer: bytes) -> tuple[asyncio.Server, int, list[bytes]]:
    """A server that gives one answer to everything, and what it was asked."""
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4096))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1]), asked


@pytest.fixture
async def canary() -> AsyncIterator[tuple[int, list[bytes]]]:
    server, port, asked = await serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
    yield port, asked
    server.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_nowhere(canary: tuple[int, list[bytes]], status: int) -> None:
    port, asked = canary
    there = (
        f"HTTP/1.1 {status} Moved\r\nlocation: http://127.0.0.1:{port}/secret\r\ncontent-length: 0\r\n\r\n"
    )
    server, at, seen = await serve(there.encode())
    fleet = Fleet(AiohttpTransport(LOCAL), None, 5.0, 5.0)
    with pytest.raises(KtrdrError):
        await fleet.probe(f"http://127.0.0.1:{at}").health()
    assert len(seen) == 1
    assert asked == []
    await fleet.close()
    server.close()


WAYS = [(method, host) for method in ("GET", "POST") for host in ("127.0.0.1", "localhost")]
"""A question to an address goes its own short way, all else through a general client; both are to be tried."""


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("method", "host"), WAYS)
async def test_a_redirect_is_an_answer_like_any_other(
    canary: tuple[int, list[bytes]], method: str, host: str, status: int
) -> None:
    """A start request that went on to where it is sent would take a specification and a credential there."""
    port, asked = canary
    there = (
        f"HTTP/1.1 {status} Moved\r\nlocation: http://127.0.0.1:{port}/secret\r\ncontent-length: 0\r\n\r\n"
    )
    server, at, seen = await serve(there.encode())
    transport = AiohttpTransport(LOCAL)
    answer = await transport.request(method, f"http://{host}:{at}/x", json={} if method == "POST" else None)
    assert (answer.status, len(seen), asked) == (status, 1, [])
    await transport.close()
    server.close()


@pytest.mark.parametrize(("method", "host"), WAYS)
async def test_no_proxy_is_asked(
    canary: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch, method: str, host: str
) -> None:
    port, asked = canary
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server, at, seen = await serve(b"HTTP/1.1 418 OK\r\ncontent-length: 0\r\n\r\n")
    transport = AiohttpTransport(LOCAL)
    answer = await transport.request(method, f"http://{host}:{at}/x", json={} if method == "POST" else None)
    assert (answer.status, len(seen), asked) == (418, 1, [])
    await transport.close()
    server.close()


async def test_a_name_that_leads_elsewhere_at_the_connection_is_not_connected(
    canary: tuple[int, list[bytes]],
) -> None:
    """Checked once at registration, the name may have another address at the next call."""
    port, asked = canary
    transport = AiohttpTransport((ipaddress.ip_network("10.0.0.0/8"),))
    for host in ("localhost", "127.0.0.1", "2130706433", "127.1"):
        with pytest.raises((ServerUnreachable, InvalidInput)):
            await transport.request("GET", f"http://{host}:{port}/health", timeout_s=5)
    assert asked == []
    await transport.close()
