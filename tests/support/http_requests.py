"""Whole HTTP/1.1 requests out of the bytes of a connection."""

from __future__ import annotations

import re

__all__ = ["RequestReader"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LARGEST = 1 << 20


class RequestReader:
    """Fed with pieces, gives requests. It gives up on a connection whose requests it cannot tell apart."""

    def __init__(self) -> None:
        self._rest = b""
        self._lost = False

    def feed(self, data: bytes) -> list[bytes]:
        """The requests that this piece completes."""
        if self._lost:
            return []
        self._rest += data
        found = []
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[: end + 4]
            length = _LENGTH.search(head)
            size = len(head) + (int(length[1]) if length else 0)
            if _CHUNKED.search(head) or size > _LARGEST:
                break
            if len(self._rest) < size:
                return found
            found.append(self._rest[:size])
            self._rest = self._rest[size:]
        else:
            if len(self._rest) <= _LARGEST:
                return found
        self._lost, self._rest = True, b""
        return found
