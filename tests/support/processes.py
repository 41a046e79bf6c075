"""Real ktrdr processes for tests, on free loopback ports, in a home of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from ktrdr.cli.client import Api
from ktrdr.errors import KtrdrError, ServerUnreachable

T = TypeVar("T")

# The same code as in production, with shorter periods.
FAST = {
    "KTRDR_HEALTH_INTERVAL_S": "0.3",
    "KTRDR_HEALTH_TIMEOUT_S": "2",
    "KTRDR_HEALTH_FAILURES": "2",
    "KTRDR_WORKER_REMOVAL_S": "3",
    "KTRDR_LEASE_S": "4",
    "KTRDR_PROGRESS_TTL_S": "0.2",
    "KTRDR_CANCEL_GRACE_S": "3",
}
# For tests of what must not happen at all, a warning or another attempt: a machine that stands still for seconds is none
# of the product's doing, and what happens within seconds everywhere else takes minutes here.
CALM = {"KTRDR_HEALTH_TIMEOUT_S": "60", "KTRDR_LEASE_S": "120", "KTRDR_WORKER_REMOVAL_S": "120"}
CLEARED = (
    *("WORKER_ID", "WORKER_IP", "WORKER_PORT", "WORKER_ENDPOINT_URL"),
    *("KTRDR_API_TOKEN", "KTRDR_API_URL", "KTRDR_DATABASE_URL", "KTRDR_DATABASE_URL_FILE"),
    *("KTRDR_API_TOKEN_FILE", "KTRDR_ENROLMENT_TOKEN", "KTRDR_ENROLMENT_TOKEN_FILE", "FORWARDED_ALLOW_IPS"),
    *("KTRDR_TLS_CERT", "KTRDR_TLS_KEY", "KTRDR_TLS_CA", "KTRDR_TLS_CLIENT_CA"),
)
_PATIENCE_S = 90.0  # a hang is a failure; a slow machine is not


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a test's process: ours, cleaned of ktrdr settings, with short periods and ``home``."""
    kept = {k: v for k, v in os.environ.items() if k not in CLEARED}
    return kept | FAST | {"KTRDR_HOME": str(home)} | extra


def unmeasured(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment (ours by default) whose processes are not measured for coverage, which costs them a third of their time.

    For tests whose processes run nothing that cheaper tests do not run too.
    """
    told = os.environ if env is None else env
    return {name: value for name, value in told.items() if not name.startswith("COVERAGE_")}


def ktrdr(*arguments: str, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float = 240) -> Any:
    """Run a command to its end; returns the completed process with text output."""
    return subprocess.run(
        [sys.executable, "-m", "ktrdr", *arguments],
        env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def wait_for(condition: Callable[[], T | None], what: str, timeout_s: float = _PATIENCE_S) -> T:
    """Wait until ``condition`` gives something true; fails with ``what`` otherwise."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {timeout_s:.0f} s in vain for: {what}")


class Part:
    """A running part (backend or worker) with its log; stopped at the end of the test by its own process id."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        if self.process.poll() is None:
            # A stopped (SIGSTOP) process does not see SIGTERM.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError(f"did not stop on SIGTERM:\n{self.text()}") from None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait(30)


class Parts:
    """Starts parts for one test and stops all of them, workers first."""

    def __init__(self, root: Path, *, measured: bool = True) -> None:
        self.root, self.measured = root, measured
        self.home = root / "home"
        self._running: list[Part] = []
        self._listener: socket.socket | None = None
        self.url = ""
        self.tls: ssl.SSLContext | None = None  # set: the backend is asked over https

    def backend(self, **extra: str) -> Part:
        """Start the backend, or start it again on the same port."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            scheme = "http" if self.tls is None else "https"
            self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        handle = self._listener.fileno()
        part = self.start("backend", ["backend", "start", "--listen-fd", str(handle)], extra, (handle,))
        self.wait_backend(part)
        return part

    def worker(
        self,
        kind: str,
        name: str,
        *,
        home: Path | None = None,
        cwd: Path | None = None,
        wait: bool = True,
        **extra: str,
    ) -> Part:
        """Start a worker called ``name`` and wait until the backend lists it as available."""
        settings = {"WORKER_ID": name, "KTRDR_HOME": str(home or self.home)} | extra
        arguments = ["worker", "start", kind, "--api-url", self.url, "--host", "127.0.0.1", "--port", "0"]
        part = self.start(name, arguments, settings, cwd=cwd)
        if wait:
            self.wait_worker(name, "available", part)
        return part

    def api(self, token: str | None = None) -> Api:
        return Api(self.url, token, timeout_s=30.0, tls=self.tls)

    def environment(self, **extra: str) -> dict[str, str]:
        return self._own() | {"KTRDR_API_URL": self.url} | extra

    def _own(self) -> dict[str, str]:
        env = environment(self.home)
        return env if self.measured else unmeasured(env)

    def wait_backend(self, part: Part) -> None:
        def answers() -> bool:
            assert part.process.poll() is None, f"backend ended:\n{part.text()}"
            with contextlib.suppress(ServerUnreachable), self.api() as api:
                try:
                    api.get("/workers")
                except ServerUnreachable:
                    return False
                except KtrdrError:
                    return True
                return True
            return False

        wait_for(answers, "the backend answers")

    def wait_worker(self, name: str, status: str | None, part: Part | None = None) -> Any:
        """Wait until the backend lists the worker with ``status`` (None: until it is not listed)."""

        def seen() -> Any:
            if part is not None:
                assert part.process.poll() is None, f"{name} ended:\n{part.text()}"
            with self.api() as api:
                listed = {w["worker_id"]: w for w in api.get("/workers")["workers"]}
            if status is None:
                return name not in listed
            return listed[name] if name in listed and listed[name]["status"] == status else None

        return wait_for(seen, f"worker {name} is {status}")

    def stop(self) -> None:
        try:
            # Workers first: they hand their work back to a backend that still answers.
            for part in sorted(self._running, key=lambda p: p.log.name.startswith("backend")):
                part.stop()
        finally:
            if self._listener is not None:
                self._listener.close()

    def start(
        self,
        name: str,
        arguments: list[str],
        extra: Mapping[str, str],
        handles: tuple[int, ...] = (),
        cwd: Path | None = None,
        program: Sequence[str] = ("-m", "ktrdr"),
    ) -> Part:
        self.root.mkdir(parents=True, exist_ok=True)
        log = self.root / f"{name}-{len(self._running)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=self._own() | dict(extra),
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=handles, start_new_session=True, cwd=cwd,
            )  # fmt: skip
        part = Part(process, log)
        self._running.append(part)
        return part


@contextlib.contextmanager
def parts(root: Path, *, measured: bool = True) -> Iterator[Parts]:
    """Parts that are all stopped at the end; ``measured`` for coverage or not, see :func:`unmeasured`."""
    started = Parts(root, measured=measured)
    try:
        yield started
    finally:
        started.stop()


def finished(api: Api, operation_id: str, timeout_s: float = 180) -> Any:
    """Wait until an operation is terminal and return it; else tell its story, and which workers there are."""
    operation: Any = None

    def done() -> Any:
        nonlocal operation
        operation = api.get(f"/operations/{operation_id}")
        return operation if operation["status"] in ("completed", "failed", "cancelled") else None

    try:
        return wait_for(done, f"{operation_id} ends", timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {operation}; workers: {api.get('/workers')}") from None


def in_status(api: Api, operation_id: str, *statuses: str) -> Any:
    """Wait until an operation has one of the statuses and return it."""

    def reached() -> Any:
        operation = api.get(f"/operations/{operation_id}")
        return operation if operation["status"] in statuses else None

    return wait_for(reached, f"{operation_id} is {' or '.join(statuses)}")


def advancing(api: Api, operation_id: str) -> Any:
    """Wait until an operation runs and its job has told progress, so that its process exists.

    The job must not be able to end meanwhile, however late this looks.
    """

    def told() -> Any:
        operation = api.get(f"/operations/{operation_id}")
        assert operation["status"] in ("pending", "assigned", "running"), operation
        return operation if operation["status"] == "running" and operation["progress"]["items_done"] else None

    return wait_for(told, f"{operation_id} advances")


def descendants(pid: int) -> list[psutil.Process]:
    """All processes below ``pid``."""
    return psutil.Process(pid).children(recursive=True)
