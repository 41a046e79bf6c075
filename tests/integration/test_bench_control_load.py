"""The benchmarks of the control plane under load work, at sizes that measure nothing: real backends, made-up workers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import unmeasured

pytestmark = pytest.mark.integration
RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"
ROWS = {
    "control.submit": ("submissions", "lost", "submit_accepted_p50", "submit_accepted_p99"),
    "control.probes": ("probes_20_busy", "lag_20_busy"),
    "control.watchers": ("pollers", "streams_lag", "streams_memory"),
    "control.soak": ("soak_rss", "soak_fds", "soak_threads", "soak_tasks", "soak_failed"),
}


@pytest.mark.parametrize("module", sorted(ROWS))
def test_a_benchmark_under_load_works_at_a_tiny_size(module: str, tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    command = [sys.executable, str(RUN), module, "--tiny", "--json", str(found)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=unmeasured())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = {row["key"].removeprefix("control."): row for row in json.loads(found.read_text())}
    assert set(rows) == set(ROWS[module])
    for key in ("lost", "soak_failed"):
        assert rows.get(key, {"measured": 0})["measured"] == 0
