"""Who may do what, in SQL: statements that a store runs on its own connections."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from ktrdr.operations.access import MOST_TOKENS, AccessLedger, no_token, token_exists, too_many_tokens
from ktrdr.operations.jsontext import dump
from ktrdr.operations.microseconds import from_microseconds, to_microseconds
from ktrdr.operations.sql.tables import tokens
from ktrdr.operations.tokens import Scope, TokenRecord

__all__ = ["SqlAccess"]

T = TypeVar("T")


class _Run(Protocol):
    def __call__(self, work: Callable[[Connection], T], /) -> Awaitable[T]: ...


class SqlAccess(AccessLedger):
    """``write`` and ``read`` run a piece of work as :class:`ktrdr.operations.sql.ledger.SqlStore` runs its own."""

    def __init__(self, write: _Run, read: _Run) -> None:
        self._write, self._read = write, read

    async def add_token(self, token: TokenRecord) -> None:
        def work(connection: Connection) -> None:
            if connection.scalar(select(tokens.c.name).where(tokens.c.name == token.name)) is not None:
                raise token_exists(token.name)
            if (connection.scalar(select(func.count()).select_from(tokens)) or 0) >= MOST_TOKENS:
                raise too_many_tokens()
            connection.execute(insert(tokens), _row(token))

        await self._write(work)

    async def remove_token(self, name: str) -> TokenRecord:
        def work(connection: Connection) -> TokenRecord:
            row = connection.execute(select(tokens).where(tokens.c.name == name)).mappings().first()
            if row is None:
                raise no_token(name, connection.scalars(select(tokens.c.name)).all())
            connection.execute(delete(tokens).where(tokens.c.name == name))
            return _token(row)

        return await self._write(work)

    async def tokens(self) -> Sequence[TokenRecord]:
        def work(connection: Connection) -> Sequence[TokenRecord]:
            rows = connection.execute(select(tokens).order_by(tokens.c.name)).mappings()
            return tuple(_token(row) for row in rows)

        return await self._read(work)

    async def token_used(self, token_id: str, moment: datetime) -> None:
        def work(connection: Connection) -> None:
            which = update(tokens).where(tokens.c.token_id == token_id)
            connection.execute(which.values(last_used_us=to_microseconds(moment)))

        await self._write(work)


def _row(token: TokenRecord) -> dict[str, Any]:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "scopes": dump(list(token.scopes)),
        "digest": token.digest,
        "created_us": to_microseconds(token.created_at),
        "created_by": token.created_by,
        "expires_us": None if token.expires_at is None else to_microseconds(token.expires_at),
        "last_used_us": None if token.last_used_at is None else to_microseconds(token.last_used_at),
    }


def _token(row: RowMapping) -> TokenRecord:
    return TokenRecord(
        token_id=row["token_id"],
        name=row["name"],
        scopes=tuple(Scope(scope) for scope in json.loads(row["scopes"])),
        digest=row["digest"],
        created_at=from_microseconds(row["created_us"]),
        created_by=row["created_by"],
        expires_at=None if row["expires_us"] is None else from_microseconds(row["expires_us"]),
        last_used_at=None if row["last_used_us"] is None else from_microseconds(row["last_used_us"]),
    )
