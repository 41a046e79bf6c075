"""A backend under clients that mean it no good: everything is refused or served, nothing breaks, nothing stays open."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from support.chaos import Chaos, ended, no_tracebacks
from support.processes import Parts, advancing, parts, wait_for

pytestmark = pytest.mark.integration
NAMES = (
    "..",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cx",
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",
    "%F0%9F%98%80",
    "%0d%0aX:%20y",
    "x" * 3_000,
    "9" * 400,
    "-",
    "%25",
    "{}",
    "'%3b%20drop%20table%20operations%3b--",
)
BODIES = {
    "deep object": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "deep list": b"[" * 200_000,
    "not finite": b'{"strategy_name":"sp500_trend","initial_capital":Infinity,"seed":NaN}',
    "too large a number": b'{"strategy_name":"sp500_trend","initial_capital":1e999,"seed":1e999}',
    "many digits": b'{"strategy_name":"sp500_trend","seed":' + b"9" * 5_000 + b"}",
    "half a character": b'{"strategy_name":"\\ud800","strategy":"\\ud800"}',
    "a zero byte": b'{"strategy_config_path":"a\\u0000b.yaml"}',
    "a path": b'{"strategy_config_path":"../../../../etc/passwd"}',
    "an absolute name": b'{"strategy_name":"/etc/passwd"}',
    "a symbol that is a path": b'{"strategy_name":"sp500_trend","symbols":["../../x"]}',
    "no object": b"[]",
    "nothing": b"",
    "bytes": bytes(range(256)),
    "other encoding": '{"strategy_name":"x"}'.encode("utf-16"),
    "YAML that grows": b'{"strategy":"a: &a [x,x,x,x]\\nb: &b [*a,*a,*a,*a]\\nc: &c [*b,*b,*b,*b]\\nd: [*c,*c,*c,*c]"}',
    "deep YAML": b'{"strategy":"' + b"[" * 100_000 + b'"}',
    "YAML that runs": b'{"strategy":"!!python/object/apply:os.abort []"}',
    "YAML in a circle": b'{"strategy":"&a [*a]"}',
    "too large": b'{"strategy":"' + b"x" * (1 << 20) + b'"}',
}
ENDPOINTS = (
    "http://169.254.169.254",
    "http://10.0.0.1:80",
    "http://0.0.0.0:5003",
    "http://0:5003",
    "http://[::]:1",
    "http://[::ffff:169.254.169.254]",
    "http://2130706433:1",
    "http://127.1:1",
    "file:///etc/passwd",
    "gopher://127.0.0.1:1",
    "http://user:secret@127.0.0.1:1",
    "http://127.0.0.1\\@evil.example",
    "http://127.0.0.1:1#@evil.example",
    "http://127.0.0.1:1/admin",
    "http://127.0.0.1:1?x=1",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:1\r\nX: y",
    "http://[::1",
    "//127.0.0.1:1",
    "http://" + "a" * 300 + ":1",
    "http://",
)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path, measured=False) as running:
        yield running


@pytest.fixture
def client(alone: Parts) -> Iterator[httpx.Client]:
    alone.backend()
    limits = httpx.Limits(max_connections=250, max_keepalive_connections=0)
    with httpx.Client(base_url=alone.url, timeout=60, trust_env=False, limits=limits) as client:
        yield client


def _routes(client: httpx.Client) -> list[tuple[str, str]]:
    paths = client.get("/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def _refused_or_served(answer: httpx.Response, what: Any) -> None:
    assert answer.status_code < 500 or answer.status_code == 503, (what, answer.text[:300])
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json", what


def test_hostile_names_and_bodies_are_refused_by_every_route(alone: Parts, client: httpx.Client) -> None:
    client.post("/api/v1/data/samples")
    routes = _routes(client)
    for method, path in routes:
        if "{" not in path:
            continue
        for name in NAMES:
            url = re.sub(r"\{[^}]+\}", lambda _, name=name: name, path)
            _refused_or_served(client.request(method, url), (method, path, name))
    takers = [p for m, p in routes if m == "POST" and p.endswith(("/start", "/validate", "/register"))]
    assert len(takers) >= 4
    for path in [*takers, "/api/v1/workers/w1/report"]:
        for what, body in BODIES.items():
            answer = client.post(path, content=body, headers={"content-type": "application/json"})
            _refused_or_served(answer, (path, what))
            assert answer.status_code >= 400, (path, what)
        for kind in (
            "text/plain",
            "",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
        ):
            assert client.post(path, content=b"{}", headers={"content-type": kind}).status_code == 415
    listed = {item["symbol"] for item in client.get("/api/v1/data").json()["items"]}
    assert {"SP500", "NASDAQ"} <= listed, "nothing that was deleted was hit by a hostile name"
    no_tracebacks(alone)


def test_addresses_that_are_no_workers_are_never_taken_in(alone: Parts, client: httpx.Client) -> None:
    def register(number: int, endpoint: str) -> httpx.Response:
        body = {"worker_id": f"fake{number}", "worker_type": "backtesting", "instance_id": f"i{number}"}
        return client.post("/api/v1/workers/register", json=body | {"endpoint_url": endpoint})

    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and never answers
        endpoints = [*ENDPOINTS, "http://127.0.0.1:1", alone.url, f"http://127.0.0.1:{deaf.getsockname()[1]}"]
        with ThreadPoolExecutor(50) as pool:
            storm = [
                pool.submit(register, number, endpoints[number % len(endpoints)])
                for number in range(2 * len(endpoints))
            ]
            assert client.get("/api/v1/operations").status_code == 200  # others are served meanwhile
            answers = [answer.result() for answer in storm]
    assert {answer.status_code for answer in answers} == {422}
    assert client.get("/api/v1/workers").json()["total"] == 0
    no_tracebacks(alone)


def _open(port: int, count: int, sent: bytes, stack: contextlib.ExitStack) -> None:
    for _ in range(count):
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(sent)


def test_slow_and_silent_clients_cost_connections_and_nothing_else(alone: Parts, tmp_path: Path) -> None:
    chaos = Chaos(alone, endless=f"trace {tmp_path / 'trace'} 3600", late="late")
    backend = alone.backend()
    worker = chaos.worker("w1")
    port = int(alone.url.rpartition(":")[2])
    with (
        alone.api() as api,
        httpx.Client(base_url=f"{alone.url}/api/v1", timeout=60, trust_env=False) as client,
    ):
        name = chaos.submit(api, "endless")
        advancing(api, name)
        head = b"HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        for _ in range(3):
            client.get("/operations")
        before = {part: psutil.Process(part.pid).num_fds() for part in (backend, worker)}
        with contextlib.ExitStack() as stack:
            _open(port, 100, b"GET /api/v1/operations " + head + b"X-a: ", stack)  # heads that never end
            body = b"Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
            _open(port, 50, b"POST /api/v1/backtests/start " + head + body, stack)
            _open(port, 50, f"GET /api/v1/operations/{name}/events ".encode() + head + b"\r\n", stack)
            _open(port, 50, f"GET /api/v1/operations/{name}?wait=60 ".encode() + head + b"\r\n", stack)
            paths = (
                "/operations",
                "/workers",
                f"/operations/{name}",
                f"/operations/{name}/metrics",
                "/models",
            )
            with ThreadPoolExecutor(50) as pool:
                answers = list(pool.map(lambda n: client.get(paths[n % len(paths)]).status_code, range(200)))
            assert set(answers) == {200}
            assert psutil.Process(backend.pid).num_fds() >= before[backend] + 250
        client.close()

        def closed(part: Any) -> bool:
            return psutil.Process(part.pid).num_fds() <= before[part] + 20  # pools keep a few for a while

        wait_for(lambda: closed(backend) and closed(worker), "the connections are closed")
        assert psutil.Process(backend.pid).num_threads() < 30
        api.post(f"/operations/{name}/cancel")
        ended(api, [name])
        assert ended(api, [late := chaos.submit(api, "late")])[late]["status"] == "completed"
    assert backend.stop() == 0
    no_tracebacks(alone)
