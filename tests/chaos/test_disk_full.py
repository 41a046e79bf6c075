"""A disk is full for a while: it is said, work that runs goes on, and with room again everything is done."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, Stream, fleet
from ktrdr.errors import Unavailable
from support.bounds import kept, within
from support.chaos import integrity, no_tracebacks, runs
from support.processes import advancing, wait_for

SIZE_MB = 24


@contextmanager
def _small_disk(place: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    place.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "ktrdr-chaos", str(place)], check=False, timeout=30
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


@contextmanager
def _full(disk: Path) -> Iterator[None]:
    """Until the block ends nothing more can be written there."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:  # a buffer's rest would fail once more when it is closed
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


def _refused(made: Fleet, stream: Stream) -> None:
    before = stream.refused["Unavailable"]
    wait_for(lambda: stream.refused["Unavailable"] > before + 2, "submissions are refused")
    with made.parts.api() as api, pytest.raises(Unavailable) as refusal:
        made.chaos.submit(api, "quick")
    assert any(word in str(refusal.value).lower() for word in ("full", "space")), refusal.value


def test_the_backend_s_disk_is_full(tmp_path: Path, plan: Plan) -> None:
    with _small_disk(tmp_path / "fleet" / "home") as home:
        with fleet(tmp_path / "fleet", plan.random("backend's disk")) as made:
            for name in ("w1", "w2"):
                made.worker(name, KTRDR_HOME=str(tmp_path / name))
            stream = Stream(made, plan.random("backend's disk/stream"))
            with made.parts.api() as api:
                running = made.chaos.submit(api, "endless")
                advancing(api, running)
                with _full(home):
                    _refused(made, stream)
                    assert api.get(f"/operations/{running}")["operation_id"] == running, "reads are served"
                    made.enough.touch()
                    wait_for(lambda: runs(made.trace, "end")[f"{running}.1"], "its job goes on to its end")
                    outboxes = [tmp_path / name / "workers" / name / "outbox" for name in ("w1", "w2")]
                    wait_for(lambda: [f for o in outboxes for f in o.glob("*.json")], "the result waits")
                began = time.monotonic()
                wait_for(lambda: api.get(f"/operations/{running}")["completed_at"], "the result is taken")
                made.converged()
                took_s = kept("backend's disk full", time.monotonic() - began)
            acknowledged = [running, *stream.stop()]
            views = made.check(acknowledged)
            assert {view["failures"] for view in views.values()} == {0}, "no attempt was lost"
            assert integrity(home) == "ok"
        no_tracebacks(made.parts)
    plan.tell(f"the backend's disk full: {len(acknowledged)} operations, whole again after {took_s:.1f} s")


def test_a_worker_s_disk_is_full(tmp_path: Path, plan: Plan) -> None:
    event = "worker's disk full"
    with (
        _small_disk(tmp_path / "small") as disk,
        fleet(tmp_path / "fleet", plan.random("worker's disk")) as made,
    ):
        made.worker("w1", KTRDR_HOME=str(disk))

        def ended_while_full(name: str) -> Any:
            with made.parts.api() as api, _full(disk):
                made.enough.touch()
                with within(event):
                    wait_for(lambda: api.get(f"/operations/{name}")["completed_at"], "its end is told")
                made.enough.unlink()
                return api.get(f"/operations/{name}")

        with made.parts.api() as api:
            alone = made.chaos.submit(api, "endless")
            advancing(api, alone)
            view = ended_while_full(alone)
            assert (view["status"], view["attempt"]) == ("failed", 2), view["story"]
            assert "This worker's disk did not take the end of the job" in view["error"], view["error"]
            took_s = made.converged()
            moved = made.chaos.submit(api, "endless")
            advancing(api, moved)
        made.worker("w2", KTRDR_HOME=str(tmp_path / "w2"))
        after = ended_while_full(moved)
        assert (after["status"], after["attempt"], after["worker_id"]) == ("completed", 2, "w2"), after[
            "story"
        ]
        made.converged()
        with made.parts.api() as api:
            last = made.chaos.submit(api, "quick")
        assert made.check([last])[last]["failures"] == 0
        no_tracebacks(made.parts)
    plan.tell(
        f"a worker's disk full: its operation ended {view['status']} ({view['error']}), whole again after {took_s:.1f} s; "
        "with another worker it completed there"
    )
