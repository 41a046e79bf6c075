"""A subscriber to an operation's events, as a browser is one: one connection that is read, or is not."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from control.http import Client

__all__ = ["Event", "Subscriber"]

_LONGEST_LINE = 1 << 20
_ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its id, when it came, and the operation in it."""

    event_id: str
    at: float
    operation: dict[str, Any]


@dataclass
class Subscriber:
    """Reads ``/events`` of one operation. ``buffer``: bytes the kernel may hold for it; None: as it likes."""

    url: str
    operation_id: str
    buffer: int | None = None
    keep: bool = False
    events: list[Event] = field(default_factory=list)
    count: int = 0

    async def connect(self) -> socket.socket:
        """Ask for the stream and read nothing."""
        parts, loop = urlsplit(self.url), asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if self.buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        await loop.sock_connect(sock, (parts.hostname, parts.port))
        await loop.sock_sendall(
            sock, Client(self.url).request("GET", f"/operations/{self.operation_id}/events")
        )
        return sock

    async def follow(self) -> int:
        """Read until the operation has ended; the number of events."""
        reader, writer = await asyncio.open_connection(sock=await self.connect(), limit=_LONGEST_LINE)
        try:
            return await self.read(reader)
        finally:
            writer.close()

    async def read(self, reader: asyncio.StreamReader) -> int:
        """Read until the operation has ended or the stream does; the number of events."""
        event_id = ""
        while line := await reader.readline():
            if line.startswith(b"id: "):
                event_id = line[4:].strip().decode()
            elif line.startswith(b"data: "):
                self.count += 1
                operation = json.loads(line[6:])
                if self.keep:
                    self.events.append(Event(event_id, time.perf_counter(), operation))
                if operation["status"] in _ENDED:
                    break
        return self.count
