"""Every worker of a fleet under load is replaced, one after the other, and nobody who uses the fleet notices."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, Stream, fleet
from support.bounds import within
from support.chaos import no_tracebacks
from support.processes import wait_for

WORKERS = ("w1", "w2", "w3")
EXIT_S = 40.0


def _replace(made: Fleet, name: str, way: str) -> list[str]:
    """As an administrator updates a busy worker: perhaps drain it, stop it, start it, let it work.

    Returns the operations that were submitted to keep the fleet busy.
    """
    with made.parts.api() as api:

        def listed() -> Any:
            found = api.get("/workers")["workers"]
            return next((worker for worker in found if worker["worker_id"] == name), None)

        work: list[str] = []

        def at_work() -> bool:
            if listed()["current_operation_id"] in work:
                return True
            if len(work) < 3 * len(WORKERS):  # others may take all of the first ones
                work.append(made.chaos.submit(api, "long"))
            return False

        wait_for(at_work, f"{name} is at work")
        before = listed()["instance_id"]
        with within("all workers replaced, one after the other"):
            if way != "stopped":
                api.post(f"/workers/{name}/drain", release=str(way == "released").lower())
                wait_for(lambda: listed()["current_operation_id"] is None, f"{name} runs nothing")
            made.workers[name].signal(signal.SIGTERM)
            assert made.workers[name].process.wait(EXIT_S) == 0
            made.worker(name, wait=False)
            wait_for(lambda: (w := listed()) is not None and w["instance_id"] != before, f"{name} is back")
            if way != "stopped":
                api.post(f"/workers/{name}/undrain")
            made.converged()
    return work


@pytest.mark.parametrize("way", ["drained", "released", "stopped"])
def test_a_rolling_restart(way: str, tmp_path: Path, plan: Plan) -> None:
    with fleet(tmp_path, plan.random("rolling")) as made:
        for name in WORKERS:
            made.worker(name)
        stream = Stream(made, plan.random("rolling/stream"))
        work = [operation for name in WORKERS for operation in _replace(made, name, way)]
        views = made.check([*work, *stream.stop()])
        assert {view["status"] for view in views.values()} == {"completed"}
        assert {view["failures"] for view in views.values()} == {0}
        if way == "drained":
            assert {view["attempt"] for view in views.values()} == {1}, (
                "what ran was finished, not given back"
            )
        else:
            assert any(view["attempt"] > 1 for view in views.values()), "somebody's work was given back"
        assert not stream.refused
        no_tracebacks(made.parts)
    again = sum(view["attempt"] > 1 for view in views.values())
    plan.tell(
        f"{len(WORKERS)} workers {way} and restarted under load: {len(views)} operations completed, {again} of them moved"
    )
