"""A backend process to measure, as ``ktrdr up`` starts it: its own port, home, ledger; nothing is configured faster."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench_control import Wire

__all__ = ["Backend", "backend"]

_PATIENCE_S = 120.0


class Backend:
    """The process, and what it says of itself. The listening socket is ours: it outlives a kill."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KTRDR_", "WORKER_"))}
        self._environment = kept | {"KTRDR_HOME": str(home), "KTRDR_LOG_LEVEL": "WARNING"} | settings
        self._process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        handle = self._socket.fileno()
        command = [sys.executable, "-m", "ktrdr", "backend", "start", "--listen-fd", str(handle)]
        with (self.home / "backend.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                pass_fds=(handle,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.process = psutil.Process(self._process.pid)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return urllib.request.urlopen(f"{self.url}/health", timeout=_PATIENCE_S).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.home / "backend.log").read_text()[-2000:]) from None

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator does; what does not end is killed."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
        self._socket.close()

    def cpu_s(self) -> float:
        """CPU seconds of this process so far, user and system."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def metrics(self) -> dict[str, float]:
        """Its Prometheus series by name with labels, as they are written."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=_PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def wire(self) -> contextlib.closing[Any]:
        """A connection to ask it things."""
        return contextlib.closing(Wire(self.url))


@contextlib.contextmanager
def backend(**settings: str) -> Iterator[Backend]:
    """A backend in a home of its own, gone with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        running = Backend(Path(home), **settings)
        try:
            yield running
        finally:
            running.stop()
