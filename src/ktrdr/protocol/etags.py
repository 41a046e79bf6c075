"""Names of an answer's content, by which clients tell that nothing has changed."""

from __future__ import annotations

import hashlib

__all__ = ["etag_of"]


def etag_of(body: bytes) -> str:
    """The ETag of an answer's bytes."""
    return f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
