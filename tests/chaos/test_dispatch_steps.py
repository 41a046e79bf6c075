"""The backend is killed at every step of an operation's way; what was acknowledged is done once and told once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from chaos.conftest import Plan
from chaos.fleet import Fleet, fleet
from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from support.bounds import kept
from support.chaos import integrity, no_tracebacks, runs
from support.postgres import Postgres
from support.processes import wait_for
from support.proxy import FaultProxy, Trap

Moment = Literal["before", "after"]
# whose requests, which of them, and whether the backend dies when it passes or when its answer does
STEPS: tuple[tuple[str, str, Moment, str], ...] = (
    ("client", "/retry HTTP", "before", "a submission arrives"),
    ("client", "/retry HTTP", "after", "a submission is in the ledger, its answer on the way"),
    ("into", "POST /backtests/start", "before", "the assignment is in the ledger, the worker not told"),
    ("into", "POST /backtests/start", "after", "the worker has begun, its answer on the way"),
    ("out", "PUT /api/v1/artifacts", "before", "a file of the result arrives"),
    ("out", "PUT /api/v1/artifacts", "after", "a file of the result is stored, the answer on the way"),
    ("out", "/w1/report", "before", "the result arrives"),
    ("out", "/w1/report", "after", "the result is in the ledger, the worker not told"),
)
COMMITS = 5  # of one operation: submitted, assigned, accepted, perhaps renewed, finished
_PATIENCE_S = 2.0  # the port of a dead backend takes connections, because the test holds it open
WRITES = 60  # system calls that write, more than one operation makes


class Dispatch:
    """One worker; the backend is started again whenever it was killed."""

    def __init__(self, made: Fleet) -> None:
        self.fleet = made
        made.worker("w1")
        self.client = FaultProxy(int(made.parts.url.rpartition(":")[2]), made.random)
        self.names: list[str] = []
        self.started_at: float | None = None  # of a backend that was started after one was killed

    def start(self) -> None:
        """The backend again, if it was killed."""
        if self.fleet.backend.process.poll() is not None:
            self.fleet.start_backend()
            self.started_at = time.monotonic()

    def kill(self) -> None:
        os.kill(self.fleet.backend.pid, signal.SIGKILL)

    def run(self, key: str) -> None:
        """Submit under this key until it is acknowledged; wait for the end, in which nobody had to run it again."""
        self.started_at = None

        def submitted() -> str | None:
            self.start()
            try:
                with Api(self.client.url, timeout_s=_PATIENCE_S) as api:
                    return self.fleet.chaos.submit(api, "quick", key)
            except KtrdrError:
                return None

        name = wait_for(submitted, "the submission is acknowledged")
        self.names.append(name)

        def ended() -> bool:
            self.start()
            try:
                with Api(self.fleet.parts.url, timeout_s=_PATIENCE_S) as api:
                    return api.get(f"/operations/{name}")["status"] in ("completed", "failed", "cancelled")
            except KtrdrError:
                return False

        wait_for(ended, f"{name} ends")
        if self.started_at is not None:
            kept("backend killed at any step of a dispatch", time.monotonic() - self.started_at)
        view = self.fleet.check([name])[name]
        assert (view["status"], view["attempt"], view["failures"]) == ("completed", 1, 0), view["story"]
        assert sum(run.startswith(f"{name}.") for run in runs(self.fleet.trace)) == 1

    def close(self) -> None:
        with self.fleet.parts.api() as api:
            total = api.get("/operations", status="completed")["total"]
        assert total == len(set(self.names)), "one operation per key"
        self.client.close()
        no_tracebacks(self.fleet.parts)


@contextmanager
def _dispatch(root: Path, plan: Plan, database: str | None = None) -> Iterator[Dispatch]:
    with fleet(root, plan.random("steps"), database) as made:
        dispatch = Dispatch(made)
        yield dispatch
        dispatch.close()


def test_killed_as_a_message_passes(tmp_path: Path, plan: Plan) -> None:
    with _dispatch(tmp_path, plan) as dispatch:
        link = dispatch.fleet.links["w1"]
        proxies = {"client": dispatch.client, "into": link.into, "out": link.out}
        for number, (whose, text, moment, step) in enumerate(STEPS):
            trap = Trap(text.encode(), moment, dispatch.kill)
            proxies[whose].trap = trap
            dispatch.run(f"step {number}")
            assert trap.sprung.is_set(), f"nobody was killed when {step}"
        assert integrity(dispatch.fleet.parts.home) == "ok"
    plan.tell(f"backend killed as a message passes: {len(STEPS)} of {len(STEPS)} steps")


def test_killed_before_and_after_each_commit_in_postgresql(
    tmp_path: Path, plan: Plan, postgres: Postgres
) -> None:
    name = postgres.database()
    proxy = FaultProxy(postgres.port, plan.random("commits"))
    database = postgres.url(name).replace(f":{postgres.port}/", f":{proxy.port}/")
    moments: tuple[Moment, ...] = ("before", "after")
    killed, commits = 0, 2 if plan.short else COMMITS
    try:
        with _dispatch(tmp_path, plan, database) as dispatch:
            for nth in range(1, commits + 1):
                for moment in moments:
                    proxy.trap = Trap(b"COMMIT", moment, dispatch.kill, nth)
                    trap = proxy.trap
                    dispatch.run(f"{moment} commit {nth}")
                    proxy.trap = None
                    killed += trap.sprung.is_set()
    finally:
        proxy.close()
    assert killed >= 2 * (commits - 1), "an operation makes at least so many commits"
    plan.tell(f"backend killed before and after commits in PostgreSQL: {killed} kills")


@pytest.mark.timeout(600)
def test_killed_while_it_writes_its_sqlite_file(tmp_path: Path, plan: Plan) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian: apt-get install strace)")
    random = plan.random("writes")
    killed = 0
    with _dispatch(tmp_path, plan) as dispatch:
        for number in range(max(3, plan.rounds // 2)):
            nth = random.randint(1, WRITES)
            with _killed_at(dispatch.fleet.backend.pid, nth, tmp_path / f"strace-{number}"):
                before = dispatch.fleet.backend
                dispatch.run(f"write {number}")
                killed += dispatch.fleet.backend is not before
        assert integrity(dispatch.fleet.parts.home) == "ok"
    assert killed > 0, "no write was reached; choose smaller numbers"
    plan.tell(f"backend killed at a random write to SQLite, seed {plan.seed}: {killed} kills")


@contextmanager
def _killed_at(pid: int, nth: int, log: Path) -> Iterator[None]:
    """``kill -9`` at the nth system call that writes at a place of a file or syncs one, counted per thread."""
    calls = "pwrite64,fdatasync,fsync"
    command = ["strace", "-f", "-qq", "-p", str(pid), "-o", str(log), "-e", f"trace={calls}"]
    tracer = subprocess.Popen([*command, "-e", f"inject={calls}:signal=SIGKILL:when={nth}"])
    try:
        _until(lambda: f"TracerPid:\t{tracer.pid}" in Path(f"/proc/{pid}/status").read_text())
        yield
    finally:
        tracer.terminate()
        tracer.wait(30)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "strace cannot attach here (ptrace is forbidden?)"
        time.sleep(0.02)
