"""``ktrdr doctor``: every check in its states, and that it changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ktrdr.cli.check_secrets import check_secrets
from ktrdr.cli.doctor import (
    Check,
    check_backend,
    check_clock,
    check_database,
    check_gpu,
    check_home,
    check_packages,
    check_port,
    check_python,
)
from ktrdr.operations.sql.ledger import SqlStore
from ktrdr.operations.sql.tables import SCHEMA
from support.ports import kept_port, refusing_url


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 13, 2), "ok"), ((3, 14, 0), "fail")],
)
def test_python(version: tuple[int, int, int], status: str) -> None:
    assert check_python(version).status == status
    assert check_python().status == "ok"


def test_packages() -> None:
    assert {check.status for check in check_packages()} == {"ok"}
    wanted = [
        "click<9,>=8.1",
        "numpy>=999",
        "onlyelsewhere; sys_platform == 'plan9'",
        "nosuchpackage>=1; extra == 'training'",
        "click; extra == 'report'",
    ]
    required, training, report = check_packages(wanted)
    assert (required.status, training.status, report.status) == ("warn", "warn", "ok")
    assert "numpy" in required.detail
    assert "click" not in required.detail
    assert "pip install 'ktrdr[training]'" in training.advice
    [required] = check_packages(["nosuchpackage>=1"])
    assert (required.status, required.detail) == ("fail", "missing: nosuchpackage")


def test_home(tmp_path: Path) -> None:
    assert check_home(tmp_path).status == "ok"
    assert check_home(tmp_path / "new" / "home").detail.endswith("it is made at the first start")
    assert list(tmp_path.iterdir()) == []
    assert check_home(tmp_path, free=2**30).status == "warn"
    assert check_home(tmp_path, free=2**20).status == "fail"
    (tmp_path / "file").touch()
    assert check_home(tmp_path / "file").status == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    found = check_home(tmp_path)
    tmp_path.chmod(0o700)
    assert (found.status, "KTRDR_HOME" in found.advice) == ("fail", True)


@contextlib.contextmanager
def _serving(answers: dict[str, tuple[int, Any]], date: str | None = None) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {}))
            self.send_response_only(status)
            if date is not None:
                self.send_header("Date", date)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_ports() -> None:
    assert check_port(kept_port(), "the backend", needed=True).status == "ok"
    for health, told in (
        ({"status": "healthy", "version": "1.2", "workers": 0}, "a ktrdr backend (1.2) answers there"),
        ({"status": "healthy", "worker_id": "w1"}, "ktrdr worker w1 answers there"),
    ):
        with _serving({"/health": (200, health)}) as port:
            found = check_port(port, "the backend", needed=True)
            assert (found.status, found.detail) == ("ok", told)
    for other in ({"status": "healthy"}, {"status": "up"}, []):
        with _serving({"/health": (200, other)}) as port:
            needed, wished = (check_port(port, "the backend", needed=n) for n in (True, False))
            assert (needed.status, wished.status) == ("fail", "warn")
            assert "Address already in use" in needed.detail


async def test_the_ledger_is_read_and_left_alone(tmp_path: Path) -> None:
    assert check_database(tmp_path, None).detail.endswith("is made at the first start")
    store = SqlStore(tmp_path / "ktrdr.db")
    in_use = check_database(tmp_path, None)
    assert (in_use.status, f"schema {SCHEMA}, 0 operations" in in_use.detail) == ("ok", True)
    assert await store.workers() == ()  # the owner goes on
    await store.close()
    before = _contents(tmp_path)
    assert check_database(tmp_path, f"sqlite:///{tmp_path}/ktrdr.db").status == "ok"
    assert _contents(tmp_path) == before


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _while_locked(folder: Path) -> Check:
    """The check while another process has the ledger for itself; locks do not work inside one process."""
    program = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder / "ktrdr.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        found = check_database(folder, None)
        holder.communicate(timeout=30)
    return found


async def test_ledgers_that_cannot_be_used(tmp_path: Path) -> None:
    await SqlStore(tmp_path / "ktrdr.db").close()
    connection = sqlite3.connect(tmp_path / "ktrdr.db", isolation_level=None)
    with contextlib.closing(connection):
        for schema, status in (("0000", "warn"), ("9999", "fail")):
            connection.execute("UPDATE alembic_version SET version_num = ?", (schema,))
            assert check_database(tmp_path, None).status == status
        connection.execute("PRAGMA journal_mode = DELETE")
    locked = _while_locked(tmp_path)
    assert (locked.status, "locked by another program" in locked.detail) == ("warn", True)
    for content in (b"no database at all" * 100, b""):
        (tmp_path / "ktrdr.db").write_bytes(content)
        assert check_database(tmp_path, None).status == "fail"
    wrong = check_database(tmp_path, "mysql://x/y")
    assert (wrong.status, "KTRDR_DATABASE_URL" in wrong.advice) == ("fail", True)


def _date(moment: datetime) -> str:
    return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_the_clock() -> None:
    now = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
    assert check_clock(_date(now), now).status == "ok"
    behind = check_clock(_date(now + timedelta(seconds=90)), now)
    assert (behind.status, behind.detail) == ("warn", "90 s behind the backend's")
    assert check_clock(_date(now - timedelta(seconds=90)), now).detail == "90 s ahead of the backend's"
    assert check_clock(None, datetime(1970, 1, 1, tzinfo=UTC)).status == "warn"
    assert check_clock(None).status == "ok"


def _worker(name: str, status: str = "available", reason: str | None = None) -> dict[str, Any]:
    return {"worker_id": name, "worker_type": "training", "status": status, "reason": reason}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"workers": []}, ["ok", "warn", "ok"]),
        (200, {"workers": [_worker("a"), _worker("b", "busy")]}, ["ok", "ok", "ok"]),
        (200, {"workers": [_worker("a", "draining")]}, ["ok", "warn", "ok"]),
        (200, {"workers": [_worker(f"w{n}", "busy", "version 0.9") for n in range(7)]}, ["ok", "warn", "ok"]),
        (401, {"type": "urn:ktrdr:problem:not-authorised", "detail": "needs a token"}, ["fail"]),
        (500, {"type": "urn:ktrdr:problem:internal-error", "detail": "broken"}, ["fail"]),
        (200, {"something": "else"}, ["fail"]),
    ],
)
def test_the_backend(status: int, body: Any, expected: list[str]) -> None:
    answers = {"/api/v1/workers": (status, body)}
    with _serving(answers, _date(datetime.now(UTC))) as port:
        found = list(check_backend(f"http://127.0.0.1:{port}", None, told=True))
    assert [check.status for check in found] == expected
    if len(body.get("workers", [])) == 7:
        assert "w0: version 0.9" in found[1].detail
        assert found[1].detail.endswith("and 2 more")


@pytest.mark.parametrize(
    ("free", "expected"),
    [(3 << 30, ["ok"]), (1 << 30, ["warn"]), (1 << 20, ["fail"]), (None, []), ("much", [])],
)
def test_the_disk_of_the_backend(free: Any, expected: list[str]) -> None:
    """A backend of an earlier version does not tell."""
    told = {} if free is None else {"backend_disk_free": free}
    answers = {"/api/v1/workers": (200, {"workers": []}), "/api/v1/metrics/workers": (200, told)}
    with _serving(answers, _date(datetime.now(UTC))) as port:
        found = list(check_backend(f"http://127.0.0.1:{port}", None, told=True))
    assert [check.status for check in found if check.name == "backend disk"] == expected
    assert [check.name for check in found if check.name != "backend disk"] == ["backend", "workers", "clock"]


@pytest.mark.parametrize(("told", "status"), [(True, "fail"), (False, "warn")])
def test_no_backend(told: bool, status: str) -> None:
    backend, clock = check_backend(refusing_url(), None, told=told)
    assert (backend.status, clock.name) == (status, "clock")
    assert backend.advice


def test_a_url_that_is_none() -> None:
    [backend] = check_backend("ftp://x", None, told=True)
    assert (backend.status, "'ftp://x'" in backend.detail) == ("fail", True)


def test_the_gpu() -> None:
    found = check_gpu()
    assert found.name == "gpu"
    assert found.status in ("ok", "warn")


def _doctor(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    program = (
        "import sys; from ktrdr.cli.app import run; code = run(['doctor', *sys.argv[1:]]); "
        "print('LOADED', [m for m in ('torch', 'numpy', 'polars', 'fastapi') if m in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KTRDR_")}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=kept | extra, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_one_line_a_check_and_json_and_the_exit_code(tmp_path: Path) -> None:
    with _serving({"/api/v1/workers": (200, {"workers": [_worker("a")]})}, _date(datetime.now(UTC))) as port:
        url = f"http://127.0.0.1:{port}"
        plain = _doctor(KTRDR_HOME=str(tmp_path), KTRDR_API_URL=url)
        as_json = _doctor("--json", "--api-url", url, KTRDR_HOME=str(tmp_path))
    assert plain.returncode == as_json.returncode == 0
    assert plain.stderr == as_json.stderr == "LOADED []\n"
    told = json.loads(as_json.stdout)
    names = [check["name"] for check in told["checks"]]
    assert {
        "python",
        "packages",
        "home",
        "database",
        "port 8000",
        "backend",
        "workers",
        "clock",
        "gpu",
    } <= set(names)
    assert all(check["status"] == "ok" or check["advice"] for check in told["checks"])
    lines = plain.stdout.splitlines()
    assert [line[6:].partition(":")[0] for line in lines] == names
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_is_exit_code_one(tmp_path: Path) -> None:
    done = _doctor(KTRDR_HOME=str(tmp_path), KTRDR_DATABASE_URL="mysql://x/y")
    assert done.returncode == 1
    [line] = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert " -> Correct KTRDR_DATABASE_URL" in line


def test_a_ledger_in_postgresql_is_looked_at_without_its_password(postgres: Any, tmp_path: Path) -> None:
    postgres.start()
    url = postgres.url(postgres.database())
    fresh = check_database(tmp_path, url)
    assert (fresh.status, fresh.detail.endswith("is filled at the first start")) == ("ok", True)
    asyncio.run(SqlStore(url).close())
    used = check_database(tmp_path, url)
    assert used.status == "ok"
    assert "0 operations" in used.detail
    away = check_database(tmp_path, "postgresql://me:a-secret@127.0.0.1:9/ktrdr")
    assert away.status == "fail"
    assert "a-secret" not in f"{away.detail} {away.advice}"


def test_tokens(tmp_path: Path) -> None:
    good = "b7f3c1d2e4a5968778695a4b3c2d1e0f"
    assert list(check_secrets({})) == []
    assert [c.status for c in check_secrets({"KTRDR_API_TOKEN": good})] == ["ok"]
    for weak in ({"KTRDR_API_TOKEN": "s3cret"}, {"KTRDR_API_TOKEN": good, "KTRDR_ENROLMENT_TOKEN": "s3cret"}):
        [check] = check_secrets(weak)
        assert check.status == "warn"
        assert "has 6 characters" in check.detail
        assert "openssl rand -hex 32" in check.advice
        assert "s3cret" not in check.detail + check.advice
    [check] = check_secrets({"KTRDR_API_TOKEN_FILE": str(tmp_path / "absent")})
    assert check.status == "fail"
