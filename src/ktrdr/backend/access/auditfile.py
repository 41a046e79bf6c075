"""The files of the audit record: each is written by one process at a time, none loses a line or tears one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ktrdr.private import private_folder

__all__ = ["AuditFile", "names"]

_log = logging.getLogger("ktrdr.backend")
_NAME = re.compile(r"audit(?:-(?P<stamp>\d{8}T\d{12}))?(?:\.(?P<slot>\d{1,3}))?\.jsonl")
_STAMP = "%Y%m%dT%H%M%S%f"
_SLOTS = 64
_MICROSECOND = timedelta(microseconds=1)


def _name(slot: int, stamp: str | None = None) -> str:
    return "audit" + (f"-{stamp}" if stamp else "") + (f".{slot}" if slot > 1 else "") + ".jsonl"


def _stamps(folder: Path, slot: int) -> list[str]:
    """Of the slot's older files, oldest first."""
    found = (_NAME.fullmatch(path.name) for path in folder.glob("audit-*.jsonl"))
    return sorted(m["stamp"] for m in found if m and m["stamp"] and int(m["slot"] or 1) == slot)


def names(folder: Path) -> dict[int, list[str]]:
    """Of each slot the file that is written, whether it is there or not, and the older ones, newest first."""
    found = (_NAME.fullmatch(path.name) for path in folder.glob("audit*.jsonl"))
    return {
        slot: [_name(slot), *(_name(slot, stamp) for stamp in reversed(_stamps(folder, slot)))]
        for slot in sorted({int(m["slot"] or 1) for m in found if m})
    }


class AuditFile:
    """One process's file: ``audit.jsonl``, or ``audit.2.jsonl`` and so on where others write already.

    Laws
    ----
    - Who writes a file holds the kernel's lock on it, which ends with the process; so there is one writer, on shared
      file systems too, and a process that stands still keeps nobody from writing.
    - A line is written whole or not at all; after a torn one, which only a machine's crash leaves, comes a new line.
    - A file that was renamed because it is long is never replaced by another, whatever the clock says.
    """

    def __init__(self, folder: Path, *, file_bytes: int, files: int) -> None:
        self._folder, self._file_bytes, self._files = folder, file_bytes, files
        self._handle: int | None = None
        self._slot = 1
        self._torn = False

    def append(self, line: bytes, now: datetime) -> None:
        """Write a line; raises OSError if it is not written, not even in part."""
        handle = self._ready(now)
        size = os.fstat(handle).st_size
        data = b"\n" + line if self._torn else line
        written = os.write(handle, data)
        if written == len(data):
            self._torn = False
            return
        try:
            os.ftruncate(handle, size)
        except OSError:
            self._torn = True
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (after {written} of {len(data)} bytes)")

    def syncing(self) -> Callable[[], None]:
        """What brings to the disk what was written until now; for another thread, whatever happens here meanwhile."""
        if self._handle is None:
            return lambda: None
        handle = os.dup(self._handle)

        def sync() -> None:
            _flush(handle)
            os.close(handle)

        return sync

    def close(self) -> None:
        """Sync, and let others have the file. Idempotent."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _flush(handle)
            os.close(handle)

    def _ready(self, now: datetime) -> int:
        """The file to append to; another one where it has grown long or was removed."""
        if self._handle is not None:
            status = os.fstat(self._handle)
            if status.st_nlink == 0:
                self.close()
            elif status.st_size >= self._file_bytes:
                self._begin_anew(self._handle, now)
        if self._handle is None:
            self._handle = self._open()
        return self._handle

    def _begin_anew(self, handle: int, now: datetime) -> None:
        stamps = _stamps(self._folder, self._slot)
        stamp = f"{now.astimezone(UTC):{_STAMP}}"
        if stamps and stamp <= stamps[-1]:  # the clock was set back, or it is that very microsecond
            stamp = f"{datetime.strptime(stamps[-1], _STAMP).replace(tzinfo=UTC) + _MICROSECOND:{_STAMP}}"
        path = self._folder / _name(self._slot)
        try:
            if not os.path.samestat(os.fstat(handle), path.stat()):
                raise FileNotFoundError(errno.ENOENT, "somebody moved the file away", str(path))
            path.rename(self._folder / _name(self._slot, stamp))
        except OSError as error:
            _log.warning("The audit record's file is not begun anew: %s", error)
            if isinstance(error, FileNotFoundError):
                self.close()
            return
        self.close()
        for outdated in [*stamps, stamp][: -self._files]:
            (self._folder / _name(self._slot, outdated)).unlink(missing_ok=True)

    def _open(self) -> int:
        private_folder(self._folder)
        for slot in range(1, _SLOTS + 1):
            for handle in self._locked(self._folder / _name(slot)):
                self._slot = slot
                size = os.fstat(handle).st_size
                self._torn = bool(size) and os.pread(handle, 1, size - 1) != b"\n"
                _flush_folder(self._folder)
                return handle
        raise OSError(errno.EBUSY, f"{_SLOTS} processes write here already", str(self._folder))

    def _locked(self, path: Path) -> Iterator[int]:
        """The open and locked file, unless another process has it."""
        while True:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.path.samestat(os.fstat(handle), path.stat())
            except BlockingIOError:
                os.close(handle)
                return
            except FileNotFoundError:
                current = False
            except OSError:
                os.close(handle)
                raise
            if current:
                yield handle
                return
            os.close(handle)  # who had it before renamed it in between


def _flush(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        _log.error("The audit record cannot be brought to the disk: %s", error)


def _flush_folder(folder: Path) -> None:
    """A new file's name outlives the machine, too."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
