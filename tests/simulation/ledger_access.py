"""One backend's connection to that part of the ledger's disk which says who may do what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from ktrdr.operations.access import AccessLedger
from ktrdr.operations.tokens import TokenRecord

__all__ = ["ConnectedAccess"]


class ConnectedAccess(AccessLedger):
    """As slow, busy and cut as the rest of the connection, whose ``read`` and ``write`` these are."""

    def __init__(
        self,
        disk: AccessLedger,
        read: Callable[[Callable[[], Any]], Awaitable[Any]],
        write: Callable[[str, Callable[[], Any], str | None], Awaitable[Any]],
    ) -> None:
        self._disk, self._read, self._write = disk, read, write

    async def add_token(self, token: TokenRecord) -> None:
        await self._write("add token", lambda: self._disk.add_token(token), None)

    async def remove_token(self, name: str) -> TokenRecord:
        gone: TokenRecord = await self._write("remove token", lambda: self._disk.remove_token(name), None)
        return gone

    async def tokens(self) -> Sequence[TokenRecord]:
        found: Sequence[TokenRecord] = await self._read(self._disk.tokens)
        return found

    async def token_used(self, token_id: str, moment: datetime) -> None:
        await self._write("token used", lambda: self._disk.token_used(token_id, moment), None)
