"""Which artifacts a ledger refers to: what its rows name, and what the documents among those name in turn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ktrdr.artifacts import FileArtifactStore

__all__ = ["Mentions", "References", "digests_in", "follow", "mentioned_by_row"]

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_LARGEST_DOCUMENT = 1 << 20
_BITS_EACH = 20  # with eight bits set for each digest, one of 10,000 others is taken for one that was added
_EIGHTHS = range(224, -1, -32)
_FEWEST_BITS, _MOST_BITS = 1 << 16, 1 << 32


def digests_in(text: str | bytes) -> set[str]:
    """Whatever looks like a digest in a text."""
    return set(_DIGEST.findall(text if isinstance(text, str) else text.decode("utf-8", "replace")))


@dataclass(slots=True)
class Mentions:
    """Digests that were found: ``files`` end there, ``documents`` may be JSON that names further ones.

    ``promised`` are those that must be in the store; any other may be the digest of something else.
    """

    files: set[str] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    promised: set[str] = field(default_factory=set)

    def __ior__(self, other: Mentions) -> Mentions:
        self.files |= other.files
        self.documents |= other.documents
        self.promised |= other.promised
        return self


def mentioned_by_row(table: str, row: Mapping[str, Any]) -> Mentions:
    """What one row of a ledger's table mentions; columns and tables unknown here are searched for digests."""
    found = Mentions()
    for column, value in row.items():
        if column == "spec_digest" or not isinstance(value, str | bytes):
            continue
        digests = digests_in(value)
        if (table, column) == ("operations", "artifacts"):
            artifacts = json.loads(value)
            found.files |= digests
            found.promised |= digests
            found.documents |= digests & {artifacts.get("model")}
        else:
            found.documents |= digests
            if (table, column) == ("models", "bundle_digest"):
                found.promised |= digests  # a checkpoint is none: it goes when a newer one comes
    return found


class References:
    """A set of digests in memory of a fixed size: it holds all that were added, and takes one of 10,000 others for one.

    For what must not be lost and may be kept for nothing: garbage collection and backup.
    """

    def __init__(self, expected: int) -> None:
        wanted = 1 << max(1, _BITS_EACH * expected).bit_length()
        bits = min(max(wanted, _FEWEST_BITS), _MOST_BITS)
        self._mask = bits - 1
        self._bits = bytearray(bits // 8)

    def add(self, digest: str) -> None:
        """Take a digest in."""
        for place in self._places(digest):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, digest: str) -> bool:
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in self._places(digest))

    def _places(self, digest: str) -> Iterable[int]:
        """A digest is random already: each eighth of it is a place."""
        number, mask = int(digest, 16), self._mask
        return [number >> shift & mask for shift in _EIGHTHS]


def follow(documents: Iterable[str], artifacts: FileArtifactStore) -> set[str]:
    """The documents, and what they name: model files of a bundle, segments of a dataset.

    What is not in the store or no JSON text names nothing. Digests of other things may be among the answer.
    """
    seen: set[str] = set()
    waiting = set(documents)
    while waiting:
        digest = waiting.pop()
        seen.add(digest)
        waiting |= _named_in(digest, artifacts) - seen
    return seen


def _named_in(digest: str, artifacts: FileArtifactStore) -> set[str]:
    try:
        with artifacts.location(digest).open("rb") as file:
            content = file.read(_LARGEST_DOCUMENT + 1)
    except OSError:
        return set()
    if content[:1] not in (b"{", b"[") or len(content) > _LARGEST_DOCUMENT:
        return set()
    return digests_in(content)
