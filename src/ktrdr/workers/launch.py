"""The worker's side of the nursery: start it ahead of time, ask it for a child, hear how the child ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ktrdr.errors import Unavailable
from ktrdr.workers.nursery import end_group, peak_bytes

__all__ = ["Child", "Exit", "LaunchMode", "Launcher"]

LaunchMode = Literal["fork", "single"]
NURSERY = (sys.executable, "-m", "ktrdr.workers.nursery")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: the ``wait`` status and the peak of its resident memory in bytes (0 if unknown)."""

    status: int
    peak_rss: int = 0

    @property
    def killed_by(self) -> int | None:
        """The signal that killed it, or None."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None

    @property
    def code(self) -> int:
        """The exit code; meaningful without a signal."""
        return os.WEXITSTATUS(self.status)


class Child:
    """A job's process: leader of its own process group. ``exited`` resolves once it has ended."""

    def __init__(self, pid: int, lifeline: int, exited: asyncio.Future[Exit]) -> None:
        self.pid = pid
        self.exited = exited
        self._lifeline = lifeline

    def kill(self) -> None:
        """End the whole process group at once; also sweeps up what a child that ended left behind."""
        end_group(self.pid)

    def release(self) -> None:
        """After the end: close the pipe that tied the child to this worker."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class Launcher:
    """Keeps one nursery ready and starts children through it. For one event loop; not thread-safe.

    Parameters
    ----------
    preload
        Modules that jobs need, imported ahead of time by the nursery, never by this process.
    mode
        ``fork`` for one nursery with a child per job; ``single`` for a standby process per job (GPU, macOS).
    program
        The command that is a nursery; a parameter for tests.
    """

    def __init__(
        self, preload: Sequence[str], mode: LaunchMode = "fork", *, program: Sequence[str] = NURSERY
    ) -> None:
        self._preload, self.mode, self._program = tuple(preload), mode, tuple(program)
        self._ready: _Nursery | None = None
        self._all: list[_Nursery] = []

    def warm(self) -> None:
        """Start a nursery, if none is ready; returns at once, the imports happen in its own time."""
        if self._ready is None or self._ready.lost:
            self._all = [nursery for nursery in self._all if not nursery.lost]
            self._ready = _Nursery(self._program, self._preload, self.mode)
            self._all.append(self._ready)

    async def launch(self, folder: Path, token: str | None) -> Child:
        """Start a child on a run folder; waits for the nursery's imports where they are not done yet.

        Raises
        ------
        Unavailable
            If no process could be started.
        """
        try:
            return await self._take().launch(folder, token)
        except ConnectionError:
            # The nursery had died unnoticed, killed for memory perhaps: nothing was started.
            try:
                return await self._take().launch(folder, token)
            except OSError as error:
                raise Unavailable(f"The job's process could not be started: {error}.") from error

    def _take(self) -> _Nursery:
        self.warm()
        nursery = self._ready
        assert nursery is not None
        if self.mode == "single":  # it becomes the job: have the next one ready
            self._ready = None
            self.warm()
        return nursery

    def close(self) -> None:
        """End the nurseries, and with them every child."""
        for nursery in self._all:
            nursery.close()
        self._all, self._ready = [], None


class _Nursery:
    """One nursery process and the socket to it."""

    def __init__(self, program: Sequence[str], preload: Sequence[str], mode: LaunchMode) -> None:
        self.lost = False
        self._single = mode == "single"
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._born: list[asyncio.Future[tuple[int, asyncio.Future[Exit]]]] = []
        self._exits: dict[int, asyncio.Future[Exit]] = {}
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [*program, str(theirs.fileno()), mode, *preload]
            self._process = subprocess.Popen(  # noqa: S603 (our own module)
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._receive)
        self._reaper = threading.Thread(target=self._reap, name="nursery-reaper", daemon=True)
        self._reaper.start()

    async def launch(self, folder: Path, token: str | None) -> Child:
        born: asyncio.Future[tuple[int, asyncio.Future[Exit]]] = self._loop.create_future()
        read_end, write_end = os.pipe()
        try:
            message = json.dumps({"folder": str(folder), "token": token}).encode() + b"\n"
            socket.send_fds(self._socket, [message], [read_end])
            self._born.append(born)
            pid, exited = await born
        except BaseException as error:
            os.close(write_end)  # a child that is born after this ends at once
            if isinstance(error, ConnectionError):
                self._lose()
            raise
        finally:
            os.close(read_end)
        return Child(pid, write_end, exited)

    def close(self) -> None:
        """End the children and the nursery, also one that is still importing."""
        self._lose()
        end_group(self._process.pid)
        self._reaper.join(timeout=5.0)

    def _receive(self) -> None:
        try:
            content = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        self._buffer += content
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._hear(json.loads(line))
        if not content:
            self._lose()

    def _hear(self, answer: dict[str, int]) -> None:
        if "pid" in answer:
            exited = self._exits[answer["pid"]] = self._loop.create_future()
            born = self._born.pop(0)
            if not born.done():
                born.set_result((answer["pid"], exited))
        else:
            self._ended(answer["exited"], Exit(answer["status"], answer["rss"]))

    def _ended(self, pid: int, how: Exit) -> None:
        ended = self._exits.pop(pid, None)
        if ended is not None and not ended.done():
            ended.set_result(how)

    def _lose(self) -> None:
        """The nursery is gone or no longer wanted. A standby that became a job is no loss: its end is reaped."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        for born in self._born:
            if not born.done():
                born.set_exception(ConnectionResetError("the process that starts jobs has ended"))
        if not self._single:
            for pid in tuple(self._exits):
                end_group(pid)
                self._ended(pid, Exit(signal.SIGKILL))

    def _reap(self) -> None:
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
            how = Exit(status, peak_bytes(usage.ru_maxrss))
        except ChildProcessError:  # something else in this process waits for all children, and was first
            how = Exit(signal.SIGKILL)
        self._process.returncode = os.waitstatus_to_exitcode(how.status)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._reaped, how)

    def _reaped(self, how: Exit) -> None:
        """What it said last comes first: its end may overtake it. The socket alone tells nothing: others hold it too."""
        if not self.lost:
            self._receive()
        self._ended(self._process.pid, how)
        self._lose()
        end_group(self._process.pid)
