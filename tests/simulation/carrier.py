"""What a worker keeps until the backend has it, and the way there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from ktrdr.errors import NotAuthorised, ServerUnreachable
from ktrdr.protocol.messages import DeliverRequest
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.outbox import entry_key
from simulation.jobfiles import Cache
from simulation.shelf import Made

__all__ = ["Link", "Outbox", "Uploads"]


class Outbox:
    """The folder of undelivered results: it survives the worker's processes."""

    def __init__(self, acknowledged: Callable[[DeliverRequest], None]) -> None:
        self._entries: dict[str, DeliverRequest] = {}
        self._acknowledged = acknowledged

    def add(self, delivery: DeliverRequest) -> None:
        self._entries[entry_key(delivery)] = delivery

    def remove(self, key: str) -> None:
        delivery = self._entries.pop(key, None)
        if delivery is not None:
            self._acknowledged(delivery)

    def set_aside(self, key: str) -> None:
        self._entries.pop(key, None)

    def entries(self) -> list[DeliverRequest]:
        return list(self._entries.values())

    def holds(self, key: str) -> bool:
        return key in self._entries


class Uploads:
    def upload(self, digest: str) -> None:
        """Every file is at the backend already."""


class Link(BackendLink):
    """The real link, except that uploads need no thread: a thread would run in real time."""

    cache: Cache

    async def upload(self, digests: Iterable[str]) -> None:
        """To any backend that answers; what is not in the cache was brought before."""
        for digest in digests:
            if digest in self.cache.files:
                await self._bring(digest, *self.cache.files[digest])

    async def _bring(self, digest: str, content: bytes, made: Made) -> None:
        body, first = {"content": content, "made": made}, self._at
        for number in range(len(self._urls)):
            url = self._urls[(first + number) % len(self._urls)]
            with contextlib.suppress(ServerUnreachable):
                path = f"{url}/api/v1/artifacts/{digest}"
                answer = await self._transport.request(
                    "PUT", path, json=body, headers=self._headers, timeout_s=self._timeout_s
                )
                if not answer.ok:
                    raise NotAuthorised(f"{url} does not take the file.")
                return
        raise ServerUnreachable("No backend takes the file.")
