"""What is acknowledged is on the disk: the file before it gets its name, and the folder after, as the kernel was told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
SAVES = """
import asyncio, sys
from pathlib import Path
from ktrdr.artifacts import FileArtifactStore
from ktrdr.operations.sql.sqlite import LedgerFile
from ktrdr.protocol.messages import DeliverRequest
from ktrdr.strategies import StrategyLibrary
from ktrdr.strategies.starter import starter
from ktrdr.workers.outbox import Outbox

home = Path(sys.argv[1])
FileArtifactStore(home / "artifacts").put(b"a model")
Outbox(home / "outbox").add(DeliverRequest(operation_id="op", attempt=1, status="cancelled"))
(home / "strategies").mkdir()
StrategyLibrary([home / "strategies"]).save("mine", starter("mine"))
LedgerFile(home / "ktrdr.db").close()
"""
_CALL = re.compile(r"^(?:\d+ +)?(fsync|fdatasync|rename|renameat|renameat2|link|linkat)\((.*)\) += 0")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The home, and what was synced and named below it, in order: the call and its arguments, with paths."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    home = tmp_path_factory.mktemp("home")
    log = home.with_name("strace")
    names = "fsync,fdatasync,rename,renameat,renameat2,link,linkat"
    command = ["strace", "-f", "-y", "-qq", "-o", str(log), "-e", f"trace={names}"]
    done = subprocess.run(
        [*command, sys.executable, "-c", SAVES, str(home)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    found = (_CALL.match(line) for line in log.read_text().splitlines())
    return home, [(m[1], m[2]) for m in found if m and str(home) in m[2]]


@pytest.mark.parametrize("folder", ["artifacts", "outbox", "strategies"])
def test_a_file_is_synced_before_it_is_named_and_its_folder_after(
    folder: str, calls: tuple[Path, list[tuple[str, str]]]
) -> None:
    home, told = calls
    told = [(call, what) for call, what in told if f"{home}/{folder}" in what]
    named = next(at for at, (call, _) in enumerate(told) if call.startswith(("rename", "link")))
    assert told[:named], f"{folder}: nothing was synced before it got its name"
    assert told[0][0] in ("fsync", "fdatasync")
    last = re.findall(r'"([^"]*)"', told[named][1])[-1]
    synced = [what for call, what in told[named + 1 :] if call == "fsync"]
    holding = str(Path(last).parent) if last.startswith("/") else str(home / folder)
    assert any(f"<{holding}>" in what for what in synced), told
    if folder == "artifacts":  # the first file of a new folder
        assert any(f"<{home}/artifacts>" in what for what in synced), told


def test_a_commit_is_synced(calls: tuple[Path, list[tuple[str, str]]]) -> None:
    home, told = calls
    ledger = [what for call, what in told if call in ("fsync", "fdatasync") and f"<{home}/ktrdr.db" in what]
    assert ledger, "SQLite was told not to wait for the disk"
