"""What binds a worker's messages to the worker that sent them, and the backend's calls to the worker they are for.

A worker makes a key once and keeps it in its home, so that it is the same worker after a restart. Its instance ids end
in the key's fingerprint, and every message of the worker carries the key. Whoever has stored an instance id, in the
registry or as an operation's assignment, can therefore tell whether a message comes from that worker, and keeps no
secret for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re

__all__ = ["HEADER", "bind", "call_credential", "fingerprint_of", "proves"]

HEADER = "x-ktrdr-worker-key"
_BOUND = re.compile(r".*-k([0-9a-f]{32})", re.DOTALL)


def _fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def bind(instance_id: str, key: str) -> str:
    """The instance id with the key's fingerprint: 128 bits of its SHA-256."""
    return f"{instance_id}-k{_fingerprint(key)}"


def fingerprint_of(instance_id: str) -> str | None:
    """The fingerprint in an instance id; None if it is bound to no key."""
    found = _BOUND.fullmatch(instance_id)
    return found[1] if found else None


def proves(key: str | None, instance_id: str) -> bool:
    """Whether the key is the one that the instance id is bound to; one that is bound to none needs no proof."""
    wanted = fingerprint_of(instance_id)
    return wanted is None or hmac.compare_digest(_fingerprint(key or ""), wanted)


def call_credential(secret: str, worker_id: str, instance_id: str) -> str:
    """What a backend shows to this incarnation of this worker, and to no other: whoever holds one of them learns
    nothing about the others, and the backend stores none, since it can make each again from its own secret."""
    message = f"ktrdr call {worker_id} {instance_id}".encode("utf-8", "surrogateescape")
    return hmac.new(secret.encode("utf-8", "surrogateescape"), message, hashlib.sha256).hexdigest()
