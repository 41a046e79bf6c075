"""A fleet on this machine: the same backend and worker processes as anywhere, started, watched and stopped.

The supervisor binds the backend's socket itself and hands it down, so a restarted backend keeps its port and
requests wait in the socket's queue meanwhile. Every part holds the read end of a pipe whose other end only the
supervisor has: when the supervisor dies, however it dies, the parts stop.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ktrdr.cli.client import Api
from ktrdr.errors import Conflict, InvalidSetting, KtrdrError, ServerUnreachable
from ktrdr.private import private_file, private_folder
from ktrdr.protocol.tls import TlsSettings
from ktrdr.settings import api_token

__all__ = ["Fleet", "FleetPlan", "termination_as_interrupt"]

_READY_S = 90.0  # a cold start compiles and imports on machines that may be busy
_STOP_S = 25.0  # the workers' own promise for SIGTERM
_LOG_LIMIT = 10 << 20
_STEADY_S = 60.0  # a part that lived so long starts again without delay
_LONGEST_PAUSE_S = 30.0
_POLITE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PER_PART = ("WORKER_ID", "WORKER_IP", "WORKER_PORT", "WORKER_ENDPOINT_URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPlan:
    """What to start, and where it keeps its things; ``without`` names settings that the parts shall not see."""

    home: Path
    host: str = "127.0.0.1"
    port: int = 8000
    training_workers: int = 1
    backtesting_workers: int = 2
    without: tuple[str, ...] = ()


@dataclass(slots=True)
class _Part:
    """One process of the fleet and how often it had to be started again."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    crashes: int = 0
    start_again_at: float | None = None
    inherited: tuple[int, ...] = field(default=())

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log, for a report of a crash."""
        with contextlib.suppress(OSError):
            return "\n".join(
                f"    {line}" for line in self.log.read_text(errors="replace").splitlines()[-lines:]
            )
        return ""


class Fleet:
    """Starts the parts, restarts the crashed ones, stops all; a context manager, so nothing is left behind.

    ``say`` receives one line for people at a time.

    Raises
    ------
    InvalidSetting
        If the address cannot be listened on, or a part refuses its settings.
    Conflict
        If another fleet runs in the same home.
    KtrdrError
        If a part does not come up; the message holds the tail of its log.
    """

    def __init__(self, plan: FleetPlan, say: Callable[[str], None]) -> None:
        self._plan, self._say = plan, say
        self._parts: list[_Part] = []
        ours = {name: value for name, value in os.environ.items() if name not in plan.without}
        tls = TlsSettings.from_environment(ours)
        self._tls = tls.client_context()
        self._lock = _lock_home(plan.home)
        try:
            self._socket = _bind(plan.host, plan.port)
        except BaseException:
            self._lock.close()
            raise
        self._alive_read, self._alive_write = os.pipe()
        port = self._socket.getsockname()[1]
        self.url = f"{tls.scheme}://{f'[{plan.host}]' if ':' in plan.host else plan.host}:{port}"

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start every part and wait until the backend answers and every worker is registered."""
        plan = self._plan
        private_folder(plan.home / "logs")
        backend = self._part(
            "backend",
            ("backend", "start", "--host", plan.host, "--listen-fd", str(self._socket.fileno())),
            {},
            (self._socket.fileno(),),
        )
        self._launch(backend)
        for kind, count in (("training", plan.training_workers), ("backtesting", plan.backtesting_workers)):
            for number in range(1, count + 1):
                name = f"{kind}-{number}"
                arguments = (
                    "worker",
                    "start",
                    kind,
                    "--api-url",
                    self.url,
                    "--host",
                    plan.host,
                    "--port",
                    "0",
                )
                self._launch(
                    self._part(
                        f"worker {name}", arguments, {"WORKER_ID": f"{name}-{socket.gethostname()}"[:120]}
                    )
                )
        self._wait_ready(plan.training_workers + plan.backtesting_workers)

    def watch(self) -> None:
        """Restart what crashes, for ever; ends with the KeyboardInterrupt of a signal."""
        while True:
            for part in self._parts:
                self._tend(part)
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop workers, then the backend; whoever does not end in time is killed with its group."""
        workers = [part for part in self._parts if part.name != "backend"]
        for group in (workers, [part for part in self._parts if part.name == "backend"]):
            _end(group)
        for handle in (self._alive_read, self._alive_write):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._socket.close()
        self._lock.close()
        self._parts.clear()

    def _part(
        self, name: str, arguments: tuple[str, ...], extra: Mapping[str, str], inherited: tuple[int, ...] = ()
    ) -> _Part:
        environment = {k: v for k, v in os.environ.items() if k not in (*_PER_PART, *self._plan.without)}
        environment |= {"KTRDR_HOME": str(self._plan.home), "KTRDR_API_URL": self.url, **extra}
        log = self._plan.home / "logs" / f"{name.replace(' ', '-')}.log"
        command = (*arguments, "--parent-fd", str(self._alive_read))
        part = _Part(name, command, environment, log, inherited=(*inherited, self._alive_read))
        self._parts.append(part)
        return part

    def _launch(self, part: _Part) -> None:
        if part.log.exists() and part.log.stat().st_size > _LOG_LIMIT:
            part.log.replace(part.log.with_suffix(".log.1"))
        with open(part.log, "ab", opener=private_file) as log, _signals_later():
            part.process = subprocess.Popen(  # noqa: S603  (our own interpreter and arguments)
                [sys.executable, "-m", "ktrdr", *part.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(part.environment),
                pass_fds=part.inherited,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which stops the parts in order
            )
        part.started_at, part.start_again_at = time.monotonic(), None

    def _wait_ready(self, workers: int) -> None:
        deadline = time.monotonic() + _READY_S
        with Api(self.url, api_token(), timeout_s=5.0, tls=self._tls) as api:
            while time.monotonic() < deadline:
                for part in self._parts:
                    if part.process is not None and (code := part.process.poll()) is not None:
                        raise _ended_at_once(part, code)
                try:
                    registered = api.get("/workers", status="available")["total"]
                except ServerUnreachable:
                    registered = -1
                if registered >= workers:
                    return
                time.sleep(0.1)
        raise KtrdrError(
            f"The fleet did not come up within {_READY_S:.0f} s. Its logs are in {self._plan.home / 'logs'}.\n"
            + "\n".join(f"  {part.name}:\n{part.tail(5)}" for part in self._parts)
        )

    def _tend(self, part: _Part) -> None:
        now = time.monotonic()
        if part.start_again_at is not None:
            if now >= part.start_again_at:
                self._launch(part)
            return
        if part.process is None or (code := part.process.poll()) is None:
            return
        _kill_group(part.process)  # a crashed part may have left children in its group
        part.crashes = 1 if now - part.started_at > _STEADY_S else part.crashes + 1
        pause = 0.0 if part.crashes == 1 else min(2.0 ** (part.crashes - 2), _LONGEST_PAUSE_S)
        part.start_again_at = now + pause
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        when = "restarting it" if not pause else f"restarting it in {pause:.0f} s"
        self._say(f"The {part.name} (pid {part.process.pid}) ended with {how}; {when}. Its log: {part.log}")


def _ended_at_once(part: _Part, code: int) -> KtrdrError:
    # 2 is what a part says to settings it cannot use (ktrdr.cli.exits)
    kind = InvalidSetting if code == 2 else KtrdrError
    return kind(f"The {part.name} ended at once with exit code {code}:\n{part.tail()}")


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does; afterwards further signals are ignored while it cleans up."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Holds signals back: one that came inside Popen would lose the process that it had just made."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda which, _: came.append(which)) for number in _POLITE}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for which in came:
            signal.raise_signal(which)


def _end(parts: list[_Part]) -> None:
    running = [part.process for part in parts if part.process is not None and part.process.poll() is None]
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    deadline = time.monotonic() + _STOP_S
    try:
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also when a second Ctrl-C cuts the waiting short
        for process in running:
            _kill_group(process)
            process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        remedy = {
            errno.EADDRINUSE: "Choose another port with --port, or stop the process that uses this one.",
            errno.EACCES: "Ports below 1024 need privileges: choose another one with --port.",
        }.get(error.errno or 0, "Give an address of this machine with --host, such as 127.0.0.1.")
        raise InvalidSetting(f"Cannot listen on {host}:{port}: {error.strerror}. {remedy}") from None
    return listener


def _lock_home(home: Path) -> IO[str]:
    try:
        private_folder(home)
        lock = open(home / "fleet.lock", "a", opener=private_file)  # noqa: SIM115  (held by the caller)
    except OSError as error:
        raise InvalidSetting(
            f"KTRDR_HOME '{home}' cannot be used: {error.strerror}. Point it at a folder you can write to."
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise Conflict(
            f"Another fleet runs in {home}. Use that one, stop it, or give this one its own folder by KTRDR_HOME."
        ) from None
    return lock
