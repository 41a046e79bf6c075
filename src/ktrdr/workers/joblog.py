"""What a job prints: a file that the job appends to, of which the worker gives the middle back to the disk."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
from pathlib import Path

from ktrdr.logs import Redaction

__all__ = ["JobLog"]

_HEAD, _TAIL = 1 << 20, 3 << 20  # kept of a log that is too long
_ROOM = 16 << 20  # what the file may take of the disk before its middle goes
_PUNCH_KEEPING_SIZE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE
_BLOCK = 1 << 16


class JobLog:
    """The log of one attempt. Positions are those in everything that was printed, whether it is still there or not.

    The job holds the file open and appends, so that its last words are there however it dies; nobody stands between.
    A job that prints without end would fill the disk: :meth:`relieve`, called a few times a second, keeps the first
    megabyte and the last ones. On Linux the middle becomes a hole in the file. Where that is not possible the file is
    emptied and both ends are kept in memory; what is printed at that very moment may be lost then.

    Parameters
    ----------
    head, tail, room
        Bytes to keep of its beginning and of its end, and how many may lie there before anything goes.
    punch
        Whether to try for a hole; a parameter for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        head: int = _HEAD,
        tail: int = _TAIL,
        room: int = _ROOM,
        punch: bool = sys.platform == "linux",
    ) -> None:
        self.path = path
        self._head_size, self._tail_size, self._room, self._punches = head, tail, room, punch
        self._hole = (0, 0)  # what is not there any more: from, to
        self._shift = 0  # where the file's first byte stands
        self._head: bytes | None = None  # where the file does not hold it,
        self._tail = b""  # nor this, which goes before the file's first byte
        self._lock = threading.Lock()

    def size(self) -> int:
        """How much was printed, in bytes."""
        try:
            return self._shift + self.path.stat().st_size
        except FileNotFoundError:
            return self._shift

    def relieve(self) -> int:
        """Give the middle back to the disk if there is too much; returns how many bytes went."""
        with self._lock:
            return self._relieve()

    def _relieve(self) -> int:
        size = self.size()
        if size - self._hole[1] <= self._room:
            return 0
        start = self._hole[0] or self._head_size
        end = (size - self._tail_size) // _BLOCK * _BLOCK
        gone = end - max(self._hole[1], start)
        if gone <= 0:
            return 0
        if self._punches and self._punched(start, end):
            self._hole = (start, end)
            return gone
        return self._emptied(start, size)

    def _punched(self, start: int, end: int) -> bool:
        with self.path.open("r+b") as file:
            fallocate = ctypes.CDLL(None, use_errno=True).fallocate
            fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            if fallocate(file.fileno(), _PUNCH_KEEPING_SIZE, start, end - start) == 0:
                return True
        number = ctypes.get_errno()
        if number not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(self.path))
        self._punches = False
        return False

    def _emptied(self, start: int, size: int) -> int:
        with self.path.open("rb") as file:
            if self._head is None:
                self._head = file.read(start)
            file.seek(max(0, size - self._shift - self._tail_size))
            self._tail = file.read(self._tail_size)
        os.truncate(self.path, 0)
        end = size - len(self._tail)
        gone = end - max(self._hole[1], start)
        self._hole, self._shift = (start, end), size
        return gone

    def piece(self, offset: int, limit: int, redaction: Redaction) -> tuple[int, bytes]:
        """At most ``limit`` bytes from ``offset`` on, and where they begin: behind the hole, if ``offset`` is in it.

        Secrets are masked, also where the cut divides one.
        """
        with self._lock:
            low, high = self._hole
            start = offset
            if high and low - redaction.margin <= offset < high + redaction.margin:
                start = high + redaction.margin  # what stands at the hole's edge may be half a secret
            if high and start < low:
                limit = min(limit, low - redaction.margin - start)
            first = max(high if start >= high else 0, start - redaction.margin)
            content = self._read(first, start - first + limit + redaction.margin)
        return start, redaction.bytes(content)[start - first :][:limit]

    def _read(self, first: int, count: int) -> bytes:
        """From one side of the hole; the sides are never joined."""
        low, high = self._hole
        if first < low:
            count = min(count, low - first)
            if self._head is not None:
                return self._head[first : first + count]
        elif first < self._shift:  # before what the file holds
            start = first - high
            kept = self._tail[start : start + count]
            return kept + self._read(self._shift, count - len(kept))
        try:
            with self.path.open("rb") as file:
                file.seek(first - (self._shift if first >= high else 0))
                return file.read(count)
        except FileNotFoundError:
            return b""

    def whole(self, redaction: Redaction) -> bytes:
        """Everything, or its beginning and its end with a line between them that says how much is left out."""
        size = self.size()
        if size <= self._head_size + self._tail_size and self._hole == (0, 0):
            return self.piece(0, size, redaction)[1]
        head = self.piece(0, self._head_size, redaction)[1]
        start, tail = self.piece(max(size - self._tail_size, len(head)), size, redaction)
        cut = start - len(head)
        return head + b"\n[... %d bytes are left out here: the job printed too much ...]\n" % cut + tail
