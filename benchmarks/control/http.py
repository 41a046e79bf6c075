"""A small HTTP client written by hand: a library would cost more CPU than the backend that is measured."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "Client", "length_of"]

_KEPT_S = 20.0
_Idle = tuple[float, asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body."""

    status: int
    content: bytes

    def json(self) -> Any:
        """The body, of a 2xx answer only."""
        if self.status // 100 != 2:
            raise RuntimeError(f"answered {self.status}: {self.content[:500].decode()}")
        return json.loads(self.content)


class Client:
    """Requests below ``/api/v1`` on kept-alive connections, as many as are under way at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._idle: list[_Idle] = []

    async def ask(self, method: str, path: str, body: object = None, headers: str = "") -> Answer:
        """One request; OSError if there was no answer. ``headers`` are whole lines with their ends."""
        reader, writer = await self._connection()
        try:
            writer.write(self.request(method, path, body, headers))
            head = await reader.readuntil(b"\r\n\r\n")
            content = await reader.readexactly(length_of(head))
        except (OSError, EOFError) as error:
            writer.close()
            raise ConnectionError(str(error)) from None
        self._idle.append((time.monotonic(), reader, writer))
        return Answer(int(head[9:12]), content)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The one used last, or a new one; the server closes those that were idle for half a minute."""
        while self._idle:
            used_at, reader, writer = self._idle.pop()
            if time.monotonic() - used_at < _KEPT_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def request(self, method: str, path: str, body: object = None, headers: str = "") -> bytes:
        """The request as it is sent."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /api/v1{path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{headers}"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        return f"{head}\r\n".encode() + content

    def close(self) -> None:
        """Close what is idle."""
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()


def length_of(head: bytes) -> int:
    """The content-length in a head; 0 without one."""
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
