"""What is new of an operation, looked at once for everybody who watches it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ktrdr.backend.fleet.calls import Fleet
from ktrdr.backend.operations.hub import Hub
from ktrdr.operations.model import OperationStatus
from ktrdr.protocol.etags import etag_of
from ktrdr.protocol.messages import OperationView

__all__ = ["Feed", "Feeds", "Frame", "frame_of"]

_MOVING = (OperationStatus.RUNNING, OperationStatus.CANCELLING)
_WAITING = 5  # times as long between two looks at what waits: only its place in the queue may have changed
_REST = 4  # times as long as the last look took, before the next that nobody asked for


@dataclass(frozen=True, slots=True)
class Frame:
    """One state of an operation, as clients see it, and its ETag."""

    view: OperationView
    body: bytes
    etag: str
    event: bytes  # the same as a server-sent event

    @property
    def terminal(self) -> bool:
        """Nothing follows."""
        return self.view.status.terminal


def frame_of(view: OperationView) -> Frame:
    """The view in every form in which it is sent."""
    body = view.model_dump_json().encode()
    etag = etag_of(body)
    event = b"id: %b\nevent: operation\ndata: %b\n\n" % (etag.strip('"').encode(), body)
    return Frame(view, body, etag, event)


class Views(Protocol):
    """Where the views come from."""

    async def view(self, operation_id: str) -> OperationView: ...


class Feed:
    """The newest frame of one operation, and the news that there is another.

    Whoever is slow misses frames in between and never the last: nothing is queued for anybody.
    """

    def __init__(self) -> None:
        self.latest: Frame | None = None
        self.watchers = 0
        self.over = False
        self._failure: BaseException | None = None
        self._news = asyncio.Event()

    def publish(self, frame: Frame) -> None:
        """There is a new frame."""
        self.latest = frame
        self._ring()

    def end(self, error: BaseException | None = None) -> None:
        """There will be no more; everybody who waits for another is told, and why if it is no natural end."""
        self.over, self._failure = True, error
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def beyond(self, etag: str | None, timeout_s: float) -> Frame | None:
        """The newest frame if it is another than ``etag``, else the next one; None if there is none in time or ever."""
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                while self.latest is None or self.latest.etag == etag:
                    if self._failure is not None:
                        raise self._failure
                    if self.over:
                        return None
                    await self._news.wait()
        except TimeoutError:
            return None
        return self.latest


class Feeds:
    """A feed for each operation that somebody watches.

    One task reads the ledger for all of them, at each change and every ``ttl_s`` while it runs, and one text is made of
    it; so two hundred watchers cost the ledger and the worker what one does. What only waits is read less often, and
    nothing is read for more than a fifth of the time: a thousand watched operations in a queue must not keep the
    ledger from emptying it. A feed ends with its last watcher.
    """

    heartbeat_s = 15.0  # how long a stream may be silent

    def __init__(self, views: Views, hub: Hub, fleet: Fleet, ttl_s: float) -> None:
        self._views, self._hub, self._fleet, self._ttl_s = views, hub, fleet, ttl_s
        self._feeds: dict[str, tuple[Feed, asyncio.Task[None]]] = {}

    def __len__(self) -> int:
        """How many operations are watched."""
        return len(self._feeds)

    @contextmanager
    def watch(self, operation_id: str) -> Iterator[Feed]:
        """Watch an operation; what fails the reading of it, fails the watching."""
        feed, task = self._feeds.get(operation_id) or self._start(operation_id)
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                task.cancel()
                if self._feeds.get(operation_id, (None,))[0] is feed:
                    del self._feeds[operation_id]

    def _start(self, operation_id: str) -> tuple[Feed, asyncio.Task[None]]:
        feed = Feed()
        work = self._follow(operation_id, feed)
        task = self._fleet.spawn(work, f"feed of {operation_id}", operation_id=operation_id, lasting=True)
        self._feeds[operation_id] = feed, task
        return feed, task

    async def _follow(self, operation_id: str, feed: Feed) -> None:
        loop = asyncio.get_running_loop()
        with self._hub.listen(operation_id) as changed:
            while not self._hub.closed.is_set():
                changed.clear()
                began = loop.time()
                try:
                    frame = frame_of(await self._views.view(operation_id))
                except Exception as error:  # whoever watches raises it, each for himself
                    self._feeds.pop(operation_id, None)
                    feed.end(error)
                    return
                if feed.latest is None or frame.etag != feed.latest.etag:
                    feed.publish(frame)
                if frame.terminal:
                    break
                pause_s = self._ttl_s * (1 if frame.view.status in _MOVING else _WAITING)
                await _either(changed, max(pause_s, _REST * (loop.time() - began)))
        feed.end()


async def _either(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set or so many seconds are over."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
