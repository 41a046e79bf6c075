"""Who asks: the name and the rights behind a request."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from ktrdr.operations.tokens import Scope

__all__ = ["BOOTSTRAP", "ENROLMENT", "LOOPBACK", "RESERVED_NAMES", "Principal", "principal_of"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A token by its name, or one of the three that are no tokens of the ledger, which have no ``token_id``."""

    name: str
    allowed: frozenset[Scope]
    token_id: str | None = None


BOOTSTRAP = Principal("bootstrap", Scope.ADMIN.includes())
"""Whoever shows KTRDR_API_TOKEN."""
ENROLMENT = Principal("enrolment", Scope.WORKER.includes())
"""Whoever shows KTRDR_ENROLMENT_TOKEN."""
LOOPBACK = Principal("loopback", Scope.ADMIN.includes())
"""Anybody on this machine, where the backend has no KTRDR_API_TOKEN."""
RESERVED_NAMES = frozenset(who.name for who in (BOOTSTRAP, ENROLMENT, LOOPBACK))


def principal_of(scope: MutableMapping[str, Any]) -> Principal:
    """Who the guard found behind this request."""
    principal: Principal = scope["state"]["principal"]
    return principal
