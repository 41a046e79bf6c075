"""The backend as a process: start, port in use, quiet, clean stop, event streams end, what it never loads."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ktrdr.operations.model import NewOperation, OperationType
from ktrdr.operations.sql.ledger import SqlStore
from support.bounds import within
from support.ports import kept_port
from support.processes import CALM, environment, wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("backend process"),
]  # one backend stands for all

TOKEN = "a-token-for-this-test-0123456789"
SERVE = "import sys; from ktrdr.backend.server import run_backend; sys.exit(run_backend(*eval(sys.argv[1])))"


class Process:
    def __init__(self, home: Path, host: str = "127.0.0.1", **env: str) -> None:
        self.port = kept_port()
        self.log = home / "log"
        self.env = environment(home, **env)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, repr((host, self.port))],
                env=self.env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text())
        try:
            return self.get("/health")[0] == 200
        except OSError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Process]:
    with serving(tmp_path, **CALM) as made:
        yield made


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A backend that nobody stops and nobody changes."""
    with serving(tmp_path_factory.mktemp("standing")) as made:
        yield made


@contextlib.contextmanager
def serving(home: Path, **env: str) -> Iterator[Process]:
    made = Process(home, **env)
    try:
        wait_for(made.ready, "the backend answers")
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_nothing_was_warned_of(
    backend: Process, number: signal.Signals
) -> None:
    assert backend.stop(number) == 0
    log = backend.log.read_text()
    assert "WARNING" not in log
    assert "Traceback" not in log
    assert f"127.0.0.1:{backend.port}" in log
    assert "GET /health" not in log


def test_a_stop_ends_event_streams_and_long_polls(tmp_path: Path) -> None:
    asyncio.run(_plant(tmp_path))
    made = Process(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(made.process.wait)
        stack.callback(made.process.kill)
        wait_for(made.ready, "the backend answers")
        connections = [http.client.HTTPConnection("127.0.0.1", made.port, timeout=30) for _ in range(2)]
        stream, poll = (stack.enter_context(contextlib.closing(c)) for c in connections)
        poll.request("GET", "/health")
        assert poll.getresponse().read()
        # On a connection that is accepted, and before the stream: whoever answers that has read this. A request that
        # the backend has not read when it is told to stop loses its connection, as with any server.
        poll.request("GET", "/api/v1/operations/planted?wait=60")
        stream.request("GET", "/api/v1/operations/planted/events")
        events = stack.enter_context(stream.getresponse())
        assert events.readline().startswith(b"id: ")
        assert made.stop() == 0
        assert b"planted" in events.read()
        assert b"pending" in poll.getresponse().read()


async def _plant(home: Path) -> None:
    """A pending operation in the ledger of ``home``."""
    store = SqlStore(home / "ktrdr.db")
    new = NewOperation(operation_id="planted", operation_type=OperationType.TRAINING, spec=b"{}")
    await store.submit(new, datetime.now(UTC))
    await store.close()


def test_a_port_in_use_gives_one_clear_message(standing: Process, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SERVE, repr(("127.0.0.1", standing.port))],
        env=environment(tmp_path / "other"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert f"Cannot listen on 127.0.0.1:{standing.port}: Address already in use" in last
    assert "--port" in last


def test_two_backends_do_not_share_a_home(standing: Process) -> None:
    with within("two backends over one home and SQLite file"):
        done = subprocess.run(
            [sys.executable, "-c", SERVE, repr(("127.0.0.1", 0))],
            env=standing.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert f"in use by another backend (process {standing.process.pid})" in done.stderr


def test_off_loopback_it_does_not_start_without_a_token(tmp_path: Path) -> None:
    made = Process(tmp_path, "0.0.0.0")
    assert made.process.wait(60) != 0
    assert "KTRDR_API_TOKEN" in made.log.read_text().splitlines()[-1]


def test_off_loopback_with_a_token_every_route_but_health_needs_it(tmp_path: Path) -> None:
    made = Process(tmp_path, "0.0.0.0", KTRDR_API_TOKEN=TOKEN)
    try:
        wait_for(made.ready, "the backend answers")
        assert made.get("/api/v1/workers")[0] == 401
        assert made.get("/api/v1/workers", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert made.stop() == 0
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def test_who_asks_is_said_by_the_connection(standing: Process) -> None:
    assert who_asked(standing) == "127.0.0.1"


def test_who_asks_is_said_by_a_proxy_that_is_trusted(tmp_path: Path) -> None:
    with serving(tmp_path, FORWARDED_ALLOW_IPS="127.0.0.1") as made:
        assert who_asked(made) == "203.0.113.9"
        assert made.stop() == 0


def who_asked(made: Process) -> str:
    """What the audit record says of a request that names another address."""
    connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("DELETE", "/api/v1/tokens/none", headers={"X-Forwarded-For": "203.0.113.9"})
        assert connection.getresponse().status == 404
    [entry] = json.loads(made.get("/api/v1/audit")[1])["entries"]
    assert (entry["what"], entry["outcome"]) == ("token.revoke", 404)
    return str(entry["address"])


def test_it_serves_an_inherited_socket(tmp_path: Path) -> None:
    code = (
        "import socket, sys; from ktrdr.backend.server import run_backend\n"
        "sys.exit(run_backend(sock=socket.socket(fileno=int(sys.argv[1]))))"
    )
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(sock.fileno())],
            env=environment(tmp_path),
            pass_fds=[sock.fileno()],
            stdin=subprocess.DEVNULL,
        )
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/health")  # waits in the socket's queue until the backend serves
            assert connection.getresponse().status == 200
            connection.close()
            process.terminate()
            assert process.wait(20) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def test_the_application_is_made_lazily_and_never_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys, ktrdr.backend.app as module\n"
        "assert 'app' not in vars(module)\n"
        "from ktrdr.backend.app import app\n"
        "assert app is module.app\n"
        "try:\n    module.nothing\nexcept AttributeError: pass\nelse: raise SystemExit(1)\n"
        "import ktrdr.backend.server\n"
        "heavy = {'torch', 'onnxruntime', 'numba', 'talib', 'pandas', 'matplotlib', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
