"""Several real backends on one PostgreSQL ledger, with workers that know the addresses of all of them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError
from ktrdr.operations.events import CancelRequested
from ktrdr.operations.model import NewOperation, OperationType
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.protocol.specs import canonical_json
from ktrdr.testing.worker_jobs import spec
from support.chaos import PROGRAM
from support.ports import kept_port
from support.processes import Part, Parts, wait_for

__all__ = ["Several", "Stream", "several"]

LEASE_S = 2.0  # of a leader, here
_NONE = timedelta()


class Several:
    """Backends by name, each on an address of its own that it keeps over restarts.

    The backend takes only backtests of trained models; as in :mod:`support.chaos` a cancelled operation with the wanted
    instruction is put into the ledger, and a retry of it submits that work.
    """

    def __init__(self, parts: Parts, database: str) -> None:
        self.parts, self.database = parts, database
        self.backends: dict[str, Part] = {}
        self.workers: dict[str, Part] = {}
        self._ports: dict[str, int] = {}

    def seed(self, instructions: dict[str, str], age: timedelta = _NONE) -> None:
        """Make work that can be submitted by these names, by operations that ended so long ago."""
        asyncio.run(self._seed(instructions, datetime.now(UTC) - age))

    async def _seed(self, instructions: dict[str, str], now: datetime) -> None:
        store = SqlStore(self.database)
        for name, instruction in instructions.items():
            body = canonical_json(spec(instruction))
            new = NewOperation(operation_id=name, operation_type=OperationType.BACKTESTING, spec=body)
            await store.submit(new, now)
            await store.apply(name, CancelRequested(), now)
        await store.close()

    # --- parts ----------------------------------------------------------------------------------------------------

    def reserve(self, *names: str) -> None:
        """Give these backends their addresses before any of them starts."""
        for name in names:
            if (
                name not in self._ports
            ):  # kept, not open: a connection to a backend that is away must be refused
                self._ports[name] = kept_port()
        self.parts.url = self.urls

    @property
    def urls(self) -> str:
        """What goes into KTRDR_API_URL."""
        return ",".join(self.url(name) for name in self._ports)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._ports[name]}"

    def backend(self, name: str, **extra: str) -> Part:
        """Start a backend, or start it again; returns when it answers."""
        self.reserve(name)
        settings = {"KTRDR_DATABASE_URL": self.database, "KTRDR_LEADER_LEASE_S": str(LEASE_S)} | extra
        arguments = ["backend", "start", "--port", str(self._ports[name])]
        part = self.parts.start(f"backend-{name}", arguments, settings)
        self.backends[name] = part

        def answers() -> bool:
            assert part.process.poll() is None, f"{name} ended:\n{part.text()}"
            return bool(self.health(name))

        wait_for(answers, f"backend {name} answers")
        return part

    def worker(self, name: str, *, wait: bool = True, **extra: str) -> Part:
        """Start a worker that knows every backend, and wait until the leader gives it work."""
        settings = {"WORKER_ID": name, "KTRDR_HOME": str(self.parts.home), "KTRDR_API_URL": self.urls} | extra
        part = self.parts.start(name, ["-c", PROGRAM], settings, program=())
        self.workers[name] = part
        if wait:
            wait_for(lambda: self._registered(name), f"worker {name} is available")
        return part

    def _registered(self, name: str) -> bool:
        with contextlib.suppress(KtrdrError, AssertionError), self.api(self.leader()) as api:
            return bool(api.get(f"/workers/{name}")["status"] == "available")
        return False

    def api(self, *names: str) -> Api:
        """A client of these backends, of all without a name."""
        return Api(",".join(self.url(name) for name in names) or self.urls, timeout_s=10.0)

    # --- what they say --------------------------------------------------------------------------------------------

    def health(self, name: str) -> dict[str, Any]:
        """What a backend says of itself; empty where it says nothing."""
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.url(name)}/health", timeout=1.0, trust_env=False)
            return dict(answer.json()) if answer.status_code == 200 else {}
        return {}

    def says(self, name: str) -> dict[str, Any]:
        """The same of one that is up, as soon as it says it: on a busy machine that may take a while."""
        return wait_for(lambda: self.health(name), f"{name} says how it is")

    def leaders(self, but: str = "") -> list[str]:
        """Who says that it leads, of those that are up."""
        names = [name for name in self.backends if name != but]
        return [name for name in names if self.health(name).get("role") == "leader"]

    def leader(self, but: str = "", timeout_s: float = 60.0) -> str:
        """Wait until exactly one leads; its name."""

        def one() -> str | None:
            found = self.leaders(but)
            return found[0] if len(found) == 1 else None

        return wait_for(one, "one backend leads", timeout_s)

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in self.backends if name != leader]

    def submit(self, api: Api, name: str) -> str:
        """Submit the work of this name; the id of an acknowledged operation."""
        return str(api.post(f"/operations/{name}/retry")["operation_id"])


@contextlib.contextmanager
def several(root: Path, database: str) -> Iterator[Several]:
    """A company of backends, all of whose parts are stopped at the end."""
    company = Several(Parts(root, measured=False), database)
    try:
        yield company
    finally:
        company.parts.stop()


class Stream:
    """Submits the same work again and again through all backends; ``acknowledged`` collects what got a 202,
    ``refused`` what got another answer, or none."""

    def __init__(self, company: Several, name: str, pause_s: float = 0.25) -> None:
        self.acknowledged: list[str] = []
        self.refused: list[KtrdrError] = []
        self._company, self._name, self._pause_s = company, name, pause_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(api,)) for api in company.backends]
        for thread in self._threads:
            thread.start()

    def _run(self, first: str) -> None:
        names = sorted(self._company.backends, key=lambda name: name != first)
        with self._company.api(*names) as api:
            while not self._stop.wait(self._pause_s):
                try:
                    self.acknowledged.append(self._company.submit(api, self._name))
                except KtrdrError as error:
                    self.refused.append(error)
                    time.sleep(0.05)

    def stop(self) -> list[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.acknowledged
