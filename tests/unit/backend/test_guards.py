"""Who may ask, and how much."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException

from ktrdr.backend.access.guards import JSON_BODY_CAP, Guard
from ktrdr.backend.config import BackendConfig
from ktrdr.errors import InvalidSetting
from ktrdr.protocol.allowed import LOOPBACK, PRIVATE, read_hosts, read_networks
from ktrdr.protocol.transports import Answer, AsgiTransport

SHA = "a" * 64
TOKEN = "a-token-for-this-test-0123456789"


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    """Reads the whole body and says how long it was."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def _ask(
    config: BackendConfig,
    path: str = "/api/v1/operations",
    method: str = "GET",
    host: str = "127.0.0.1:8000",
    **headers: str,
) -> Answer:
    sent = {"host": host} | {k.replace("_", "-"): v for k, v in headers.items()}
    transport = AsgiTransport({"http://127.0.0.1": Guard(_inner, config)})
    return await transport.request(method, f"http://127.0.0.1{path}", headers=sent)


@pytest.fixture
def local(tmp_path: Path) -> BackendConfig:
    return BackendConfig(home=tmp_path)


@pytest.fixture
def secured(tmp_path: Path) -> BackendConfig:
    return BackendConfig(home=tmp_path, api_token="api", worker_token="enrol", loopback_only=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.8.8.8"])
async def test_local_names_are_served(local: BackendConfig, host: str) -> None:
    assert (await _ask(local, host=host)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "192.168.1.2:8000", "localhost.evil.example", "", "[", "[::1", "a]b", "[v1.x]"]
)
async def test_other_hosts_are_refused_on_loopback(local: BackendConfig, host: str) -> None:
    answer = await _ask(local, host=host)
    assert answer.status == 421
    assert answer.headers["content-type"] == "application/problem+json"


async def test_pages_of_other_origins_are_refused_on_loopback(local: BackendConfig) -> None:
    assert (await _ask(local, origin="http://evil.example")).status == 403
    assert (await _ask(local, origin="null")).status == 403
    assert (await _ask(local, origin="http://[")).status == 403
    assert (await _ask(local, origin="http://localhost:3000")).status == 200


async def test_a_name_allowed_by_the_setting_is_served_on_loopback_too(local: BackendConfig) -> None:
    """A proxy on the same machine that passes the name by which it was asked."""
    behind = replace(local, hosts=("ktrdr.desk.example",))
    page = "https://ktrdr.desk.example"
    for host in ("KTRDR.desk.example", "ktrdr.desk.example.", "ktrdr.desk.example:8443", "localhost"):
        assert (await _ask(behind, host=host)).status == 200
        assert (await _ask(behind, host=host, origin=page)).status == 200
        assert (await _ask(behind, host=host, origin="https://evil.example")).status == 403
    assert (await _ask(behind, host="10.0.0.1")).status == 421
    assert (await _ask(behind, host="desk.example")).status == 421


async def test_off_loopback_any_name_will_do_until_the_setting_tells_them(secured: BackendConfig) -> None:
    credential = {"authorization": "Bearer api"}
    for host in ("ktrdr.desk.example", "10.0.0.1:8000", "[fd00::1]:8000", "localhost", "evil.example"):
        assert (await _ask(secured, host=host, **credential)).status == 200
    named = replace(secured, hosts=("ktrdr.desk.example",))
    for host in ("ktrdr.desk.example", "10.0.0.1:8000", "[fd00::1]:8000", "localhost"):
        assert (await _ask(named, host=host, **credential)).status == 200
    for host in ("evil.example", "x.ktrdr.desk.example", "ktrdr.desk.example.evil.example", ""):
        answer = await _ask(named, host=host, **credential)
        assert (answer.status, "ktrdr.desk.example" in str(answer.body)) == (421, "desk.example" in host)


async def test_off_loopback_pages_of_other_hosts_are_refused_whatever_token_they_have(
    secured: BackendConfig,
) -> None:
    asked = {"host": "ktrdr.desk.example:8000", "authorization": "Bearer api"}
    for origin in ("https://ktrdr.desk.example", "http://ktrdr.desk.example:3000"):
        assert (await _ask(secured, origin=origin, **asked)).status == 200
    for origin in ("https://evil.example", "null", "", "http://[", "http://localhost:3000"):
        answer = await _ask(secured, origin=origin, **asked)
        assert (answer.status, "foreign-origin" in str(answer.body)) == (403, True)


async def test_without_a_token_only_loopback_is_served(local: BackendConfig) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/operations",
        "headers": [(b"host", b"localhost")],
        "server": ("192.168.1.5", 8000),
    }
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    await Guard(_inner, local)(scope, receive, send)
    assert sent[0]["status"] == 403
    scope["server"] = ("127.0.0.1", 8000)
    await Guard(_inner, local)(scope, receive, send)
    assert sent[2]["status"] == 200


async def test_other_traffic_than_http_passes(local: BackendConfig) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await Guard(app, local)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("route", "credential", "status"),
    [
        ("GET /health", None, 200),
        ("GET /api/v1/operations", None, 401),
        ("GET /api/v1/operations", "Bearer api", 200),
        ("GET /api/v1/operations", "bearer  api ", 200),
        ("GET /api/v1/operations", "Bearer enrol", 403),
        ("GET /api/v1/operations", "Bearer wrong", 401),
        ("GET /api/v1/operations", "Bearer \xff", 401),
        ("GET /api/v1/operations", "Basic api", 401),
        ("GET /api/v1/operations", "api", 401),
        ("POST /health", None, 401),
        ("POST /api/v1/workers/register", "Bearer enrol", 200),
        ("POST /api/v1/workers/w/report", "Bearer enrol", 200),
        ("POST /api/v1/workers/w/drain", "Bearer enrol", 403),
        (f"PUT /api/v1/artifacts/{SHA}", "Bearer enrol", 200),
        (f"GET /api/v1/artifacts/{SHA}", None, 401),
        ("GET /docs", None, 401),
        ("GET /openapi.json", None, 401),
        ("GET /no/such/route", None, 401),
        ("GET /no/such/route", "Bearer enrol", 200),  # the router says that there is none
    ],
)
async def test_credentials(secured: BackendConfig, route: str, credential: str | None, status: int) -> None:
    method, path = route.split()
    headers = {} if credential is None else {"authorization": credential}
    answer = await _ask(secured, path, method, host="anything.example", **headers)
    assert answer.status == status
    if status == 401:
        told = ', error="invalid_token"' if credential else ""
        assert answer.headers["www-authenticate"] == f'Bearer realm="ktrdr"{told}'
    if status == 403:
        assert 'error="insufficient_scope", scope="' in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/api/v1/backtests/start", "application/json", 200),
        ("/api/v1/backtests/start", "application/json; charset=utf-8", 200),
        ("/api/v1/backtests/start", "text/plain", 415),
        ("/api/v1/backtests/start", "", 415),
        ("/api/v1/data/import", "application/octet-stream", 200),
        ("/api/v1/data/import", "text/csv", 415),
        (f"/api/v1/artifacts/{SHA}", "application/octet-stream", 200),
    ],
)
async def test_content_types(local: BackendConfig, path: str, kind: str, status: int) -> None:
    answer = await _ask(local, path, "POST", content_length="2", content_type=kind)
    assert answer.status == status


async def test_a_body_of_nothing_needs_no_type(local: BackendConfig) -> None:
    assert (await _ask(local, "/api/v1/operations/x/cancel", "POST", content_length="0")).status == 200


async def test_declared_sizes(local: BackendConfig) -> None:
    assert JSON_BODY_CAP == 2**20
    big = {"content_length": str(JSON_BODY_CAP + 1)}
    answer = await _ask(local, "/api/v1/backtests/start", "POST", content_type="application/json", **big)
    assert answer.status == 413
    raw = {"content_type": "application/octet-stream"} | big
    assert (await _ask(local, "/api/v1/data/import", "POST", **raw)).status == 200
    odd = await _ask(local, "/x", "POST", content_type="application/json", content_length="-1")
    assert odd.status == 413


async def test_a_body_that_grows_beyond_the_cap_is_cut(local: BackendConfig) -> None:
    chunk = b"x" * (1 << 16)

    async def receive() -> dict:
        return {"type": "http.request", "body": chunk, "more_body": True}

    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [
        (b"host", b"localhost"),
        (b"transfer-encoding", b"chunked"),
        (b"content-type", b"application/json"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/backtests/start", "headers": headers}
    with pytest.raises(HTTPException) as refused:  # FastAPI, which stands behind the guard, answers it
        await Guard(_inner, local)(scope, receive, send)
    assert (refused.value.status_code, sent) == (413, [])


# --- configuration --------------------------------------------------------------------------------------------------


def test_off_loopback_needs_a_token(tmp_path: Path) -> None:
    env = {"KTRDR_HOME": str(tmp_path)}
    with pytest.raises(InvalidSetting, match="KTRDR_API_TOKEN"):
        BackendConfig.from_environment("0.0.0.0", environ=env)
    config = BackendConfig.from_environment("0.0.0.0", environ=env | {"KTRDR_API_TOKEN": TOKEN})
    assert (config.loopback_only, config.networks, config.worker_token) == (False, PRIVATE, TOKEN)


@pytest.mark.parametrize(
    ("weak", "told"),
    [
        ("s3cret", "has 6 characters; at least 16 are needed"),
        ("0123456789abcde", "has 15 characters"),
        ("changemechangeme", "is made of 7 different characters; at least 8 are needed"),
        ("0" * 64, "is made of 1 different characters"),
    ],
)
@pytest.mark.parametrize("name", ["KTRDR_API_TOKEN", "KTRDR_ENROLMENT_TOKEN"])
def test_off_loopback_a_token_that_can_be_guessed_is_refused_without_a_word_of_it(
    tmp_path: Path, name: str, weak: str, told: str
) -> None:
    env = {"KTRDR_HOME": str(tmp_path), "KTRDR_API_TOKEN": TOKEN} | {name: weak}
    with pytest.raises(InvalidSetting, match=f"^{name} {told}") as caught:
        BackendConfig.from_environment("0.0.0.0", environ=env)
    assert "openssl rand -hex 32" in str(caught.value)
    assert weak not in str(caught.value)
    assert BackendConfig.from_environment("127.0.0.1", environ=env).loopback_only


def test_a_local_backend_needs_nothing(tmp_path: Path) -> None:
    config = BackendConfig.from_environment(environ={"KTRDR_HOME": str(tmp_path)})
    assert (config.loopback_only, config.networks, config.api_token) == (True, LOOPBACK, None)
    assert config.strategy_roots[0] == tmp_path / "strategies"


def test_networks_and_enrolment_token_by_environment(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the-enrolment-of-workers\n")
    env = {
        "KTRDR_HOME": str(tmp_path),
        "KTRDR_API_TOKEN": TOKEN,
        "KTRDR_ENROLMENT_TOKEN_FILE": str(secret),
        "KTRDR_ALLOWED_WORKER_NETWORKS": "10.0.0.0/8, 192.168.1.0/24",
    }
    config = BackendConfig.from_environment("0.0.0.0", environ=env)
    assert [str(n) for n in config.networks] == ["10.0.0.0/8", "192.168.1.0/24"]
    assert (config.api_token, config.worker_token) == (TOKEN, "the-enrolment-of-workers")


def test_host_names_by_environment(tmp_path: Path) -> None:
    env = {
        "KTRDR_HOME": str(tmp_path),
        "KTRDR_ALLOWED_HOSTS": " KTRDR.desk.example., backend_1,[fd00::1],10.0.0.1,",
    }
    config = BackendConfig.from_environment(environ=env)
    assert config.hosts == ("ktrdr.desk.example", "backend_1", "fd00::1", "10.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    ["https://a.example", "a.example:8000", "*.example", "a b", "-a", "a..b", "10.0.0", "a/", "ä.example"],
)
def test_a_wrong_host_name_is_named(wrong: str) -> None:
    with pytest.raises(InvalidSetting, match="KTRDR_ALLOWED_HOSTS") as caught:
        read_hosts({"KTRDR_ALLOWED_HOSTS": f"good.example,{wrong}"})
    assert f"'{wrong}' is not the name of a host" in str(caught.value)


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(InvalidSetting, match=r"'10\.0\.0' is not a network"):
        read_networks({"KTRDR_ALLOWED_WORKER_NETWORKS": "10.0.0"})
    assert read_networks({"KTRDR_ALLOWED_WORKER_NETWORKS": "::1/128"}) == (ipaddress.ip_network("::1/128"),)


async def test_refusals_are_logged_with_the_address_and_without_end(
    secured: BackendConfig, caplog: pytest.LogCaptureFixture
) -> None:
    transport = AsgiTransport({"http://127.0.0.1": Guard(_inner, secured)})
    for _ in range(50):
        headers = {"authorization": "Bearer a-guess-of-somebody"}
        answer = await transport.request("GET", "http://127.0.0.1/api/v1/x%0Ay", headers=headers)
        assert answer.status == 401
    lines = [line for line in caplog.messages if "no valid token" in line]
    assert lines[0] == "GET '/api/v1/x\\ny' from 127.0.0.1 was refused: no valid token"
    assert len(lines) < 25
    assert "a-guess-of-somebody" not in caplog.text
