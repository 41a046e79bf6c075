"""Who may do what, in memory: for tests and simulations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ktrdr.operations.access import MOST_TOKENS, AccessLedger, no_token, token_exists, too_many_tokens
from ktrdr.operations.tokens import TokenRecord

__all__ = ["MemoryAccess"]


class MemoryAccess(AccessLedger):
    """Keeps everything in a dictionary; each method is atomic because none of them awaits."""

    def __init__(self) -> None:
        self._tokens: dict[str, TokenRecord] = {}

    async def add_token(self, token: TokenRecord) -> None:
        if token.name in self._tokens:
            raise token_exists(token.name)
        if len(self._tokens) >= MOST_TOKENS:
            raise too_many_tokens()
        self._tokens[token.name] = token

    async def remove_token(self, name: str) -> TokenRecord:
        if name not in self._tokens:
            raise no_token(name, sorted(self._tokens))
        return self._tokens.pop(name)

    async def tokens(self) -> Sequence[TokenRecord]:
        return tuple(self._tokens[name] for name in sorted(self._tokens))

    async def token_used(self, token_id: str, moment: datetime) -> None:
        for token in self._tokens.values():
            if token.token_id == token_id:
                self._tokens[token.name] = replace(token, last_used_at=moment)
                return
