"""Several backends under chaos: each behind proxies of its own, clients that repeat what got no answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from chaos.fleet import check_views
from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from support.chaos import ended, runs
from support.postgres import Postgres
from support.processes import Part, wait_for
from support.proxy import FaultProxy, Weather
from support.several import Several, several

__all__ = ["Company", "Repeater", "company"]


class Company:
    """Backends that share a ledger, each with its own road to the database, and the jobs' own diary of what ran."""

    def __init__(self, made: Several, postgres: Postgres, random: Random, *backends: str) -> None:
        self.several, self.postgres, self.random = made, postgres, random
        self.trace = made.parts.root / "trace"
        self.keyed: dict[str, str] = {}  # what was acknowledged, by its Idempotency-Key
        self.streams = 0
        self.enough = self.trace.with_name(
            f"{self.trace.name}.enough"
        )  # where this is, every job comes to its end
        jobs = {"quick": 0.05, "short": 1.0, "long": 3600.0}
        made.seed({name: f"trace {self.trace} {seconds}" for name, seconds in jobs.items()})
        made.reserve(*backends)
        self.roads = {name: FaultProxy(postgres.port, random) for name in backends}
        for name in backends:
            self.backend(name)

    def backend(self, name: str, **extra: str) -> Part:
        """Start a backend, or start it again, on its own road to the database."""
        return self.several.backend(name, **(self.settings(name) | extra))

    @property
    def workers(self) -> dict[str, Part]:
        return self.several.workers

    def worker(self, name: str, *, wait: bool = True) -> Part:
        """Start the worker of this name, or start it again."""
        return self.several.worker(name, wait=wait)

    def settings(self, name: str) -> dict[str, str]:
        """Of a backend."""
        port = self.roads[name].port
        url = self.several.database.replace(f":{self.postgres.port}/", f":{port}/")
        return {"KTRDR_DATABASE_URL": url, "KTRDR_MAX_FAILURES": "1000"}

    def whole(self, timeout_s: float) -> float:
        """Wait until one leads, all answer and know it, and every worker is well; returns how long that took."""
        began = time.monotonic()

        def agreed() -> bool:
            told = [self.several.health(name) for name in self.several.backends]
            if not all(told) or sorted(view["role"] for view in told) != sorted(
                ["leader", *["follower"] * (len(told) - 1)]
            ):
                return False
            return len({view["epoch"] for view in told}) == 1 and all(
                map(self._usable, self.several.backends)
            )

        try:
            wait_for(agreed, "the company is whole", timeout_s)
        except AssertionError as error:
            told = {name: self.several.health(name) for name in self.several.backends}
            raise AssertionError(f"{error}\n{told}") from None
        return time.monotonic() - began

    def _usable(self, backend: str) -> bool:
        try:
            with self.several.api(backend) as api:
                listed = {w["worker_id"]: w["status"] for w in api.get("/workers")["workers"]}
        except KtrdrError:
            return False
        return all(listed.get(name) in ("available", "busy") for name in self.several.workers)

    def submit(self, api: Api, name: str, key: str) -> str:
        """Submit the work of this name under a key; the id of an acknowledged operation."""
        answer = api.request("POST", f"/operations/{name}/retry", headers={"Idempotency-Key": key})
        self.keyed[key] = str(answer.json()["operation_id"])
        return self.keyed[key]

    def check(self, timeout_s: float = 90.0) -> dict[str, Any]:
        """Wait for the end of all; none is lost, none is there twice, none has two results or ran an attempt twice."""
        assert len(set(self.keyed.values())) == len(self.keyed), "two keys gave one operation"
        self.enough.touch()
        with self.several.api() as api:
            views = ended(api, list(self.keyed.values()), timeout_s)
            listed = {view["operation_id"] for view in api.pages("/operations", "operations")}
        self.enough.unlink()
        assert listed == set(views) | {"quick", "short", "long"}, "an operation that no key was answered with"
        check_views(views, runs(self.trace))
        return views

    def close(self) -> None:
        for road in self.roads.values():
            road.close()


@contextmanager
def company(root: Path, postgres: Postgres, random: Random, *backends: str) -> Iterator[Company]:
    """Started backends; everything ends with the block, whatever state it is in."""
    with several(root, postgres.url(postgres.database())) as made:
        filled = None
        try:
            filled = Company(made, postgres, random, *backends)
            yield filled
            for road in filled.roads.values():
                road.change(Weather())
        finally:
            made.parts.stop()
            if filled is not None:
                filled.close()


class Repeater:
    """Clients, one for each backend, that submit under keys and repeat at the next backend until they are answered."""

    def __init__(self, made: Company, pause_s: float = 0.3) -> None:
        self.taken = 0
        self.refused: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._made, self._pause_s = made, pause_s
        made.streams += 1
        self._stop = threading.Event()
        names = sorted(made.several.backends)
        self._threads = [
            threading.Thread(target=self._run, args=(name, names), daemon=True) for name in names
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, first: str, names: list[str]) -> None:
        number, at = 0, names.index(first)
        while not self._stop.wait(self._pause_s):
            number += 1
            key = f"{self._made.streams} {first} {number}"
            while not self._submitted(names[at], key):
                at = (at + 1) % len(names)
                # a key that was sent may be in the ledger: it is repeated until somebody says so, also after the end
                time.sleep(0.2)

    def _submitted(self, backend: str, key: str) -> bool:
        name = "short" if key[-1] in "37" else "quick"
        began = time.monotonic()
        try:
            with Api(self._made.several.url(backend), timeout_s=15.0) as api:
                self._made.submit(api, name, key)
        except KtrdrError as error:
            self.refused[type(error).__name__] += 1
            return False
        finally:
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.taken += 1
        return True

    def stop(self) -> None:
        """End once every key was answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), f"a submission is repeated in vain: {self.refused}"
