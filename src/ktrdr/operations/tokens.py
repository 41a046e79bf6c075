"""Credentials as the ledger remembers them: what a token may do and how to recognise it, never the token itself."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from ktrdr.errors import FieldError, InvalidInput

__all__ = ["Scope", "TokenRecord", "check_token_name", "closure", "digest_of", "read_token", "token_text"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"ktrdr_([0-9a-f]{16})_[0-9a-f]{64}")


class Scope(StrEnum):
    """What a token allows. ``submit`` includes ``read``, ``admin`` includes all; ``worker`` stands for itself."""

    READ = "read"
    SUBMIT = "submit"
    WORKER = "worker"
    ADMIN = "admin"

    def includes(self) -> frozenset[Scope]:
        """This scope and those that it brings along."""
        match self:
            case Scope.ADMIN:
                return frozenset(Scope)
            case Scope.SUBMIT:
                return frozenset({Scope.SUBMIT, Scope.READ})
            case _:
                return frozenset({self})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """One token. ``digest`` is the SHA-256 of its text: with 256 random bits in it nothing slower is needed, because
    there is no list of likely tokens that somebody who stole the ledger could try.

    ``last_used_at`` is exact to an hour.
    """

    token_id: str
    name: str
    scopes: tuple[Scope, ...]
    digest: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    last_used_at: datetime | None = None

    def opens_with(self, offered: str) -> bool:
        """Whether ``offered`` is this token; takes the same time whatever it is."""
        return hmac.compare_digest(digest_of(offered), self.digest)

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at

    @property
    def allowed(self) -> frozenset[Scope]:
        """All that its scopes include."""
        return _closure(self.scopes)


def closure(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes with all that they include."""
    return _closure(tuple(scopes))


@lru_cache(maxsize=128)  # asked for at each request
def _closure(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    return frozenset(inner for scope in scopes for inner in scope.includes())


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def token_text(token_id: str, secret: bytes) -> str:
    """The token as people and settings hold it; ``secret`` has 32 bytes, ``token_id`` 16 hexadecimal digits."""
    return f"ktrdr_{token_id}_{secret.hex()}"


def read_token(offered: str) -> str | None:
    """The id inside what may be one of our tokens; None if it cannot be one."""
    found = _TOKEN.fullmatch(offered)
    return found[1] if found else None


def check_token_name(name: str) -> str:
    """The name, if a token can have it.

    Raises
    ------
    InvalidInput
        If not; the message says what is accepted.
    """
    if _NAME.fullmatch(name):
        return name
    told = f"'{name[:80]}' is not a token's name: up to 64 letters, digits, '.', '_' and '-', a letter or digit first."
    raise InvalidInput(told, [FieldError("/name", told)])
