"""Requests that are malformed, too long or too slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI, HTTPException, Request

from ktrdr.protocol.serving import PatientProtocol, bounded
from support.eventually import until
from support.virtual import in_virtual_time


class Body:
    """A client that sends these pieces, the last one with ``more_body`` as told, and then nothing."""

    def __init__(self, *pieces: bytes, more: bool = False) -> None:
        self._left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        self._left[-1]["more_body"] = more

    async def __call__(self) -> dict[str, Any]:
        if not self._left:
            await asyncio.sleep(3600)
        return self._left.pop(0)


@in_virtual_time
async def test_a_body_within_the_bounds_passes_and_its_end_is_waited_for() -> None:
    receive = bounded(Body(b"ab", b"cd"), 4, patience_s=0.05)
    assert [(await receive())["body"] for _ in range(2)] == [b"ab", b"cd"]
    waiting = asyncio.create_task(receive())  # for the client's going away, which is no part of the body
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()


async def test_a_body_that_is_too_long() -> None:
    receive = bounded(Body(b"ab", b"cd"), 3)
    await receive()
    with pytest.raises(HTTPException) as refused:
        await receive()
    assert refused.value.status_code == 413


@in_virtual_time
async def test_a_body_that_does_not_arrive() -> None:
    receive = bounded(Body(b"ab", more=True), 100, patience_s=0.05)
    await receive()
    with pytest.raises(HTTPException) as refused:
        await receive()
    assert refused.value.status_code == 408


# --- heads ----------------------------------------------------------------------------------------------------------


class _Hasty(PatientProtocol):
    head_patience_s = 0.3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def _app() -> FastAPI:
    app = FastAPI()

    async def answer(request: Request) -> int:
        return len(await request.body())

    async def slow() -> str:
        await asyncio.sleep(0.8)
        return "slept"

    app.add_api_route("/", answer, methods=["GET", "POST"])
    app.add_api_route("/slow", slow)
    return app


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(_app(), port=0, http=_Hasty, log_config=None, timeout_keep_alive=60)
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


@pytest.mark.parametrize("head", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_head_that_does_not_arrive_ends_the_connection(port: int, head: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()


async def test_requests_one_after_the_other_are_served_and_a_torn_one_ends_it(port: int) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(20):
        writer.write(request % b"/slow")  # longer than the patience with heads
        assert await _answer(reader) == b'"slept"'
        await asyncio.sleep(0.5)  # an idle connection is kept
        for _ in range(2):
            writer.write(request % b"/")
            assert await _answer(reader) == b"0"
        writer.write(b"GET / HTTP")
        assert await reader.read() == b""
    writer.close()


async def test_a_slow_body_is_no_slow_head(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
    await asyncio.sleep(0.6)
    writer.write(b"cd")
    async with asyncio.timeout(20):
        assert await _answer(reader) == b"4"
    writer.close()
