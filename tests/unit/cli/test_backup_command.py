"""What the backup commands print, and their exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from ktrdr.cli.app import run
from support.homes import fill


def test_create_verify_and_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, target = tmp_path / "home", tmp_path / "b.tgz"
    artifacts = asyncio.run(fill(home, None))
    monkeypatch.delenv("KTRDR_DATABASE_URL", raising=False)
    monkeypatch.setenv("KTRDR_HOME", str(home))
    assert run(["backup", "create", str(target)]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"Wrote {target} (")
    assert "3 operations" in told
    assert run(["backup", "create", str(target)]) == 2
    assert "never replaces a file" in capsys.readouterr().err
    assert run(["backup", "verify", str(target), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["rows"]["operations"], document["missing"]) == (3, [])
    assert run(["backup", "restore", str(target)]) == 2
    assert "is not empty (artifacts, job-logs" in capsys.readouterr().err
    monkeypatch.setenv("KTRDR_HOME", str(tmp_path / "new"))
    assert run(["backup", "restore", str(target)]) == 0
    assert f"Restored into {tmp_path / 'new'}." in capsys.readouterr().out
    result = artifacts.put(b"a result")
    artifacts.delete(result)
    monkeypatch.setenv("KTRDR_HOME", str(home))
    assert run(["backup", "create", str(tmp_path)]) == 1
    assert f"MISSING    1 artifacts were absent or damaged: {result}" in capsys.readouterr().out
    target.write_bytes(target.read_bytes()[:-2000])
    assert run(["backup", "verify", str(target)]) == 1
    assert "is torn" in capsys.readouterr().err
