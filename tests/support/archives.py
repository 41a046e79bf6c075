"""Archives that are not as they were written."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["rewritten", "seal"]


def rewritten(whole: Path, target: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> Path:
    """The archive with other members."""
    with tarfile.open(whole) as tar:
        members = [(entry.name, tar.extractfile(entry).read()) for entry in tar]  # type: ignore[union-attr]
    change(members)
    with tarfile.open(target, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return target


def seal(members: list[tuple[str, bytes]], *, member: tuple[str, str] | None = None, **fields: Any) -> None:
    """Change the manifest, which is the last member, so that it is as good as one that was written so."""
    name, content = members[-1]
    manifest = json.loads(json.loads(content)["manifest"]) | fields
    manifest["members"] |= dict([member] if member else [])
    text = json.dumps(manifest)
    sealed = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "manifest": text}
    members[-1] = (name, json.dumps(sealed).encode())
