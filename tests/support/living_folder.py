"""Folders in which others are at work: files come and go while they are looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["contents", "files"]


def files(root: Path) -> Iterator[Path]:
    """Every file below ``root``; folders that are gone when their turn comes have none."""
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)


def contents(root: Path) -> Iterator[tuple[Path, bytes]]:
    """The same with what they hold, but for those that are gone by then."""
    for file in files(root):
        with suppress(FileNotFoundError):
            yield file, file.read_bytes()
