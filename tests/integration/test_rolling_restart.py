"""A fleet is updated as docs/how-to/update-a-fleet.md says, under load: nothing fails, nothing is interrupted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.chaos import Chaos, ended, no_tracebacks, runs
from support.processes import Part, Parts, parts, wait_for
from support.stream import Stream

pytestmark = pytest.mark.integration
PATIENT = {
    "KTRDR_WORKER_REMOVAL_S": "90"
}  # a restart must not take longer than that, or the drain is forgotten


def _roll(running: Parts, chaos: Chaos, name: str, worker: Part) -> None:
    """Drain, wait, restart, undrain."""
    with running.api() as api:
        drained = api.post(f"/workers/{name}/drain")
        assert drained["status"] == "draining"
        wait_for(lambda: api.get(f"/workers/{name}")["current_operation_id"] is None, f"{name} is idle")
        assert worker.stop() == 0
        chaos.worker(name, wait=False)
        known = drained["instance_id"]
        wait_for(lambda: api.get(f"/workers/{name}")["instance_id"] != known, f"{name} is back")
        assert api.get(f"/workers/{name}")["status"] == "draining"
        assert api.post(f"/workers/{name}/undrain")["status"] in ("available", "busy")


def test_every_part_is_restarted_and_no_operation_notices(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with parts(tmp_path, measured=False) as running:
        chaos = Chaos(running, quick=f"trace {trace} 0.1")
        backend = running.backend(**PATIENT)
        workers = {name: chaos.worker(name) for name in ("w1", "w2")}
        stream = Stream(chaos, "quick", pause_s=0.3)
        for name, worker in workers.items():
            _roll(running, chaos, name, worker)
        assert backend.stop() == 0
        running.backend(**PATIENT)
        acknowledged = stream.stop()
        with running.api() as api:
            api.post("/queue/pause", {})
            held = [chaos.submit(api, "quick") for _ in range(3)]
            assert {api.get(f"/operations/{name}")["status"] for name in held} == {"pending"}
            api.post("/queue/unpause", {})
            views = ended(api, [*acknowledged, *held])
        assert Counter(view["status"] for view in views.values()) == {"completed": len(views)}
        assert {(view["attempt"], view["failures"]) for view in views.values()} == {(1, 0)}
        assert set(runs(trace).values()) == {1}
        assert runs(trace) == runs(trace, "end")
        no_tracebacks(running)
