"""A fleet whose every connection between backend and workers passes a proxy that can misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from support.chaos import Chaos, ended, runs
from support.ports import kept_port
from support.processes import Part, Parts, parts, wait_for
from support.proxy import FaultProxy, Weather

__all__ = ["JOBS", "Fleet", "Link", "Stream", "check_views", "fleet"]

# The machine may lose as many attempts as it likes; what is tested is that nothing else is lost.
SETTINGS = {"KTRDR_MAX_FAILURES": "1000", "KTRDR_HTTP_TIMEOUT_S": "3"}
EMPTY: Mapping[str, str] = {}
JOBS = {"quick": 0.05, "short": 0.4, "long": 2.5, "slow": 8.0}


class Link:
    """The two ways between one worker and the backend."""

    def __init__(self, backend_port: int, worker_port: int, random: Random) -> None:
        self.out = FaultProxy(backend_port, random)  # the worker's requests
        self.into = FaultProxy(worker_port, random)  # the backend's requests
        self.worker_port = worker_port

    def change(self, weather: Weather, *, reset: bool = False) -> None:
        for proxy in (self.out, self.into):
            proxy.change(weather, reset=reset)

    def heal(self, *, reset: bool = False) -> None:
        self.change(Weather(), reset=reset)

    def counts(self) -> Counter[str]:
        return self.out.counts + self.into.counts

    def close(self) -> None:
        self.out.close()
        self.into.close()


class Fleet:
    """One backend, its workers, their links, and the jobs' own diary of what ran."""

    def __init__(
        self, running: Parts, random: Random, database: str | None = None, backend: Mapping[str, str] = EMPTY
    ) -> None:
        self.parts, self.random = running, random
        self.trace = running.root / "trace"
        lengths = JOBS | {"endless": 3600.0}  # until there is a file trace.enough
        jobs = {name: f"trace {self.trace} {seconds}" for name, seconds in lengths.items()}
        self.chaos = Chaos(running, database, **jobs)
        self._settings = SETTINGS | ({"KTRDR_DATABASE_URL": database} if database else {}) | dict(backend)
        self.backend = self.start_backend()
        self.workers: dict[str, Part] = {}
        self.links: dict[str, Link] = {}

    @property
    def enough(self) -> Path:
        """Where this file is, every job comes to its end."""
        return self.trace.with_name(f"{self.trace.name}.enough")

    def start_backend(self) -> Part:
        self.backend = self.parts.backend(**self._settings)
        return self.backend

    def worker(self, name: str, *, wait: bool = True, **extra: str) -> Part:
        """Start the worker of this name, or start it again where it was."""
        if name not in self.links:
            backend_port = int(self.parts.url.rpartition(":")[2])
            self.links[name] = Link(backend_port, kept_port(), self.random)
        link = self.links[name]
        settings = SETTINGS | {
            "KTRDR_API_URL": link.out.url,
            "WORKER_ENDPOINT_URL": link.into.url,
            "WORKER_PORT": str(link.worker_port),
        }
        self.workers[name] = self.chaos.worker(name, wait=wait, **(settings | extra))
        return self.workers[name]

    def converged(self, timeout_s: float = 60.0) -> float:
        """Wait until every worker was probed with success from now on; returns how long that took.

        The backend's wall clock must be the machine's.
        """
        began, since = time.monotonic(), datetime.now(UTC)

        def all_usable() -> bool:
            try:
                with self.parts.api() as api:
                    listed = {w["worker_id"]: w for w in api.get("/workers")["workers"]}
            except KtrdrError:
                return False
            return all(name in listed and _usable(listed[name], since) for name in self.workers)

        wait_for(all_usable, "every worker is usable", timeout_s)
        return time.monotonic() - began

    def check(self, acknowledged: Iterable[str], timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait for the end of all; none is lost, none has two results, no attempt ran twice."""
        acknowledged = list(acknowledged)
        with self.parts.api() as api:
            try:
                views = ended(api, acknowledged, timeout_s)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self._unfinished(api, acknowledged)}") from None
        check_views(views, runs(self.trace))
        return views

    def _unfinished(self, api: Api, names: list[str]) -> str:
        workers = "\n".join(str(worker) for worker in api.get("/workers")["workers"])
        views = [api.get(f"/operations/{name}") for name in names]
        open_ = [view for view in views if view["completed_at"] is None]
        return "\n".join([workers, *(f"{v['operation_id']}: {v['waiting_for']} {v['story']}" for v in open_)])

    def close(self) -> None:
        for link in self.links.values():
            link.close()


@contextmanager
def fleet(
    root: Path, random: Random, database: str | None = None, backend: Mapping[str, str] = EMPTY
) -> Iterator[Fleet]:
    """A backend with settings of its own; everything ends with the block, whatever state it is in."""
    with parts(root) as running:
        made = Fleet(running, random, database, backend)
        try:
            yield made
        finally:
            for link in made.links.values():
                link.heal()
            try:
                running.stop()
            finally:
                made.close()


def check_views(views: Mapping[str, Any], began: Counter[str]) -> None:
    """Each operation completed by one result, that of its newest attempt; no attempt of any began twice."""
    for name, view in views.items():
        story = "\n".join(view["story"])
        delivered = [line for line in view["story"] if " delivered " in line]
        if view["status"] == "failed":  # the one end that a fault may bring: killed again after its retry
            assert "process died" in view["error"], f"{view['error']}\n{story}"
            continue
        assert view["status"] == "completed", story
        assert len(delivered) == 1, story
        run = f"{name}.{view['attempt']}"
        made = hashlib.sha256(f"result of {run}".encode()).hexdigest()
        assert view["artifacts"]["result"] == made, f"the result is not that of {run}\n{story}"
        assert began[run] == 1, f"{run} began {began[run]} times\n{story}"
        attempts = {int(r.rpartition(".")[2]) for r in began if r.rpartition(".")[0] == name}
        assert max(attempts) == view["attempt"], story
    twice = {run: count for run, count in began.items() if count > 1}
    assert not twice, f"attempts that began twice: {twice}"


def _usable(worker: dict[str, Any], since: datetime) -> bool:
    heard = worker["last_healthy_at"]
    fresh = heard is not None and datetime.fromisoformat(heard) > since
    return fresh and worker["status"] in ("available", "busy")


class Stream:
    """Submits work all the time, as a client does that repeats what got no answer under the same key."""

    def __init__(self, made: Fleet, random: Random, pause_s: float = 0.4) -> None:
        self.acknowledged: list[str] = []
        self.refused: Counter[str] = Counter()
        self._fleet, self._random, self._pause_s = made, random, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(self._pause_s):
            number += 1
            name = self._random.choices(list(JOBS), (60, 30, 10, 1))[0]
            while not self._submitted(name, f"stream-{number}") and not self._stop.wait(0.2):
                pass

    def _submitted(self, name: str, key: str) -> bool:
        try:
            with Api(self._fleet.parts.url, timeout_s=5.0) as api:
                self.acknowledged.append(self._fleet.chaos.submit(api, name, key))
        except KtrdrError as error:
            self.refused[type(error).__name__] += 1
            return False
        return True

    def stop(self) -> list[str]:
        self._stop.set()
        self._thread.join(30)
        return self.acknowledged
