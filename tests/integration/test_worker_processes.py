"""Workers as processes of their own: what they say at the start, what they leave at the end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ktrdr.testing.fake_backend import FakeBackend
from ktrdr.testing.worker_jobs import spec

pytestmark = pytest.mark.integration
_CLEARED = ("KTRDR_", "WORKER_")
PROGRAM = """
import sys
from ktrdr.workers.kinds import run_worker
from ktrdr.workers.backtest_worker import BacktestWorker
BacktestWorker.preload = ()
run_worker("backtesting", port=0, job="ktrdr.testing.worker_jobs:perform")
"""


def environment(home: Path, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
    return kept | {"KTRDR_HOME": str(home), "WORKER_ID": "w"} | extra


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


class Running:
    """A worker's process, registered with the fake backend."""

    def __init__(self, arguments: list[str], env: dict[str, str], backend: FakeBackend, log: Path) -> None:
        self.log, self.backend = log, backend
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], env=env, stdout=output, stderr=output, start_new_session=True
            )
        try:
            backend.wait_for(lambda: backend.registrations)
        except TimeoutError:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not register; its log:\n{log.read_text()}") from None
        self.url = backend.registrations[-1]["endpoint_url"]

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        request = urllib.request.Request(self.url + path, method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def start(self, instruction: str) -> int:
        body = {"task_id": "op", "spec": spec(instruction).model_dump()}
        return self.ask("POST", "/backtests/start", body)[0]

    def wait_progress(self) -> dict[str, Any]:
        while True:
            progress = self.ask("GET", "/api/v1/operations/op")[1]["progress"]
            if progress["context"]:
                return dict(progress["context"])
            time.sleep(0.02)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def running(tmp_path: Path, backend: FakeBackend) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: str, **extra: str) -> Running:
        env = environment(tmp_path / "home", KTRDR_API_URL=backend.url, **extra)
        arguments = arguments or ("-c", PROGRAM)
        started.append(Running(list(arguments), env, backend, tmp_path / f"log{len(started)}"))
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
        worker.process.wait(30)


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not alive


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_at_a_signal_and_leaves_nobody(
    running: Callable[..., Running], number: signal.Signals
) -> None:
    worker = running()
    family = worker.family()
    assert family, "the nursery is a child of the worker"
    worker.process.send_signal(number)
    assert worker.process.wait(10) == 0
    assert all_gone(family)


def test_a_default_start_logs_no_warning(running: Callable[..., Running], backend: FakeBackend) -> None:
    worker = running("-m", "ktrdr.workers.backtest_worker", WORKER_PORT="0")
    assert worker.start("count 1") == 202  # the real job body: it fails on this strategy, which is no warning
    backend.wait_for(lambda: backend.deliveries)
    worker.process.terminate()
    assert worker.process.wait(10) == 0
    log = worker.log.read_text()
    assert "Registered with" in log
    assert not any(word in log for word in ("WARNING", "Warning", "ERROR", "Traceback")), log


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """What is started here dies with its terminal, as usual, though these tests themselves may run under ``nohup``."""
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, ours)


@pytest.mark.usefixtures("hangs_up")
@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGHUP, signal.SIGHUP)])
def test_a_busy_worker_gives_its_work_back(
    running: Callable[..., Running], backend: FakeBackend, numbers: tuple[signal.Signals, ...]
) -> None:
    """Also where its terminal is closed: shell and system tell it both. It died, and its lease had to end first."""
    worker = running()
    assert worker.start("hold") == 202
    worker.wait_progress()
    family = worker.family()
    for number in numbers:
        worker.process.send_signal(number)
    assert worker.process.wait(25) == 0
    assert [delivery["status"] for delivery in backend.deliveries] == ["released"]
    assert all_gone(family)


def test_a_worker_under_nohup_outlives_its_terminal(running: Callable[..., Running]) -> None:
    ours = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        worker = running()
    finally:
        signal.signal(signal.SIGHUP, ours)
    worker.process.send_signal(signal.SIGHUP)
    assert worker.ask("GET", "/health")[1]["worker_status"] == "idle"
    worker.process.terminate()
    assert worker.process.wait(25) == 0


def test_a_stubborn_job_does_not_hold_up_the_end(
    running: Callable[..., Running], backend: FakeBackend
) -> None:
    worker = running(KTRDR_CANCEL_GRACE_S="1")
    worker.start("stubborn")
    worker.wait_progress()
    family = worker.family()
    worker.process.terminate()
    assert worker.process.wait(25) == 0
    assert [delivery["status"] for delivery in backend.deliveries] == ["released"]
    assert all_gone(family)


def test_a_second_signal_ends_at_once(running: Callable[..., Running]) -> None:
    worker = running(KTRDR_CANCEL_GRACE_S="600")
    worker.start("stubborn")
    worker.wait_progress()
    family = worker.family()
    worker.process.terminate()
    while worker.ask("GET", "/health")[1]["worker_status"] != "draining":
        time.sleep(0.02)
    worker.process.terminate()
    assert worker.process.wait(10) == 128 + signal.SIGTERM
    assert all_gone(family)


def test_kill_9_of_the_worker_leaves_no_child_and_no_grandchild(
    running: Callable[..., Running], tmp_path: Path
) -> None:
    worker = running()
    worker.start(f"family {tmp_path / 'pids'}")
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        time.sleep(0.02)
    family = worker.family()
    assert len(family) == 3, "nursery, job, and what the job started"
    worker.process.kill()
    assert all_gone(family)


def test_kill_9_of_worker_and_nursery_at_once(running: Callable[..., Running], tmp_path: Path) -> None:
    worker = running()
    worker.start(f"family {tmp_path / 'pids'}")
    while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text():
        time.sleep(0.02)
    family = worker.family()
    [nursery] = psutil.Process(worker.process.pid).children()
    worker.process.kill()
    nursery.kill()
    assert all_gone(family), "the lifeline ends the job's process group"


def test_the_worker_itself_never_loads_what_jobs_compute_with() -> None:
    code = (
        "import sys, ktrdr.workers.kinds, ktrdr.workers.backtest_worker, ktrdr.workers.training_worker\n"
        "heavy = {'torch', 'polars', 'numba', 'numpy', 'pandas', 'onnxruntime', 'talib'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_backtest_jobs_never_load_torch(running: Callable[..., Running], backend: FakeBackend) -> None:
    program = PROGRAM.replace("BacktestWorker.preload = ()\n", "")
    worker = running("-c", program)
    worker.start("modules")
    backend.wait_for(lambda: backend.deliveries)
    assert backend.deliveries[0]["summary"]["torch"] is False


@pytest.mark.parametrize("kind", ["backtest", "training"])
def test_without_a_backend_url_it_says_so_and_ends_with_2(tmp_path: Path, kind: str) -> None:
    for command in (
        ["-m", f"ktrdr.workers.{kind}_worker"],
        ["-m", "uvicorn", f"ktrdr.workers.{kind}_worker:app"],
    ):
        done = subprocess.run(
            [sys.executable, *command], env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("Error: KTRDR_API_URL is not set")
        assert "Example: KTRDR_API_URL=http://127.0.0.1:8000 ktrdr worker start" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_message_and_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        env = environment(tmp_path, KTRDR_API_URL="http://127.0.0.1:9", WORKER_PORT=port)
        done = subprocess.run(
            [sys.executable, "-m", "ktrdr.workers.backtest_worker"],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port}: address already in use" in done.stderr


def test_off_loopback_without_a_token_is_refused(tmp_path: Path) -> None:
    env = environment(tmp_path, KTRDR_API_URL="http://127.0.0.1:9", WORKER_IP="0.0.0.0")
    done = subprocess.run(
        [sys.executable, "-m", "ktrdr.workers.backtest_worker"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "KTRDR_ENROLMENT_TOKEN" in done.stderr


def test_served_by_uvicorn_it_finds_its_own_port(
    running: Callable[..., Running], backend: FakeBackend
) -> None:
    worker = running("-m", "uvicorn", "ktrdr.workers.backtest_worker:app", "--port", "0")
    assert worker.ask("GET", "/health")[1]["worker_id"] == "w"
    assert worker.url.startswith("http://127.0.0.1:")
    worker.process.terminate()
    worker.process.wait(25)


def test_the_endpoint_that_was_told_is_the_one_that_is_registered(
    running: Callable[..., Running], backend: FakeBackend
) -> None:
    running(WORKER_ENDPOINT_URL="http://127.0.0.1:65000/")
    assert backend.registrations[0]["endpoint_url"] == "http://127.0.0.1:65000"
