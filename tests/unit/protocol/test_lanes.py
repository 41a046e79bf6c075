"""Short questions on kept connections: what a server may answer, and how it may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from ktrdr.errors import NoAnswer, ServerUnreachable
from ktrdr.protocol.lanes import Lanes, NotPlain, Unconnected
from ktrdr.protocol.transports import AiohttpTransport

ASK = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-word: A:b\r\n\r\nok"


@dataclass
class Raw:
    """A server that answers with bytes: of each connection the next piece for each request; None closes it."""

    script: list[list[bytes | None]]
    port: int = 0
    connections: int = 0
    asked: list[bytes] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces = self.script[self.connections] if self.connections < len(self.script) else [OK] * 9
        self.connections += 1
        with suppress(OSError, EOFError):
            for piece in pieces:
                self.asked.append(await reader.readuntil(b"\r\n\r\n"))
                if piece is None:
                    break
                for part in piece.split(b"|"):  # arrives in parts
                    writer.write(part)
                    await asyncio.sleep(0.01)
            else:
                await reader.read()
        writer.close()


@asynccontextmanager
async def serving(*script: list[bytes | None]) -> AsyncIterator[tuple[Raw, Lanes]]:
    raw, lanes = Raw(list(script)), Lanes(25.0, 1000)
    async with await asyncio.start_server(raw.handle, "127.0.0.1", 0) as server:
        raw.port = server.sockets[0].getsockname()[1]
        yield raw, lanes
        lanes.close()
        await asyncio.sleep(0.05)


async def test_questions_share_a_connection() -> None:
    parts = b"HTTP/1.1 404 No|t Found\r\ncontent-le|ngth: 3\r\n\r|\na|bc"
    async with serving([OK, parts, OK]) as (raw, lanes):
        first = await lanes.get("127.0.0.1", raw.port, ASK, 5)
        assert (first.status, first.headers["x-word"], first.body) == (200, "A:b", b"ok")
        second = await lanes.get("127.0.0.1", raw.port, ASK, 5)
        assert (second.status, second.body) == (404, b"abc")
        assert (await lanes.get("127.0.0.1", raw.port, ASK, 5)).body == b"ok"
        assert (raw.connections, raw.asked) == (1, [ASK] * 3)


@pytest.mark.parametrize(
    "last",
    [[OK], [OK.replace(b"\r\nx-word", b"\r\nConnection: Close\r\nx-word")], [OK + b"more"], [OK, None]],
)
async def test_a_connection_that_ended_is_replaced(last: list[bytes | None]) -> None:
    async with serving(last) as (raw, lanes):
        for _ in range(3):
            assert (await lanes.get("127.0.0.1", raw.port, ASK, 5)).body == b"ok"
            if len(last) == 1 and last[0] == OK:
                lanes.close()
        assert raw.connections >= 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"x" * 70_000,
    ],
)
async def test_what_is_not_plain_is_told(answer: bytes) -> None:
    async with serving([answer]) as (raw, lanes):
        with pytest.raises(NotPlain):
            await lanes.get("127.0.0.1", raw.port, ASK, 5)
        assert (await lanes.get("127.0.0.1", raw.port, ASK, 5)).body == b"ok"
        assert raw.connections == 2


@pytest.mark.parametrize(
    ("script", "error", "timeout_s"),
    [
        ([[None]], ConnectionError, 60.0),
        ([[OK, OK[:20], None]], TimeoutError, 0.2),
        ([[OK, OK[:20] + b"|", None], []], TimeoutError, 0.2),
    ],
)
async def test_an_answer_that_does_not_come(
    script: list[list[bytes | None]], error: type[Exception], timeout_s: float
) -> None:
    async with serving(*script) as (raw, lanes):
        if script[0][0] == OK:  # so that the time is not spent on connecting
            assert (await lanes.get("127.0.0.1", raw.port, ASK, 60.0)).body == b"ok"
        with pytest.raises(error):
            await lanes.get("127.0.0.1", raw.port, ASK, timeout_s)


async def test_nobody_there() -> None:
    async with serving() as (raw, _):
        port = raw.port
    lanes = Lanes(25.0, 1000)
    with pytest.raises(Unconnected):
        await lanes.get("127.0.0.1", port, ASK, 5)


async def test_what_was_not_used_for_long_is_closed() -> None:
    async with serving([OK, OK]) as (raw, _):
        lanes = Lanes(0.0, 1000)
        for _ in range(2):
            assert (await lanes.get("127.0.0.1", raw.port, ASK, 5)).body == b"ok"
        assert raw.connections == 2
        lanes.close()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        ([[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] * 9] * 9, b"ok"),
        ([[None]], NoAnswer),
    ],
)
async def test_the_transport_asks_otherwise_or_says_what_happened(
    script: list[list[bytes | None]], seen: bytes | type[Exception]
) -> None:
    transport = AiohttpTransport()
    async with serving(*script) as (raw, _):
        url = f"http://127.0.0.1:{raw.port}/"
        if isinstance(seen, bytes):
            for _ in range(3):
                assert (await transport.request("GET", url, timeout_s=5)).body == seen
            assert raw.connections <= 4, "it is asked the short way once only"
        else:
            with pytest.raises(seen):
                await transport.request("GET", url, timeout_s=5)
        await transport.close()
    with pytest.raises(ServerUnreachable):
        await transport.request("GET", url, timeout_s=5)
    await transport.close()
