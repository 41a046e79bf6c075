"""A backend among others of the same ledger: what it tells them, what it makes of their news, and in which role."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from ktrdr.backend.cluster.bulletin import Bulletin, heard
from ktrdr.backend.cluster.mirror import Mirror, Poster
from ktrdr.backend.cluster.roles import Roles
from ktrdr.backend.cluster.sharing import Cluster
from ktrdr.backend.config import BackendConfig
from ktrdr.backend.dispatch.dispatcher import Dispatcher
from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.fleet.registry import WorkerRegistry
from ktrdr.backend.operations.hub import Hub
from ktrdr.backend.operations.joblogs import JobLogs
from ktrdr.backend.operations.service import OperationsService
from ktrdr.clock import Clock
from ktrdr.errors import NotLeader, Unavailable
from ktrdr.operations.leadership import Leader
from ktrdr.operations.store import OperationStore

__all__ = ["Company"]

_log = logging.getLogger("ktrdr.backend")
_LOOK_S = 2.0  # how often a leader looks for work that nobody told it of
_STALE_UPLOADS_S = 86_400.0
_RETRY_S = 1.0


class Member(Protocol):
    """What the company asks of its backend."""

    @property
    def config(self) -> BackendConfig: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> OperationStore: ...
    @property
    def registry(self) -> WorkerRegistry: ...
    @property
    def fleet(self) -> Fleet: ...
    @property
    def operations(self) -> OperationsService: ...
    @property
    def dispatcher(self) -> Dispatcher: ...
    @property
    def hub(self) -> Hub: ...
    @property
    def logs(self) -> JobLogs: ...

    async def take_over(self) -> None:
        """Read the ledger and take up what runs."""

    def leading(self) -> list[Coroutine[Any, Any, None]]:
        """What a leader does all the time."""


class Company:
    """The parts that a backend has only where it shares its ledger.

    Parameters
    ----------
    backend
        The backend, all of whose other parts are there already.
    cluster
        The election, the board, the fence.
    """

    def __init__(self, backend: Member, cluster: Cluster) -> None:
        self._backend = backend
        self._leadership = cluster.leadership
        self.bulletin = Bulletin(cluster.leadership.tell)
        self.mirror = Mirror(
            backend.store, cluster.board, backend.registry, backend.clock, backend.operations.progress
        )
        self._poster = Poster(
            cluster.board, backend.registry, backend.config.control.health_failures, self.bulletin.workers
        )
        self.roles = Roles(
            cluster.leadership,
            cluster.fence,
            take=self._take,
            leave=self._leave,
            leading=self._leading,
            following=self._following,
        )
        self.own_folder = f"{socket.gethostname()}-{os.getpid()}"
        backend.logs.rest()
        backend.operations.announce = self.bulletin.changed
        backend.operations.submitted = self._submitted
        cluster.leadership.on_news = self._hear

    @property
    def epoch(self) -> int | None:
        """The newest term that is known."""
        return None if self._leadership.leader is None else self._leadership.leader.epoch

    def must_lead(self) -> None:
        """Raises NotLeader unless this backend leads."""
        if self.roles.epoch is not None:
            return
        leader = self._other
        who = (
            f"the leader is the {leader} (epoch {self.epoch})"
            if leader is not None
            else "the backends are choosing a leader"
        )
        raise NotLeader(
            f"This backend does not lead and does not talk to workers; {who}. List the addresses of all backends in "
            "KTRDR_API_URL, separated by commas.",
            _RETRY_S,
        )

    async def must_lead_or_say_why(self) -> None:
        """As :meth:`must_lead`, for requests of people: where no other leader is known, a ledger that does not answer
        is told of. It stays NotLeader, because nothing was done and another backend may still reach the ledger."""
        try:
            self.must_lead()
        except NotLeader:
            if self._other is None:
                try:
                    await self._backend.store.paused()
                except Unavailable as away:
                    raise NotLeader(
                        f"This backend cannot lead while its ledger does not answer. {away}", _RETRY_S
                    ) from None
            raise

    @property
    def _other(self) -> Leader | None:
        """The newest leader known, if it is another backend."""
        leader = self._leadership.leader
        return None if leader is None or leader.name == self._leadership.name else leader

    async def stop(self) -> None:
        """Let another lead."""
        await self.roles.stop()
        await self.bulletin.close()
        shutil.rmtree(self._backend.config.home / "uploads" / self.own_folder, ignore_errors=True)

    def tidy(self, uploads: Path) -> None:
        """Remove what backends left that did not end by themselves, as far as nobody can be using it."""
        for folder in uploads.glob("*"):
            with contextlib.suppress(FileNotFoundError):  # another backend stopped, or tidied, just now
                if time.time() - folder.stat().st_mtime > _STALE_UPLOADS_S:
                    shutil.rmtree(folder, ignore_errors=True)

    # --- roles --------------------------------------------------------------------------------------------------

    async def _take(self) -> None:
        self.mirror.active = False
        await self._backend.take_over()

    async def _leave(self) -> None:
        await self._backend.fleet.rest()
        self._backend.dispatcher.rest()

    def _leading(self) -> list[Coroutine[Any, Any, None]]:
        return [*self._backend.leading(), self._poster.run(), self._look_for_work()]

    def _following(self) -> list[Coroutine[Any, Any, None]]:
        self._backend.logs.rest()
        self.mirror.active = True
        return [self.mirror.run(), self._read_pauses()]

    async def _read_pauses(self) -> None:
        """What is paused, for those who are shown it; nothing is dispatched here."""
        while True:
            with contextlib.suppress(Unavailable):
                await self._backend.operations.pauses.read()
            await asyncio.sleep(_LOOK_S)

    async def _look_for_work(self) -> None:
        """News may get lost; work must not."""
        while True:
            await asyncio.sleep(_LOOK_S)
            self._backend.dispatcher.wake()

    def _submitted(self) -> None:
        if self.roles.epoch is None:
            self.bulletin.submitted()

    # --- news ---------------------------------------------------------------------------------------------------

    def _hear(self, news: str) -> None:
        told = heard(news)
        backend = self._backend
        if self.roles.epoch is None:
            backend.operations.leases.honour_all()  # of interest to a leader only
            self.mirror.stale()
            for operation_id in told.operations:
                backend.hub.changed(operation_id)
            return
        if told.operations:
            backend.fleet.spawn(self._catch_up(list(told.operations)), "news of operations")
        backend.dispatcher.wake()

    async def _catch_up(self, operation_ids: list[str]) -> None:
        try:
            for operation_id in operation_ids:
                await self._backend.operations.catch_up(operation_id)
        except Unavailable as error:  # the probes find out what a slot is held for
            _log.debug("News cannot be looked up: %s", error)
        self._backend.dispatcher.wake()
