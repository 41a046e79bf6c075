"""One failure at a time, in a fleet of two workers: what its user sees, and that it is over within the promised bound."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chaos.conftest import Plan
from chaos.faults import NETWORK, jobs_of
from chaos.fleet import Fleet, fleet
from ktrdr.cli.client import Api
from ktrdr.errors import NoAnswer, ServerUnreachable
from support.bounds import LEASES, within
from support.chaos import no_tracebacks
from support.processes import wait_for
from support.proxy import Weather

WORKERS = ("w1", "w2")
GRACE_S = 3.0  # KTRDR_CANCEL_GRACE_S in tests
FROZEN = "worker frozen (SIGSTOP)"
CUTS = {
    "network refuses": "network cut between backend and worker, both ways",
    "network cut to worker": "network cut one way",
    "network cut to backend": "network cut one way",
    "network half open": "connections half open: nothing arrives, nothing breaks",
}


class Bed:
    """A fleet that outlives the test of a failure, unless that left it broken."""

    def __init__(self, made: Fleet) -> None:
        self.fleet, self.whole = made, True
        self._enough = made.enough

    def begin(self, api: Api) -> tuple[str, str]:
        """An operation that runs until :meth:`end`, and the worker that has it."""
        self.whole = False
        name = self.fleet.chaos.submit(api, "endless")
        return name, self.attempt(api, name, 1)["worker_id"]

    def attempt(self, api: Api, name: str, number: int) -> Any:
        """Wait until this attempt runs and its job advances."""

        def runs_() -> Any:
            view = api.get(f"/operations/{name}")
            assert view["completed_at"] is None, view["story"]
            told = view["status"] == "running" and view["progress"]["items_done"]
            return view if view["attempt"] == number and told else None

        return wait_for(runs_, f"attempt {number} of {name} runs")

    def worker(self, api: Api, name: str) -> Any:
        """What the backend says of a worker."""
        return next((w for w in api.get("/workers")["workers"] if w["worker_id"] == name), {})

    def stop_jobs(self) -> None:
        """Jobs that are under way come to their end."""
        self._enough.touch()

    def end(self, *names: str) -> dict[str, Any]:
        """Let every job come to its end; what became of these operations."""
        self.stop_jobs()
        views = self.fleet.check(names)
        self._enough.unlink()
        self.fleet.converged()
        self.whole = True
        return views


@contextmanager
def _bed(root: Path) -> Iterator[Bed]:
    with fleet(root, Random("bounds")) as made:
        for name in WORKERS:
            made.worker(name, wait=name == WORKERS[-1])
        made.converged()
        yield Bed(made)
        no_tracebacks(made.parts)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bed]]:
    """The fleet of the test before, or a new one where that one failed."""
    with ExitStack() as stack:
        beds: list[Bed] = []

        def usable() -> Bed:
            if not beds or not beds[-1].whole:
                stack.close()
                beds.append(stack.enter_context(_bed(tmp_path_factory.mktemp("bounds"))))
            return beds[-1]

        yield usable


@pytest.fixture
def bed(made_up: Callable[[], Bed]) -> Bed:
    return made_up()


@contextmanager
def _timed(plan: Plan, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    plan.tell(f"{what}: {time.monotonic() - began:.1f} s")


def _lost(bed: Bed, api: Api, name: str, holder: str) -> None:
    """Wait for what is seen of a worker that is not heard: unavailable, then its work is somebody else's."""
    wait_for(  # and after some seconds it is forgotten
        lambda: bed.worker(api, holder).get("status") in ("temporarily_unavailable", None),
        f"{holder} is unavailable",
    )
    view = bed.attempt(api, name, 2)
    assert (view["failures"], view["worker_id"] != holder) == (1, True), view["story"]


def test_a_worker_is_killed_for_good(bed: Bed, plan: Plan) -> None:
    with bed.fleet.parts.api() as api:
        name, holder = bed.begin(api)
        bed.fleet.workers[holder].kill()
        event = "worker process killed for good"
        with _timed(plan, event), within(event, LEASES):
            _lost(bed, api, name, holder)
        bed.fleet.worker(holder)
        assert bed.end(name)[name]["status"] == "completed"


def test_a_job_is_killed_twice(bed: Bed, plan: Plan) -> None:
    event = "job's process killed"
    with bed.fleet.parts.api() as api:
        name, first = bed.begin(api)
        [job] = jobs_of(bed.fleet.workers[first])
        job.kill()
        with _timed(plan, event), within(event):
            second = bed.attempt(api, name, 2)["worker_id"]
        assert second != first, "another worker has it"
        [job] = jobs_of(bed.fleet.workers[second])
        job.kill()
        with _timed(plan, f"{event} again"), within(event):
            wait_for(lambda: api.get(f"/operations/{name}")["completed_at"], "it has failed")
        view = bed.end(name)[name]
        assert view["status"] == "failed"
        for told in ("The job's process died", "SIGKILL", "peak memory"):
            assert told in view["error"], view["error"]


def test_a_worker_stands_still_and_is_back(bed: Bed, plan: Plan) -> None:
    with bed.fleet.parts.api() as api:
        name, holder = bed.begin(api)
        worker = bed.fleet.workers[holder]
        worker.signal(signal.SIGSTOP)
        time.sleep(1.0)
        worker.signal(signal.SIGCONT)
        wait_for(lambda: bed.worker(api, holder).get("status") == "busy", "it is heard again")
        view = api.get(f"/operations/{name}")
        assert (view["attempt"], view["failures"], view["worker_id"]) == (1, 0, holder), (
            "within its lease: nothing"
        )

        worker.signal(signal.SIGSTOP)
        with _timed(plan, FROZEN), within(FROZEN, LEASES):
            _lost(bed, api, name, holder)
        assert jobs_of(worker), "its job goes on unheard"
        worker.signal(signal.SIGCONT)
        event = "frozen worker is back"
        with _timed(plan, event), within(event, GRACE_S):
            wait_for(
                lambda: bed.worker(api, holder).get("status") == "available" and not jobs_of(worker),
                "its job is stopped and it takes work again",
            )
        assert api.get(f"/operations/{name}")["status"] == "running", "nobody cancelled the operation"
        view = bed.end(name)[name]
        assert (view["status"], view["attempt"]) == ("completed", 2)


@pytest.mark.parametrize("cut", CUTS)
def test_a_worker_is_cut_off(cut: str, bed: Bed, plan: Plan) -> None:
    event = CUTS[cut]
    with bed.fleet.parts.api() as api:
        name, holder = bed.begin(api)
        heal = NETWORK[cut](bed.fleet, holder, bed.fleet.random)
        with _timed(plan, f"{event} ({cut})"), within(event, LEASES):
            _lost(bed, api, name, holder)
        assert jobs_of(bed.fleet.workers[holder]), "its job goes on unheard"
        bed.stop_jobs()
        outbox = bed.fleet.parts.home / "workers" / holder / "outbox"
        wait_for(lambda: list(outbox.glob("*.json")), "the result waits on the worker's disk")
        heal()
        view = bed.end(name)[name]
        assert (view["status"], view["attempt"]) == ("completed", 2)
        wait_for(lambda: not list(outbox.glob("*.json")), "the result was told and came too late")


def test_a_cut_that_heals_within_the_lease_costs_nothing(bed: Bed, plan: Plan) -> None:
    with bed.fleet.parts.api() as api:
        name, holder = bed.begin(api)
        heal = NETWORK["network refuses"](bed.fleet, holder, bed.fleet.random)
        bed.stop_jobs()
        outbox = bed.fleet.parts.home / "workers" / holder / "outbox"
        wait_for(lambda: list(outbox.glob("*.json")), "the result waits on the worker's disk")
        heal()
        view = bed.end(name)[name]
        assert (view["status"], view["attempt"], view["failures"]) == ("completed", 1, 0)


def test_a_network_that_is_slow_and_loses_and_cuts(bed: Bed, plan: Plan) -> None:
    event = "network slow, lossy, or answers cut in the middle"
    links = [bed.fleet.links[name] for name in WORKERS]
    with bed.fleet.parts.api() as api:
        for link in links:
            link.change(Weather(delay_s=0.3, lost=0.1))
        with _timed(plan, f"{event}: a short operation"), within(event):
            name = bed.fleet.chaos.submit(api, "short")
            wait_for(lambda: api.get(f"/operations/{name}")["completed_at"], "it ends all the same")
        for link in links:
            link.heal()
        bed.fleet.converged()

        kept, holder = bed.begin(api)
        bed.fleet.links[holder].change(Weather(cut_after=60))
        bed.stop_jobs()
        outbox = bed.fleet.parts.home / "workers" / holder / "outbox"
        wait_for(lambda: list(outbox.glob("*.json")), "the result waits")
        wait_for(lambda: bed.fleet.links[holder].counts()["cut"] > 2, "answers are cut")
        bed.fleet.links[holder].heal()
        with _timed(plan, f"{event}: told again"), within(event):
            view = bed.end(name, kept)[kept]
        assert view["status"] == "completed", view["story"]


def test_the_backend_is_killed_and_started_again(bed: Bed, plan: Plan) -> None:
    event, made = "backend killed, or stopped", bed.fleet
    with made.parts.api() as api:
        busy = [bed.begin(api)[0] for _ in WORKERS]
        waiting = made.chaos.submit(api, "quick")
        made.backend.kill()  # its port is held, so that a connection to nobody waits
        with pytest.raises((NoAnswer, ServerUnreachable)), Api(made.parts.url, timeout_s=1.0) as other:
            other.get("/operations")
    assert all(jobs_of(made.workers[name]) for name in WORKERS), "jobs go on"
    made.start_backend()
    with made.parts.api() as api, _timed(plan, event), within(event):
        for name in busy:
            view = bed.attempt(api, name, 1)
            assert view["failures"] == 0, "it is adopted"
        bed.stop_jobs()
        wait_for(lambda: api.get(f"/operations/{waiting}")["completed_at"], "the rest is dispatched")
    views = bed.end(*busy, waiting)
    assert {(view["attempt"], view["failures"]) for view in views.values()} == {(1, 0)}, (
        "nothing is run again"
    )


def test_the_backend_stands_still(bed: Bed, plan: Plan) -> None:
    event, made = "backend frozen and back", bed.fleet
    with made.parts.api() as api:
        name, _ = bed.begin(api)
        made.backend.signal(signal.SIGSTOP)
        try:
            with pytest.raises(NoAnswer), Api(made.parts.url, timeout_s=6.0) as other:  # a lease is 4 s
                other.get("/operations")
        finally:
            made.backend.signal(signal.SIGCONT)
        with _timed(plan, event), within(event):
            bed.attempt(api, name, 1)
            made.converged()
        view = bed.end(name)[name]
        assert (view["attempt"], view["failures"]) == (1, 0), "no lease ends because nobody could renew it"


def test_messages_come_twice_and_late(bed: Bed, plan: Plan) -> None:
    event = "messages doubled, or minutes late"
    for name in WORKERS:
        bed.fleet.links[name].change(Weather(doubled=1.0, late_s=0.5))
    with bed.fleet.parts.api() as api:
        name = bed.fleet.chaos.submit(api, "short")
        with _timed(plan, event), within(event):
            wait_for(lambda: api.get(f"/operations/{name}")["completed_at"], "it ends as ever")
        wait_for(
            lambda: any("ignored" in line for line in api.get(f"/operations/{name}")["story"]),
            "its story says that something was ignored",
        )
    for worker in WORKERS:
        bed.fleet.links[worker].heal()
    view = bed.end(name)[name]
    assert (view["attempt"], view["failures"]) == (1, 0)


def test_a_submission_is_repeated(bed: Bed, plan: Plan) -> None:
    event = "a submission repeated because its answer was lost"
    with bed.fleet.parts.api() as api:
        first = bed.fleet.chaos.submit(api, "quick", "the same key")
        with within(event):
            assert bed.fleet.chaos.submit(api, "quick", "the same key") == first
        assert bed.end(first)[first]["attempt"] == 1
