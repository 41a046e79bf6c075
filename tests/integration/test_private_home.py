"""What backend and worker write is their user's alone, whatever the umask lets others see."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.living_folder import files
from support.processes import parts

pytestmark = pytest.mark.integration


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def modes(files: Iterable[Path]) -> dict[Path, int]:
    """Of those that are still there when they are looked at: a backend is at work here."""
    found = {}
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            found[file] = mode(file)
    return found


def test_under_an_open_umask_nobody_else_reads_a_home(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with parts(tmp_path, measured=False) as fleet:
            fleet.home.mkdir(exist_ok=True)
            fleet.home.chmod(0o755)  # it was there, so it stays as it is
            fleet.backend()
            fresh = tmp_path / "new" / "home"
            fleet.worker("backtesting", "b1", home=fresh)
            with fleet.api() as api:
                api.post("/data/samples")
            found = {entry.name: bits for entry, bits in modes(fleet.home.iterdir()).items()}
            assert found.keys() >= {"ktrdr.db", "ktrdr.db.lock", "audit", "artifacts", "market"}
            assert {name: oct(bits) for name, bits in found.items() if bits & 0o077} == {}
            below = modes(file for home in (fleet.home, fresh) for file in files(home))
            assert {"lock", ".lock", "key"} <= {entry.name for entry in below}
            assert {str(entry): oct(bits) for entry, bits in below.items() if bits & 0o077} == {}
            assert mode(fleet.home) == 0o755
            assert [mode(folder) for folder in (fresh, fresh.parent)] == [0o700, 0o700]
    finally:
        os.umask(before)
