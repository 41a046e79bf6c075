"""The files of the audit record as who reads them finds them, while others write them and begin them anew."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from ktrdr.backend.access.auditfile import names

__all__ = ["Written", "chains"]

_LINE = 4096  # no line is longer


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was found. The one that is being written gets another ``name`` some day, never another ``identity``."""

    name: str
    identity: str
    size: int

    def read(self, folder: Path) -> bytes:
        """What stands in it, also where it was renamed since it was found; nothing where it was removed."""
        for path in (folder / self.name, *folder.glob("audit-*.jsonl")):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if _identity(file) == self.identity:
                    file.seek(0)
                    return file.read()
        return b""


def chains(folder: Path) -> dict[int, list[Written]]:
    """The files of each slot in which anything stands, newest first."""
    found = {}
    for slot, (written, *_) in names(folder).items():
        files = _look(
            folder, [written]
        )  # before the others: if it is renamed now, it is found twice and not missed
        files |= _look(folder, names(folder)[slot][1:])
        if files:
            found[slot] = list(files.values())
    return found


def _look(folder: Path, called: Iterable[str]) -> dict[str, Written]:
    files = {}
    for name in called:
        with contextlib.suppress(FileNotFoundError), (folder / name).open("rb") as file:
            size, identity = os.fstat(file.fileno()).st_size, _identity(file)
            if size:
                files[identity] = Written(name, identity, size)
    return files


def _identity(file: BinaryIO) -> str:
    """The first line is a part of it: the system gives the inode of a file that was removed to a new one."""
    return f"{os.fstat(file.fileno()).st_ino:x}.{crc32(file.readline(_LINE)):08x}"
