"""A small HTTP client written by hand: a library would cost more CPU than the backend that is measured."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Answer", "Client", "length_of"]


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
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: object = None, headers: str = "") -> Answer:
        """One request; OSError if there was no answer. ``headers`` are whole lines with their ends."""
        pair = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        reader, writer = pair
        try:
            writer.write(self.request(method, path, body, headers))
            head = await reader.readuntil(b"\r\n\r\n")
            content = await reader.readexactly(length_of(head))
        except (OSError, EOFError) as error:
            writer.close()
            raise ConnectionError(str(error)) from None
        self._idle.append(pair)
        return Answer(int(head[9:12]), content)

    def request(self, method: str, path: str, body: object = None, headers: str = "") -> bytes:
        """The request as it is sent."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} /api/v1{path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n{headers}"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
        return f"{head}\r\n".encode() + content

    def close(self) -> None:
        """Close what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


def length_of(head: bytes) -> int:
    """The content-length in a head; 0 without one."""
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
