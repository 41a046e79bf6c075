"""The laws of :class:`ktrdr.operations.access.AccessLedger` as tests that every implementation inherits."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from ktrdr.errors import Conflict, NotFound
from ktrdr.operations import access
from ktrdr.operations.store import OperationStore
from ktrdr.operations.tokens import Scope, TokenRecord
from ktrdr.testing.operations import T0

__all__ = ["AccessLedgerContract", "a_token"]


def a_token(name: str = "ci", **changes: Any) -> TokenRecord:
    """A record as good as any."""
    facts: dict[str, Any] = {
        "token_id": name.encode().hex()[:16].ljust(16, "0"),
        "name": name,
        "scopes": (Scope.READ, Scope.WORKER),
        "digest": "d" * 64,
        "created_at": T0,
        "created_by": "bootstrap",
    }
    return TokenRecord(**facts | changes)


class AccessLedgerContract:
    """Inherit and provide the fixture ``store``: an async fixture that yields an empty store and closes it."""

    async def test_a_token_comes_back_as_it_was_recorded(self, store: OperationStore) -> None:
        whole = a_token("b", expires_at=T0 + timedelta(days=1), last_used_at=T0 + timedelta(microseconds=1))
        plain = a_token("a")
        for token in (whole, plain):
            await store.access.add_token(token)
        assert list(await store.access.tokens()) == [plain, whole]

    async def test_a_name_belongs_to_one_token_at_a_time(self, store: OperationStore) -> None:
        ledger = store.access
        outcomes = await asyncio.gather(
            *(ledger.add_token(a_token("ci", token_id=f"{i:016x}")) for i in range(5)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert len(refused) == 4
        assert all(isinstance(error, Conflict) for error in refused)
        (first,) = await ledger.tokens()
        assert await ledger.remove_token("ci") == first
        await ledger.add_token(a_token("ci"))
        assert await ledger.tokens() == (a_token("ci"),)

    async def test_what_is_not_there_cannot_be_revoked(self, store: OperationStore) -> None:
        await store.access.add_token(a_token("laptop"))
        with pytest.raises(NotFound, match="did you mean 'laptop'"):
            await store.access.remove_token("laptpo")

    async def test_the_last_use_is_kept(self, store: OperationStore) -> None:
        token = a_token()
        await store.access.add_token(token)
        await store.access.token_used(token.token_id, T0 + timedelta(hours=3))
        await store.access.token_used("0" * 16, T0)  # gone meanwhile: no error
        assert (await store.access.tokens())[0].last_used_at == T0 + timedelta(hours=3)

    async def test_there_is_a_limit(self, store: OperationStore) -> None:
        many = (a_token(f"t{number}", token_id=f"{number:016x}") for number in range(access.MOST_TOKENS))
        await asyncio.gather(*(store.access.add_token(token) for token in many))
        with pytest.raises(Conflict, match="1000 tokens, which is the limit"):
            await store.access.add_token(a_token("one-more"))
