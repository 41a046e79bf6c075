"""The part of the ledger that says who may do what; implementations stand beside the stores of operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from ktrdr.errors import Conflict, NotFound
from ktrdr.operations.tokens import TokenRecord

__all__ = ["MOST_TOKENS", "AccessLedger", "no_token", "token_exists", "too_many_tokens"]

MOST_TOKENS = 1000


class AccessLedger(ABC):
    """Tokens.

    Laws
    ----
    - A method that changes something has made it durable when it returns (except in memory).
    - A name belongs to one token at a time, and there are at most ``MOST_TOKENS``.
    - A revoked token is gone; its name may be given again.
    """

    @abstractmethod
    async def add_token(self, token: TokenRecord) -> None:
        """Raises Conflict if the name is taken or there are too many."""

    @abstractmethod
    async def remove_token(self, name: str) -> TokenRecord:
        """Forget a token and return what it was; raises NotFound."""

    @abstractmethod
    async def tokens(self) -> Sequence[TokenRecord]:
        """All of them, by name."""

    @abstractmethod
    async def token_used(self, token_id: str, moment: datetime) -> None:
        """Note the last use; a token that is gone is no error."""


def no_token(name: str, valid: Sequence[str]) -> NotFound:
    """Nothing is called so."""
    return NotFound("token", name, valid=valid, hint="'ktrdr tokens list' shows what there is")


def token_exists(name: str) -> Conflict:
    """A name belongs to one token at a time."""
    return Conflict(
        f"There is a token '{name}' already. Revoke it first (ktrdr tokens revoke {name}), or choose another name."
    )


def too_many_tokens() -> Conflict:
    """A limit, so that nothing grows without bound."""
    return Conflict(
        f"There are {MOST_TOKENS} tokens, which is the limit. Revoke some: ktrdr tokens list shows when each was used last."
    )
