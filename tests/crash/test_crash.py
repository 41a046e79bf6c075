"""The short form of ``make test-crash``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import unmeasured

pytestmark = pytest.mark.integration


def test_kill_9_while_checkpoints_and_artifacts_are_written(tmp_path: Path) -> None:
    """In a process of its own, because it forks."""
    tests = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (tests, os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "crash", "--kills", "20"],
        env={**unmeasured(), "PYTHONPATH": path, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("20 kills, ")
