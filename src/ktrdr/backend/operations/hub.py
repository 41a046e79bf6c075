"""Who waits for news of which operation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Hub"]


class Hub:
    """Wakes the waiting polls and event streams of one operation; carries no data, readers look at the ledger."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Event, None]] = {}  # in the order in which they came
        self.closed = asyncio.Event()

    @contextmanager
    def listen(self, operation_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change; the reader clears it before it looks."""
        event = asyncio.Event()
        self._waiting.setdefault(operation_id, {})[event] = None
        try:
            yield event
        finally:
            waiting = self._waiting[operation_id]
            del waiting[event]
            if not waiting:
                del self._waiting[operation_id]

    def changed(self, operation_id: str) -> None:
        """The operation's record changed."""
        for event in self._waiting.get(operation_id, ()):
            event.set()

    def close(self) -> None:
        """The server stops: everybody wakes and ``closed`` is set."""
        self.closed.set()
        for events in self._waiting.values():
            for event in events:
                event.set()
