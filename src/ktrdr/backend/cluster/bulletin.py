"""What this backend tells the others that share its ledger, and what it hears from them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ktrdr.errors import KtrdrError

__all__ = ["Bulletin", "Told", "heard"]

_log = logging.getLogger("ktrdr.backend")
_GATHER_S = 0.02  # so that a burst of changes is one message
_AT_ONCE = 40  # operations in a message; PostgreSQL takes 8,000 bytes


@dataclass(frozen=True, slots=True)
class Told:
    """One message: ``operations`` whose record changed, whether something is ``pending``, whether ``workers`` changed."""

    operations: Sequence[str] = ()
    pending: bool = False
    workers: bool = False


def heard(news: str) -> Told:
    """A message that was received; one that is none says nothing."""
    try:
        body = json.loads(news)
        return Told(
            [str(name) for name in body.get("operations", ())],
            bool(body.get("pending")),
            bool(body.get("workers")),
        )
    except (ValueError, AttributeError, TypeError):
        return Told()


class Bulletin:
    """Gathers what happened for a moment, then tells it in one message; what cannot be told is left out, because
    everybody looks into the ledger now and then anyway."""

    def __init__(self, tell: Callable[[str], Awaitable[None]]) -> None:
        self._tell = tell
        self._operations: dict[str, None] = {}
        self._pending = self._workers = False
        self._sending: asyncio.Task[None] | None = None

    def changed(self, operation_id: str) -> None:
        """An operation's record changed."""
        self._operations[operation_id] = None
        self._soon()

    def submitted(self) -> None:
        """There is something to dispatch."""
        self._pending = True
        self._soon()

    def workers(self) -> None:
        """Workers came, went or changed."""
        self._workers = True
        self._soon()

    async def close(self) -> None:
        """Tell nothing more."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    def _soon(self) -> None:
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send(), name="bulletin")

    async def _send(self) -> None:
        while self._operations or self._pending or self._workers:
            await asyncio.sleep(_GATHER_S)
            names = list(self._operations)[:_AT_ONCE]
            for name in names:
                del self._operations[name]
            body = {"operations": names, "pending": self._pending, "workers": self._workers}
            self._pending = self._workers = False
            try:
                await self._tell(json.dumps(body))
            except KtrdrError as error:
                _log.debug("The other backends were not told: %s", error)
