"""The tokens of the ledger: made, listed, revoked, and recognised at every request."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Sequence, Set
from dataclasses import replace
from datetime import timedelta

from ktrdr.backend.access.principal import RESERVED_NAMES, Principal
from ktrdr.clock import Clock
from ktrdr.errors import FieldError, InvalidInput, KtrdrError, NotAuthorised, Unavailable
from ktrdr.operations.access import AccessLedger
from ktrdr.operations.tokens import Scope, TokenRecord, check_token_name, digest_of, read_token, token_text

__all__ = ["TokenBook"]

_log = logging.getLogger("ktrdr.backend")
_TTL_S = 2.0
_COARSE = timedelta(hours=1)
_NOBODY = "0" * 64


class TokenBook:
    """Keeps the ledger's tokens in memory, at most ``_TTL_S`` old: so long another backend's revocation may take.

    While the ledger is away, what was read last holds.
    """

    def __init__(self, ledger: AccessLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._known: dict[str, TokenRecord] = {}
        self._read_at: float | None = None
        self._changes = 0  # an answer that was read before one of them is not believed
        self._reading = asyncio.Lock()
        self._notes: set[asyncio.Task[None]] = set()

    async def principal(self, offered: str) -> Principal | None:
        """Who shows this token; None if it is none of ours.

        Raises
        ------
        NotAuthorised
            If it has expired.
        Unavailable
            If the ledger does not answer and was never read.
        """
        token_id = read_token(offered)
        if token_id is None:
            return None
        await self._refresh()
        token = self._known.get(token_id)
        if token is None:
            secrets.compare_digest(digest_of(offered), _NOBODY)  # an id that exists takes no longer
            return None
        if not token.opens_with(offered):
            return None
        now = self._clock.now()
        if token.expired(now):
            raise NotAuthorised(
                f"The token '{token.name}' expired at {token.expires_at:%Y-%m-%d %H:%M} UTC. "
                "Ask for a new one: ktrdr tokens create."
            )
        if token.last_used_at is None or now - token.last_used_at >= _COARSE:
            self._note_use(token)
        return Principal(token.name, token.allowed, token.token_id)

    async def create(
        self, name: str, scopes: Sequence[Scope], expires_in_s: float | None, created_by: str
    ) -> tuple[TokenRecord, str]:
        """Make a token; its text is returned here and kept nowhere.

        Raises
        ------
        InvalidInput
            If it cannot have this name, or has no scope.
        Conflict
            If the name is taken.
        """
        check_token_name(name)
        if name in RESERVED_NAMES:
            told = f"'{name}' is what requests without a token of the ledger are called. Choose another name."
            raise InvalidInput(told, [FieldError("/name", told)])
        token_id, now = secrets.token_hex(8), self._clock.now()
        text = token_text(token_id, secrets.token_bytes(32))
        record = TokenRecord(
            token_id=token_id,
            name=name,
            scopes=tuple(sorted(set(scopes))),
            digest=digest_of(text),
            created_at=now,
            created_by=created_by,
            expires_at=None if expires_in_s is None else now + timedelta(seconds=expires_in_s),
        )
        await self._ledger.add_token(record)
        self._changed()
        _log.info("Token '%s' (%s) was made by %s", name, ", ".join(record.scopes), created_by)
        return record, text

    async def revoke(self, name: str) -> None:
        """Make a token worthless, at once; raises NotFound."""
        token = await self._ledger.remove_token(name)
        self._known.pop(token.token_id, None)
        self._changed()
        _log.info("Token '%s' was revoked", name)

    async def list(self) -> Sequence[TokenRecord]:
        """All tokens, by name."""
        return await self._ledger.tokens()

    async def worthless(self, token_ids: Collection[str]) -> Set[str]:
        """Which of these tokens, that opened the door once, do so no more: revoked, or expired."""
        await self._refresh()
        now = self._clock.now()
        good = {token_id for token_id, token in self._known.items() if not token.expired(now)}
        return set(token_ids) - good

    async def close(self) -> None:
        """Wait for notes of last uses."""
        await asyncio.gather(*self._notes, return_exceptions=True)

    def _changed(self) -> None:
        """The ledger was changed by this process: what it is asked from now on is news, what it was asked before is not."""
        self._changes += 1
        self._read_at = None

    def _is_old(self, now: float) -> bool:
        return self._read_at is None or now - self._read_at >= _TTL_S

    async def _refresh(self) -> None:
        now = self._clock.monotonic()
        if not self._is_old(now):
            return
        async with self._reading:
            now = self._clock.monotonic()
            while self._is_old(now):
                first, changes = self._read_at is None and not self._known, self._changes
                try:
                    found = await self._ledger.tokens()
                except Unavailable:
                    if first:
                        raise
                    _log.warning("The ledger is away; tokens are those that were known before")
                    self._read_at = now
                else:
                    if changes == self._changes:
                        self._known = {token.token_id: token for token in found}
                        self._read_at = now

    def _note_use(self, token: TokenRecord) -> None:
        moment = self._clock.now()
        self._known[token.token_id] = replace(token, last_used_at=moment)

        async def note() -> None:
            try:
                await self._ledger.token_used(token.token_id, moment)
            except KtrdrError as error:
                _log.debug("The last use of token '%s' was not noted: %s", token.name, error)

        task = asyncio.create_task(note(), name=f"use of token {token.name}")
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)
