"""What goes away without a word: the worker under its nursery, the loop under a thread that waits for the network."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ktrdr.errors import ServerUnreachable
from ktrdr.protocol.transports import AsgiTransport
from ktrdr.workers.backend_link import BackendLink
from ktrdr.workers.nursery import Nursery


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("signals_as_before")
def test_a_worker_that_dies_without_reading_its_answers_is_gone_like_any_other() -> None:
    ours, workers = socket.socketpair()
    ours.sendall(b'{"pid": 1}\n')
    workers.close()  # with unread bytes: the other end is told of a reset, not of an end
    served: list[object] = []
    Nursery(ours, lambda *asked: served.append(asked) or 0).serve()
    assert not served, "it returned, and nobody was born for a worker that is gone"
    ours.close()


class Uploads:
    """Uploads that do as they are told."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self.threads: list[threading.Thread] = []

    def upload(self, digest: str) -> None:
        self.threads.append(threading.current_thread())
        self._work()


def _link(uploads: Uploads) -> BackendLink:
    return BackendLink(AsgiTransport({}), ("http://a",), token=None, timeout_s=1.0, uploads=uploads)


async def test_an_upload_tells_how_it_ended() -> None:
    def refuse() -> None:
        raise ServerUnreachable("nobody there")

    await _link(Uploads(lambda: None)).upload(["a" * 64])
    with pytest.raises(ServerUnreachable, match="nobody there"):
        await _link(Uploads(refuse)).upload(["a" * 64])


def test_nobody_waits_for_an_upload_that_hangs() -> None:
    hanging, gate = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        gate.wait(60)

    uploads = Uploads(hang)

    async def stop_meanwhile() -> None:
        task = asyncio.create_task(_link(uploads).upload(["a" * 64]))
        await asyncio.to_thread(hanging.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop_meanwhile())  # joins the executor's threads, where the upload must not be
    (thread,) = uploads.threads
    assert thread.is_alive()
    assert thread.daemon
    gate.set()
    thread.join(30)
    assert not thread.is_alive()
