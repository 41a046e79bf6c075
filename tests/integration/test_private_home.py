"""What backend and worker write is their user's alone, whatever the umask lets others see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import parts

pytestmark = pytest.mark.integration


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


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
            found = {entry.name: mode(entry) for entry in fleet.home.iterdir()}
            assert found.keys() >= {"ktrdr.db", "ktrdr.db.lock", "audit", "artifacts", "market"}
            assert {name: oct(bits) for name, bits in found.items() if bits & 0o077} == {}
            below = [entry for home in (fleet.home, fresh) for entry in home.rglob("*") if entry.is_file()]
            assert {"lock", ".lock", "key"} <= {entry.name for entry in below}
            assert {str(entry): oct(mode(entry)) for entry in below if mode(entry) & 0o077} == {}
            assert mode(fleet.home) == 0o755
            assert [mode(folder) for folder in (fresh, fresh.parent)] == [0o700, 0o700]
    finally:
        os.umask(before)
