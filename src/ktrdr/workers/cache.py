"""Keeps the worker's artifact cache below a size: what was used longest ago goes first."""

from __future__ import annotations

import time
from collections.abc import Set as AbstractSet

from ktrdr.artifacts import FileArtifactStore

__all__ = ["trim_cache"]


def trim_cache(
    cache: FileArtifactStore, limit_bytes: float, keep: AbstractSet[str], *, recent_s: float = 3600.0
) -> int:
    """Delete artifacts until the rest fits into ``limit_bytes``; returns how many went.

    Those in ``keep`` (results on their way) and those used within ``recent_s`` (a job may have them open) stay, even
    if they alone are too many. Everything else can be fetched again by its digest.
    """
    now, total = time.time(), 0
    known: list[tuple[float, int, str]] = []
    for digest in cache.digests():
        try:
            status = cache.location(digest).stat()
        except FileNotFoundError:
            continue
        total += status.st_size
        used_at = max(status.st_atime, status.st_mtime)
        if digest not in keep and now - used_at >= recent_s:
            known.append((used_at, status.st_size, digest))
    gone = 0
    for _, size, digest in sorted(known):
        if total <= limit_bytes:
            break
        cache.delete(digest)
        total -= size
        gone += 1
    return gone
