"""The README's tour and the notebook lines are run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.processes import environment

README = Path(__file__).parents[2] / "README.md"


def _tour() -> list[str]:
    blocks = re.findall(r"<!-- tour:.*?-->\n\n```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_the_two_commands_come_first() -> None:
    first = re.search(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert first is not None
    assert first.group(1).splitlines() == ["make demo", "make test"]


def test_tour(fleet: Any, tmp_path: Path) -> None:
    commands = _tour()
    assert len(commands) >= 8
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "ktrdr"
        done = fleet.cli(*arguments, cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_notebook_lines(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert code is not None
    done = subprocess.run(
        [sys.executable, "-c", code.group(1)],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 2


@pytest.mark.usefixtures("trained")
def test_report_of_a_backtest(fleet: Any, tmp_path: Path) -> None:
    run = fleet.cli("backtest", "run", "--strategy", "sp500_trend", "--start", "2014-01-01")
    command = re.search(r"ktrdr (report \S+)", run.stdout)
    assert command is not None, run.stdout + run.stderr
    done = fleet.cli(*command.group(1).split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page, picture = (tmp_path / line for line in done.stdout.split())
    assert page.stat().st_size < 8_000_000
    assert picture.read_bytes().startswith(b"\x89PNG")
