"""What doctor says of several backends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ktrdr.cli.check_backends import check_backends
from support.ports import refusing_url

LEADER = b'{"status": "healthy", "workers": 0, "role": "leader", "epoch": 3}'
FOLLOWER = b'{"status": "healthy", "workers": 0, "role": "follower", "epoch": 3}'
ALONE = b'{"status": "healthy", "workers": 0}'


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("bodies", "status", "told"),
    [
        ([LEADER], None, ""),
        ([ALONE], None, ""),
        ([b"nonsense"], None, ""),
        ([FOLLOWER], "warn", "follows (epoch 3)"),
        ([LEADER, FOLLOWER], "ok", "leads (epoch 3)"),
        ([FOLLOWER, FOLLOWER], "warn", "follows (epoch 3), "),
        ([ALONE, ALONE], "fail", "leads, "),
        ([LEADER, None], "warn", "does not answer"),
    ],
)
def test_backends(bodies: list[bytes | None], status: str | None, told: str) -> None:
    with ExitStack() as stack:
        urls = []
        for body in bodies:
            if body is None:
                urls.append(refusing_url())
            else:
                urls.append(stack.enter_context(serving(body)))
        found = list(check_backends(",".join(urls)))
    assert [check.status for check in found] == ([] if status is None else [status])
    for check in found:
        assert told in check.detail
        assert bool(check.advice) is (status != "ok")
