"""``ktrdr up`` and ``ktrdr demo``: real processes from start to end, none left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ktrdr.cli.client import Api
from support.processes import environment, ktrdr, wait_for


@contextmanager
def _running(
    home: Path, *arguments: str, cwd: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    home.mkdir(parents=True, exist_ok=True)
    log = home.parent / "output.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "ktrdr", *arguments],
            env=environment(home), stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True, cwd=cwd,
        )  # fmt: skip
    try:
        yield process, log
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)


def _family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _having(family: list[psutil.Process], word: str) -> list[psutil.Process]:
    """Those of the processes whose command has this word; one that ends meanwhile has none."""
    found = []
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if word in one.cmdline():
                found.append(one)
    return found


def _ready(process: subprocess.Popen[bytes], log: Path) -> str:
    def url() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"Ready at (\S+)", log.read_text())
        return found.group(1) if found else None

    return wait_for(url, "up is ready", 120)


def test_up_restarts_what_crashes_and_stops_all(tmp_path: Path) -> None:
    with _running(tmp_path / "home", "up", "--port", "0", "--backtest-workers", "1") as (process, log):
        url = _ready(process, log)
        with Api(url, timeout_s=60.0) as api:  # a request may have to wait for the next backend
            assert {d["symbol"] for d in api.get("/data")["items"]} == {"SP500", "NASDAQ", "EURUSD"}
            [worker] = _having(_family(process.pid), "backtesting")
            worker.kill()
            wait_for(lambda: "restarting" in log.read_text(), "the crash is reported")
            wait_for(
                lambda: (
                    api.get("/workers", worker_type="backtesting", status="available")["total"] == 1
                    and any(p.pid != worker.pid for p in _having(_family(process.pid), "backtesting"))
                ),
                "the worker is back",
            )
            [backend] = _having(psutil.Process(process.pid).children(), "backend")
            backend.kill()
            backend.wait(30)  # until then it may take a request with it
            # The supervisor holds the listening socket.
            assert wait_for(lambda: api.get("/data")["total"] == 3, "the backend is back on the same port")
        family = _family(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
    assert "Stopped." in log.read_text()


def test_nothing_survives_a_killed_supervisor(tmp_path: Path) -> None:
    with _running(
        tmp_path / "home", "up", "--port", "0", "--backtest-workers", "1", "--training-workers", "0"
    ) as (process, log):
        _ready(process, log)
        family = _family(process.pid)
        process.kill()
        process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive


def test_up_says_which_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = ktrdr("up", "--port", port, env=environment(tmp_path / "home"))
        assert done.returncode == 2
        assert port in done.stderr
        assert "--port" in done.stderr
        alone = ktrdr("backend", "start", "--port", port, env=environment(tmp_path / "home"))
        assert alone.returncode == 2
        assert port in alone.stderr


def test_a_home_serves_one_fleet(tmp_path: Path) -> None:
    arguments = ("up", "--port", "0", "--backtest-workers", "0", "--training-workers", "0")
    with _running(tmp_path / "home", *arguments) as (process, log):
        _ready(process, log)
        second = ktrdr(*arguments, env=environment(tmp_path / "home"))
        assert second.returncode == 2
        assert "KTRDR_HOME" in second.stderr


@pytest.mark.e2e
def test_demo_shows_the_whole_path(tmp_path: Path) -> None:
    mark = f"THIS_DEMO={tmp_path}"
    mine = dict.fromkeys(("KTRDR_DATABASE_URL", "KTRDR_DATABASE_URL_FILE"), "/nowhere/database")
    env = environment(tmp_path / "unused", THIS_DEMO=str(tmp_path), **mine)
    done = ktrdr("demo", env=env, cwd=tmp_path, timeout_s=280)
    assert done.returncode == 0, done.stdout + done.stderr
    page, picture = tmp_path / "ktrdr-demo" / "report.html", tmp_path / "ktrdr-demo" / "report.png"
    assert str(Path("ktrdr-demo", "report.html")) in done.stdout
    assert "<script src=" not in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")
    for told in ("buy and hold", "Sharpe", "max_drawdown" if "max_drawdown" in done.stdout else "drawdown"):
        assert told in done.stdout.replace("Max drawdown", "drawdown")
    assert not (tmp_path / "unused").exists()
    _, left = psutil.wait_procs(_marked(mark), timeout=30)
    assert not left


def _marked(mark: str) -> list[psutil.Process]:
    """All processes that have this in their environment: of the demo of this test, and of no other beside it."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in [f"{name}={value}" for name, value in one.environ().items()]:
                found.append(one)
    return found


def test_demo_leaves_nothing_after_ctrl_c(tmp_path: Path) -> None:
    with _running(tmp_path / "home", "demo", cwd=tmp_path) as (process, log):
        wait_for(lambda: "[3/6]" in log.read_text(), "the training step", 120)
        family = _family(process.pid)
        assert family
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(90) == 130
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive
