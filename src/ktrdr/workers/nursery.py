"""The process that job processes are born in: it imports once what jobs need, then forks one child per job.

A program of its own (``python -m ktrdr.workers.nursery FD MODE MODULE...``), standard library only until it has
imported the modules it was told. It never computes: after one call into torch or polars here, forked children hang.
In mode ``single`` it does not fork but becomes the job itself, for jobs that need a GPU and for macOS.

Why not ``multiprocessing``'s fork server: this one reports each child's peak memory and signal, ends every child's
process group when the worker dies, however it dies, and does not import the worker's main module again per job.

The worker talks to it over a socket: ``{"folder": ..., "token": ...}`` as one line, with the read end of the lifeline
pipe attached; the answers are ``{"pid": n}`` and, in mode ``fork``, ``{"exited": n, "status": wait status, "rss": bytes}``.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Nursery", "main", "peak_bytes"]

RunFolder = Callable[[Path, "str | None", int], int]
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_GOES_BEFORE = 500  # in thousandths of the memory there is: before whoever uses up to half of it more
_MAX_MESSAGE = 1 << 16


def peak_bytes(ru_maxrss: int) -> int:
    """``ru_maxrss`` in bytes: kilobytes on Linux, bytes on macOS."""
    return ru_maxrss if sys.platform == "darwin" else ru_maxrss * 1024


class Nursery:
    """Forks a child per request and reports its end; single-threaded, one ``select`` loop.

    Parameters
    ----------
    control
        Socket to the worker; its end of file means that the worker is gone.
    run_folder
        What a child does: ``(folder, token, lifeline) -> exit code``.
    """

    def __init__(self, control: socket.socket, run_folder: RunFolder) -> None:
        self._control = control
        self._run_folder = run_folder
        self._children: set[int] = set()
        self._buffer = b""
        self._attached: list[int] = []

    def serve(self) -> None:
        """Work until the worker closes the control socket, then end every child's process group."""
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            try:
                while self._turn(selector, wake_read):
                    pass
            finally:
                for pid in self._children:
                    end_group(pid)

    def _turn(self, selector: selectors.BaseSelector, wake_read: int) -> bool:
        for key, _ in selector.select():
            if key.fileobj is self._control:
                if not self._receive():
                    return False
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
        self._reap()
        return True

    def _receive(self) -> bool:
        content, fds = _hear(self._control, 8)
        self._attached += fds
        self._buffer += content
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            request = json.loads(line)
            self._fork(Path(request["folder"]), request["token"], self._attached.pop(0))
        return bool(content)

    def _fork(self, folder: Path, token: str | None, lifeline: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # BLAS threads idle here; they survive a fork
            pid = os.fork()
        if pid == 0:
            self._become_job(folder, token, lifeline)
        os.close(lifeline)
        with contextlib.suppress(OSError):  # here and in the child: whoever comes first, the group is there
            os.setpgid(pid, pid)
        self._children.add(pid)
        self._say({"pid": pid})

    def _become_job(self, folder: Path, token: str | None, lifeline: int) -> None:
        code = 70
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self._control.close()
            _go_first()
            code = self._run_folder(folder, token, lifeline)
        finally:
            _flush()
            os._exit(code)

    def _reap(self) -> None:
        for pid in tuple(self._children):
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                self._children.discard(pid)
                self._say({"exited": pid, "status": status, "rss": peak_bytes(usage.ru_maxrss)})

    def _say(self, answer: dict[str, int]) -> None:
        with contextlib.suppress(OSError):  # the worker is gone; the next read says so
            self._control.sendall(json.dumps(answer).encode() + b"\n")


def _hear(control: socket.socket, most_fds: int) -> tuple[bytes, list[int]]:
    """A piece of what the worker says; nothing once it is gone, also if it went without reading what it was told."""
    try:
        content, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE, most_fds)
    except ConnectionResetError:
        return b"", []
    return content, fds


def end_group(pid: int) -> None:
    """Kill a process group; a group that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _go_first() -> None:
    """Where memory is wanted, the kernel is to kill this job: not its worker, which tells of it, nor the backend beside it."""
    with contextlib.suppress(OSError, ValueError):  # not Linux, or /proc is not ours to write
        _OOM_SCORE.write_text(str(min(int(_OOM_SCORE.read_text()) + _GOES_BEFORE, 1000)))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _preload(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # a process edge: the job that needs it says so in its own words
            sys.stderr.write(f"ktrdr nursery: {name} cannot be imported ahead of the jobs: {error}\n")


def serve_single(control: socket.socket, run_folder: RunFolder) -> int:
    """Wait for one job and be it; returns its exit code, 0 if the worker went away first."""
    content, fds = _hear(control, 1)
    if not content:
        return 0
    request = json.loads(content)
    control.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    _go_first()
    return run_folder(Path(request["folder"]), request["token"], fds[0])


def _watch_over(control: socket.socket) -> None:
    """Fork a process that ends this process group when the worker goes away, even while the job holds the GIL.

    It must be called before anything starts threads. The worker ends it together with the group.
    """
    if os.fork() == 0:
        watch = select.poll()
        watch.register(control, 0)  # nothing but the hang-up
        watch.poll()
        os.killpg(0, signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """``FD MODE MODULE...``; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(arguments[0]))
    if arguments[1] == "single":
        _watch_over(control)
    _preload(arguments[2:])
    from ktrdr.workers.child import run_folder  # after the preload, so that its cost is not paid twice

    gc.freeze()  # children's collections then leave the shared pages alone
    if arguments[1] == "single":
        return serve_single(control, run_folder)
    Nursery(control, run_folder).serve()
    return 0


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    _flush()
    os._exit(exit_code)  # no finalisers of preloaded libraries: nothing here is worth a wait
