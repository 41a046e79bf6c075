"""Real processes that speak TLS with each other, both sides showing certificates."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ktrdr.artifacts import sha256_of
from ktrdr.protocol.tls import TlsSettings
from ktrdr.testing.worker_jobs import spec
from support.certificates import Authority
from support.processes import Parts, environment, ktrdr, parts, wait_for

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-this-test-0123456789"
WORKER = """
from ktrdr.workers.backtest_worker import BacktestWorker
from ktrdr.workers.kinds import run_worker

BacktestWorker.preload = ()
run_worker("backtesting", port=0, host="127.0.0.1", job="ktrdr.testing.worker_jobs:perform")
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as started:
        yield started


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def settings_of(authority: Authority, name: str, *, demands: bool = True) -> dict[str, str]:
    """The environment of a process with a certificate of its own."""
    cert, key = authority.sign(name)
    told = {"KTRDR_TLS_CERT": str(cert), "KTRDR_TLS_KEY": str(key), "KTRDR_TLS_CA": str(authority.ca)}
    return told | ({"KTRDR_TLS_CLIENT_CA": str(authority.ca)} if demands else {})


def ask(url: str, method: str, path: str, tls: ssl.SSLContext | None, body: Any = None) -> tuple[int, Any]:
    """One request over TLS, or in plain where there is no context."""
    place = urlsplit(url)
    if tls is None:
        connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    else:
        connection = http.client.HTTPSConnection(str(place.hostname), place.port, timeout=20, context=tls)
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": kind}
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_fleet_over_tls_with_certificates_on_both_sides(alone: Parts, authority: Authority) -> None:
    mine = settings_of(authority, "client", demands=False)
    alone.tls = TlsSettings.from_environment(mine).client_context()
    backend = alone.backend(KTRDR_API_TOKEN=TOKEN, **settings_of(authority, "backend"))
    assert alone.url.startswith("https://")
    assert f"on {alone.url}" in backend.text()
    extra = {
        "WORKER_ID": "w",
        "KTRDR_API_URL": alone.url,
        "KTRDR_API_TOKEN": TOKEN,
        "KTRDR_HEALTH_INTERVAL_S": "1",
    }
    worker = alone.start("w", [], extra | settings_of(authority, "worker"), program=("-c", WORKER))
    with alone.api(TOKEN) as api:

        def registered() -> Any:
            assert worker.process.poll() is None, worker.text()
            return next((w for w in api.get("/workers")["workers"] if w["status"] == "available"), None)

        view = wait_for(registered, "the worker")
        assert view["endpoint_url"].startswith("https://127.0.0.1:")

        # a job's own process fetches what it needs over TLS too, and its result comes back
        digest = sha256_of(b"what the job reads")
        assert (
            ask(alone.url, "PUT", f"/api/v1/artifacts/{digest}", alone.tls, b"what the job reads")[0] == 201
        )
        start = {"task_id": "by-hand", "spec": spec(f"fetch {digest}").model_dump(mode="json")}
        assert ask(view["endpoint_url"], "POST", "/backtests/start", alone.tls, start)[0] == 202

        def ended() -> Any:
            answer = json.loads(ask(view["endpoint_url"], "GET", "/api/v1/operations/by-hand", alone.tls)[1])
            return answer if answer["status"] in ("completed", "failed") else None

        assert wait_for(ended, "the job")["status"] == "completed"

    # neither door opens to plain HTTP, to nobody's certificate, or to another authority's
    stranger = Authority(alone.root / "stranger", "stranger")
    cert, key = stranger.sign("intruder")
    for url in (alone.url, view["endpoint_url"]):
        without = TlsSettings(ca=authority.ca).client_context()
        foreign = TlsSettings(ca=authority.ca, cert=cert, key=key).client_context()
        for tls in (None, without, foreign):
            with pytest.raises((OSError, http.client.HTTPException)):
                ask(url, "GET", "/health", tls)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority.ca)
        old.load_cert_chain(mine["KTRDR_TLS_CERT"], mine["KTRDR_TLS_KEY"])
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            ask(url, "GET", "/health", old)
        assert ask(url, "GET", "/health", alone.tls)[0] == 200

    command_line(alone, mine)
    renewals(alone, authority, str(view["endpoint_url"]))


def renewals(alone: Parts, authority: Authority, worker: str) -> None:
    """Backend and worker show their renewed certificates at once and go on reaching each other; nobody restarts."""

    def serial(url: str) -> str:
        place = urlsplit(url)
        assert alone.tls is not None
        with (
            socket.create_connection((str(place.hostname), int(place.port or 0)), 20) as plain,
            alone.tls.wrap_socket(plain, server_hostname=place.hostname) as door,
        ):
            return str((door.getpeercert() or {})["serialNumber"])

    def probed() -> str:
        with alone.api(TOKEN) as api:
            [view] = api.get("/workers")["workers"]
        return str(view["last_healthy_at"]) if view["status"] == "available" else ""

    before = [serial(alone.url), serial(worker)]
    for name in ("backend", "worker"):
        authority.sign(name)  # over the files of before
    after = [serial(alone.url), serial(worker)]
    assert len({*before, *after}) == 4
    seen = probed()
    wait_for(lambda: probed() not in ("", seen), "the backend reaches the worker by its new certificate")


def command_line(alone: Parts, mine: dict[str, str]) -> None:
    """What the command line says with and without its files."""

    def cli(url: str = alone.url, **extra: str) -> Any:
        return ktrdr(
            "workers", "list", env=environment(alone.home, KTRDR_API_URL=url, KTRDR_API_TOKEN=TOKEN, **extra)
        )

    done = cli(**mine)
    assert (done.returncode, "https://127.0.0.1" in done.stdout) == (0, True), done.stderr
    done = cli()
    assert done.returncode == 5
    assert "KTRDR_TLS_CA" in done.stderr
    done = cli(KTRDR_TLS_CA=mine["KTRDR_TLS_CA"])
    assert done.returncode == 5
    assert "set KTRDR_TLS_CERT and KTRDR_TLS_KEY" in done.stderr
    done = cli(alone.url.replace("https", "http"), **mine)
    assert done.returncode == 5
    assert "https://" in done.stderr


@pytest.mark.parametrize("what", ["backend", "worker"])
def test_with_wrong_files_it_does_not_start_and_says_why(
    tmp_path: Path, authority: Authority, what: str
) -> None:
    cert, _ = authority.sign("right")
    _, key = authority.sign("wrong")
    command = ("backend", "start", "--port", "0") if what == "backend" else ("worker", "start", "backtesting")
    wrong = {"KTRDR_TLS_CERT": str(cert), "KTRDR_TLS_KEY": str(key), "KTRDR_API_URL": "https://127.0.0.1:9"}
    done = ktrdr(*command, env=environment(tmp_path, **wrong))
    assert done.returncode == 2
    assert f"KTRDR_TLS_KEY='{key}' is not the key of KTRDR_TLS_CERT='{cert}'." in done.stderr


def test_flags_of_the_backend(tmp_path: Path, authority: Authority) -> None:
    done = ktrdr("backend", "start", "--tls-cert", str(authority.ca), env=environment(tmp_path))
    assert done.returncode == 2
    assert "needs KTRDR_TLS_KEY beside it" in done.stderr


def test_up_over_tls(alone: Parts, authority: Authority) -> None:
    mine = settings_of(authority, "machine", demands=False)
    options = ["--port", "0", "--training-workers", "0", "--backtest-workers", "1"]
    up = alone.start("up", ["up", *options], mine | {"KTRDR_HOME": str(alone.home)})

    def ready() -> Any:
        assert up.process.poll() is None, up.text()
        return "Ready at https://127.0.0.1:" in up.text()

    wait_for(ready, "the fleet")
    assert up.stop() == 0
