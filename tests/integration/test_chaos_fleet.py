"""Parts of a fleet are killed, stopped and cut off; no acknowledged operation is lost, none counts twice."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from support.bounds import within
from support.chaos import Chaos, ended, integrity, no_tracebacks, runs
from support.processes import CALM, Parts, advancing, descendants, in_status, parts, wait_for
from support.stream import Stream

pytestmark = pytest.mark.integration
SHORT = {"KTRDR_LEASE_S": "3", "KTRDR_HEALTH_INTERVAL_S": "0.2"}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path, measured=False) as running:
        yield running


def _deliveries(view: Any) -> list[str]:
    """Lines of the story in which a result was accepted."""
    return [line for line in view["story"] if " delivered " in line]


def test_kill_9_of_the_backend_during_a_stream_of_submissions(alone: Parts, tmp_path: Path) -> None:
    random = Random(7)
    trace = tmp_path / "trace"
    chaos = Chaos(alone, quick=f"trace {trace} 0.05")
    backend = alone.backend()
    for name in ("w1", "w2"):
        chaos.worker(name)
    stream = Stream(chaos, "quick")
    for number in range(2):
        wait_for(lambda n=number: len(stream.acknowledged) >= 3 * (n + 1), "submissions are acknowledged")
        time.sleep(random.uniform(0.0, 0.5))
        backend.kill()
        backend = alone.backend()
    acknowledged = stream.stop()
    with alone.api() as api:
        views = ended(api, acknowledged)
    assert Counter(view["status"] for view in views.values()) == {"completed": len(acknowledged)}
    assert all(len(_deliveries(view)) == 1 for view in views.values())
    # Workers were never touched: what ran was adopted, so nothing was done twice.
    began = Counter(run.rpartition(".")[0] for run in runs(trace).elements())
    assert {began[name] for name in acknowledged} == {1}
    assert integrity(alone.home) == "ok"
    no_tracebacks(alone)


def test_a_worker_killed_while_busy_comes_back_under_its_name(alone: Parts, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    chaos = Chaos(alone, long=f"trace {trace} 3600")
    alone.backend(**CALM)
    worker = chaos.worker("w1")
    with alone.api() as api:
        name = chaos.submit(api, "long")
        advancing(api, name)
        family = descendants(worker.pid)
        worker.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, "kill -9 of the worker ends its jobs too"
        (tmp_path / "trace.enough").touch()  # the next attempt has an end
        killed = api.get("/workers/w1")["instance_id"]
        assert api.get(f"/operations/{name}")["status"] == "running"
        chaos.worker("w1", wait=False)
        wait_for(lambda: api.get("/workers/w1")["instance_id"] != killed, "it is back")
        with within("worker process killed, and started again"):
            wait_for(lambda: api.get(f"/operations/{name}")["attempt"] == 2, "its work is done again")
        view = ended(api, [name])[name]
    assert (view["status"], view["attempt"], view["failures"]) == ("completed", 2, 1)
    assert any("it restarted" in line for line in view["story"]), view["story"]
    assert runs(trace) == {f"{name}.1": 1, f"{name}.2": 1}
    assert runs(trace, "end") == {f"{name}.2": 1}
    no_tracebacks(alone)


def test_a_worker_that_was_stopped_past_its_lease_counts_no_more(alone: Parts, tmp_path: Path) -> None:
    """Only the worker stands still; its job goes on, to an end or without one."""
    trace = tmp_path / "trace"
    brief = tmp_path / "brief"
    chaos = Chaos(alone, short=f"trace {brief} 3600", endless=f"trace {trace} 3600")
    alone.backend(**SHORT)
    workers = {"w1": chaos.worker("w1")}
    with alone.api() as api:

        def taken_over(name: str) -> Any:
            """Stop the worker of the first attempt past its lease; the operation, once another worker has it."""
            holder = advancing(api, name)["worker_id"]
            workers[holder].signal(signal.SIGSTOP)
            for other in {"w1", "w2"} - set(workers):
                workers[other] = chaos.worker(other, wait=False)  # it may be given the work at once
            view = wait_for(
                lambda: v if (v := api.get(f"/operations/{name}"))["attempt"] == 2 else None, "attempt 2"
            )
            assert (view["failures"], view["worker_id"] != holder) == (1, True), view["story"]
            return holder

        short = chaos.submit(api, "short")
        holder = taken_over(short)
        (tmp_path / "brief.enough").touch()
        wait_for(lambda: runs(brief, "end")[f"{short}.1"], "the first attempt's job ends unheard")
        workers[holder].signal(signal.SIGCONT)
        view = ended(api, [short])[short]
        alone.wait_worker(holder, "available")
        assert (view["status"], view["attempt"], len(_deliveries(view))) == ("completed", 2, 1), view["story"]

        endless = chaos.submit(api, "endless")
        holder = taken_over(endless)
        workers[holder].signal(signal.SIGCONT)
        alone.wait_worker(holder, "available")  # its stray was stopped, though nobody cancelled the operation
        assert api.get(f"/operations/{endless}")["status"] == "running"
        api.post(f"/operations/{endless}/cancel")
        assert ended(api, [endless])[endless]["status"] == "cancelled"
    for written, name in ((brief, short), (trace, endless)):
        assert runs(written) == {f"{name}.{attempt}": 1 for attempt in (1, 2)}
    no_tracebacks(alone)


def test_a_cancel_races_with_the_end(alone: Parts, tmp_path: Path) -> None:
    random = Random(3)
    trace = tmp_path / "trace"
    chaos = Chaos(alone, quick=f"trace {trace} 0.1")
    alone.backend()
    for name in ("w1", "w2"):
        chaos.worker(name)
    promised: dict[str, str] = {}
    with alone.api() as api:
        # On a loaded machine the end comes late: the wait grows until both have won once.
        while len(promised) < 16 or (len(set(promised.values())) == 1 and len(promised) < 80):
            name = chaos.submit(api, "quick")
            time.sleep(random.uniform(0.0, 0.25) * max(1.0, len(promised) / 16))
            promised[name] = api.post(f"/operations/{name}/cancel")["status"]
        views = ended(api, list(promised))
        for name, view in views.items():
            if promised[name] in ("cancelled", "cancelling"):
                assert view["status"] == "cancelled", view["story"]
                assert not view["artifacts"].get("result")
            else:
                assert view["status"] == promised[name] == "completed"
        for worker in ("w1", "w2"):
            alone.wait_worker(worker, "available")
    assert len(set(promised.values())) > 1, "the race was one-sided"
    no_tracebacks(alone)


def test_a_busy_worker_ends_in_time_though_its_backend_hangs(alone: Parts) -> None:
    """The backend takes connections and never answers; the job hears nothing; the network is waited for long."""
    chaos = Chaos(alone, deaf="deaf 600")
    backend = alone.backend()
    worker = chaos.worker("w1", KTRDR_HTTP_TIMEOUT_S="60", KTRDR_CANCEL_GRACE_S="1")
    with alone.api() as api:
        name = chaos.submit(api, "deaf")
        in_status(api, name, "running")
        wait_for(lambda: len(descendants(worker.pid)) == 2, "the job's process")
        family = descendants(worker.pid)
        backend.signal(signal.SIGSTOP)
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(25) == 0
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
        backend.signal(signal.SIGCONT)
        chaos.worker("w1", wait=False)
        view = in_status(api, name, "running")
        assert view["failures"] <= 1
        api.post(f"/operations/{name}/cancel")
        assert ended(api, [name])[name]["status"] == "cancelled"
    no_tracebacks(alone)


def test_a_result_waits_for_the_backend_and_outlives_the_worker(alone: Parts, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    chaos = Chaos(alone, long=f"trace {trace} 120")
    backend = alone.backend(**CALM)
    workers = {name: chaos.worker(name) for name in ("w1", "w2")}
    with alone.api() as api:
        names = [chaos.submit(api, "long") for _ in range(2)]
        views = [advancing(api, name) for name in names]
    backend.kill()
    (tmp_path / "trace.enough").touch()
    wait_for(lambda: len(runs(trace, "end")) == 2, "both jobs end")
    for worker in workers:
        outbox = alone.home / "workers" / worker / "outbox"
        wait_for(lambda outbox=outbox: list(outbox.glob("*.json")), f"the result waits at {worker}")
    restarted = views[0]["worker_id"]
    workers[restarted].kill()  # one of the two does not even live to see the backend again
    chaos.worker(restarted, wait=False)
    alone.backend(**CALM)
    with alone.api() as api:
        done = ended(api, names)
    assert {(v["status"], v["attempt"], v["failures"]) for v in done.values()} == {("completed", 1, 0)}
    assert {v["progress"]["percentage"] for v in done.values()} == {100.0}
    assert sum(runs(trace).values()) == 2
    no_tracebacks(alone)
