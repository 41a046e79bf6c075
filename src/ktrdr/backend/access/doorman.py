"""Who is at the door: from an Authorization header to a principal, and whether that may pass."""

from __future__ import annotations

import hmac

from ktrdr.backend.access.audit import AuditLog
from ktrdr.backend.access.principal import BOOTSTRAP, ENROLMENT, LOOPBACK, Principal
from ktrdr.backend.access.tokens import TokenBook
from ktrdr.backend.config import BackendConfig
from ktrdr.errors import Forbidden, NotAuthorised
from ktrdr.operations.tokens import Scope

__all__ = ["Doorman", "check_scope"]


class Doorman:
    """Knows the tokens of the settings; those of the ledger once ``book`` is set, when the ledger is open. ``audit`` is
    where what they do is recorded, from the same moment on.

    Without KTRDR_API_TOKEN the backend is bound to loopback and takes everybody there for an administrator, except
    those who show a token of the ledger: they are who they say, with that token's rights.
    """

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self.book: TokenBook | None = None
        self.audit: AuditLog | None = None

    async def principal(self, authorization: str) -> Principal:
        """Who sent this header.

        Raises
        ------
        NotAuthorised
            If a credential is needed and this is none, or the token has expired.
        """
        scheme, _, rest = authorization.partition(" ")
        offered = rest.strip() if scheme.lower() == "bearer" else ""
        fixed = self._fixed(offered)
        if fixed is not None:
            return fixed
        if offered and self.book is not None and (known := await self.book.principal(offered)) is not None:
            return known
        if self._config.api_token is None:
            return LOOPBACK
        if authorization:
            raise NotAuthorised(
                "This token is not known here: it was revoked, belongs to another backend, or is misspelt. "
                "The header is 'Authorization: Bearer TOKEN'."
            )
        raise NotAuthorised(
            "This backend needs a token: send 'Authorization: Bearer TOKEN'; "
            "the command line reads it from KTRDR_API_TOKEN."
        )

    def _fixed(self, offered: str) -> Principal | None:
        """Compares with both tokens of the settings, in constant time each."""
        if self._config.api_token is None:
            return None
        shown = offered.encode("utf-8", "surrogateescape")
        found = [
            who
            for who, token in ((BOOTSTRAP, self._config.api_token), (ENROLMENT, self._config.worker_token))
            if token and hmac.compare_digest(shown, token.encode("utf-8", "surrogateescape"))
        ]
        return found[0] if found else None


def check_scope(principal: Principal, wanted: frozenset[Scope]) -> None:
    """Let the principal pass if it has one of the scopes.

    Raises
    ------
    Forbidden
        If it has none of them; the message says which it has and which it needs.
    """
    if wanted & principal.allowed:
        return
    has = ", ".join(sorted(principal.allowed)) or "none"
    raise Forbidden(
        f"The token '{principal.name}' has the scope {has}; this needs {' or '.join(sorted(wanted))}. "
        "An administrator makes tokens: ktrdr tokens create NAME --scope SCOPE."
    )
