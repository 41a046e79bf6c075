"""One kept connection to each of many servers, for short questions: a fleet of thousands is asked how it is every few
seconds, and a general HTTP client costs three times what the question does."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["Lanes", "NotPlain", "Reply", "Unconnected"]

_LONGEST_HEAD = 1 << 16


class NotPlain(Exception):
    """The answer is HTTP that is not read here: not of a stated length, encoded, or too long."""


class Unconnected(OSError):
    """There was no connection, so nothing was sent."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Lanes:
    """Asks ``GET`` questions on connections that are kept for ``kept_s`` after their last use.

    Laws
    ----
    - One question at a time on a connection; the caller sees to it that no host is asked two at once.
    - A question on a kept connection that the server has closed meanwhile is asked again on a new one.
    - What could not be read whole costs the connection.
    """

    def __init__(self, kept_s: float, most_bytes: int) -> None:
        self._kept_s, self._most_bytes = kept_s, most_bytes
        self._lanes: OrderedDict[tuple[str, int], _Lane] = OrderedDict()  # least recently used first

    async def get(self, host: str, port: int, request: bytes, timeout_s: float) -> Reply:
        """Send a whole request and read its answer.

        Raises
        ------
        NotPlain
            If the answer cannot be read here.
        Unconnected
            If there is no connection.
        ConnectionError, TimeoutError
            If the request was sent and no whole answer came.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._tidy()
        lane = self._lanes.pop((host, port), None)
        if lane is not None and not lane.closed:
            try:
                return await self._ask(lane, host, port, request, deadline)
            except ConnectionError:
                if lane.heard:
                    raise
        return await self._ask(await self._connected(host, port, deadline), host, port, request, deadline)

    async def _connected(self, host: str, port: int, deadline: float) -> _Lane:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline):
                _, lane = await loop.create_connection(lambda: _Lane(self._most_bytes), host, port)
        except OSError as error:  # a TimeoutError is one
            raise Unconnected(error.errno, error.strerror or str(error) or "no answer") from error
        return lane

    async def _ask(self, lane: _Lane, host: str, port: int, request: bytes, deadline: float) -> Reply:
        try:
            reply = await lane.ask(request, deadline)
        except BaseException:
            lane.close()
            raise
        if not lane.closed:
            self._lanes[host, port] = lane
        return reply

    def _tidy(self) -> None:
        """Close what was not used for long, or was closed by its server."""
        before = time.monotonic() - self._kept_s
        while self._lanes:
            oldest = next(iter(self._lanes))
            lane = self._lanes[oldest]
            if not lane.closed and lane.used_at >= before:
                return
            del self._lanes[oldest]
            lane.close()

    def close(self) -> None:
        """Close every connection. Idempotent."""
        while self._lanes:
            self._lanes.popitem()[1].close()


class _Lane(asyncio.Protocol):
    """A connection and the question that is under way on it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._read = bytearray()
        self.closed = False
        self.used_at = 0.0

    @property
    def heard(self) -> bool:
        """Whether something of the present answer has come."""
        return bool(self._read)

    async def ask(self, request: bytes, deadline: float) -> Reply:
        """Write a request and read its answer."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        self._answer = answer = loop.create_future()
        self._read.clear()
        self._transport.write(request)
        late = loop.call_at(deadline, self._fail, TimeoutError())
        try:
            reply: Reply = await answer
            return reply
        finally:
            late.cancel()
            self._answer = None
            self.used_at = time.monotonic()

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    # --- what the loop calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self._fail(ConnectionResetError("the connection was closed" if error is None else str(error)))

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked
            return
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            if len(self._read) > _LONGEST_HEAD:
                self._fail(NotPlain("a head without an end"))
            return
        try:
            status, headers, size = self._head(bytes(self._read[:end]))
        except ValueError as error:
            self._fail(NotPlain(str(error)))
            return
        whole = end + 4 + size
        if len(self._read) < whole:
            return
        if len(self._read) > whole or headers.get("connection", "").lower() == "close":
            self.close()
        self._answer.set_result(Reply(status, headers, bytes(self._read[end + 4 : whole])))

    def _head(self, head: bytes) -> tuple[int, dict[str, str], int]:
        """Status, headers and length of the body; raises ValueError for what is not plain."""
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, *_ = first.split(" ")
        if version != "HTTP/1.1" or len(status) != 3 or not status.isdecimal() or status < "200":
            raise ValueError(first)
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", "")
        if not length.isdecimal() or "transfer-encoding" in headers or "content-encoding" in headers:
            raise ValueError("no plain body of a stated length")
        if int(length) > self._most_bytes or len(headers) != len(lines) or status in ("204", "304"):
            raise ValueError("a body that is too long, or headers that say it twice")
        return int(status), headers, int(length)
