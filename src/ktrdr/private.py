"""Folders and files of one user: whoever reads a home has its ledger, keys and logs.

Python's ``mkdir(parents=True, mode=...)`` gives the mode to the last folder only, and ``open`` leaves files to the
umask; both are named here once. What exists already keeps its mode: somebody may have opened it on purpose.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["private_file", "private_folder"]


def private_folder(path: Path) -> Path:
    """The folder; it and those above it that are missing are made for this user alone (0700)."""
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(exist_ok=True)  # says so where it is no folder
    return path


def private_file(path: str, flags: int) -> int:
    """An ``opener`` for :func:`open`: a file that this makes is its user's alone (0600) from the first byte on."""
    return os.open(path, flags, 0o600)
