"""Messages about who may do what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from ktrdr.operations.tokens import Scope
from ktrdr.protocol.messages import Message

__all__ = ["AuditList", "AuditView", "CreateToken", "TokenCreated", "TokenList", "TokenView"]

_TEN_YEARS_S = 10 * 366 * 86_400


class CreateToken(Message):
    """A token to make."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    expires_in_s: Annotated[float | None, Field(gt=0, le=_TEN_YEARS_S, allow_inf_nan=False)] = None


class TokenView(Message):
    """A token as administrators see it; ``last_used_at`` is exact to an hour."""

    name: str
    token_id: str
    scopes: list[Scope]
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None


class TokenCreated(TokenView):
    """The only message that carries a token's text."""

    token: str


class TokenList(Message):
    tokens: list[TokenView]
    total: int
    next_cursor: str | None = None


class AuditView(Message):
    """One request that changed something, or was refused for want of a scope; ``outcome`` is its HTTP status."""

    at: datetime
    who: str
    address: str
    what: str
    subject: str
    outcome: int
    detail: str = ""


class AuditList(Message):
    entries: list[AuditView]
    next_cursor: str | None = None
