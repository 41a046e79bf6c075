"""The benchmark of the control plane works against a real fleet; how fast that is, `make bench` says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import unmeasured

pytestmark = pytest.mark.integration
RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"


def test_starts_and_gets_are_measured_through_a_real_fleet(tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    command = [sys.executable, str(RUN), "bench_control", "--tiny", "--json", str(found)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=unmeasured())
    assert ended.returncode == 0, ended.stderr
    rows = {row["key"]: row for row in json.loads(found.read_text())}
    assert set(rows) == {"control.accepted", "control.visible", "control.get"}
    assert all(row["measured"] > 0 and row["cpu_s"] > 0 for row in rows.values())
    recorded = json.loads((RUN.parent / "baseline.json").read_text())["figures"]
    assert set(rows) <= set(recorded), "record it: python benchmarks/run.py --record"
