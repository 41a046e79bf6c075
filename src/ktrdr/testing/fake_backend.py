"""The backend as a worker sees it: registration, reports and artifacts over real HTTP, kept in memory."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["FakeBackend"]


class FakeBackend:
    """A context manager; ``url`` is where it listens.

    ``registrations`` and ``deliveries`` collect what came. ``stop_next`` is sent with the next answer to a
    registration; ``refuse`` maps a word in the path to a status with which such requests are answered;
    ``token`` is demanded where it is set.
    """

    def __init__(self, port: int = 0, token: str | None = None) -> None:
        self.registrations: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.artifacts: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.stop_next: list[str] = []
        self.refuse: dict[str, int] = {}
        self.token = token
        self.changed = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _handler(self))
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        """Ends of attempts, from reports and registrations alike, in the order they came."""
        return [report["delivery"] for report in self.reports if report.get("delivery")]

    def wait_for(self, condition: Any, timeout_s: float = 90.0) -> None:
        """Block until ``condition()`` holds after some request."""
        with self.changed:
            if not self.changed.wait_for(condition, timeout_s):
                raise TimeoutError(
                    f"it did not happen within {timeout_s:g} s; requests: {self.requests[-10:]}"
                )

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any] | bytes]:
        """Status and body for a request."""
        for word, status in self.refuse.items():
            if word in path:
                return status, {"detail": f"refused with {status}"}
        if path.endswith("/workers/register"):
            return 200, self._register(json.loads(body))
        if path.endswith("/report"):
            self.reports.append(json.loads(body))
            return 200, {"acknowledged": True, "stop": []}
        digest = path.rpartition("/")[2]
        if method == "PUT":
            if hashlib.sha256(body).hexdigest() != digest:
                return 422, {"detail": "other digest"}
            self.artifacts[digest] = body
            return 201, b""
        return (200, self.artifacts[digest]) if digest in self.artifacts else (404, b"")

    def _register(self, message: dict[str, Any]) -> dict[str, Any]:
        self.registrations.append(message)
        outbox = message.get("outbox", [])
        self.reports += [{"delivery": delivery} for delivery in outbox]
        stop, self.stop_next = self.stop_next, []
        return {
            "worker_id": message["worker_id"],
            "worker_type": message["worker_type"],
            "status": "available",
            "message": "welcome",
            "stop": stop,
            "acknowledged": [f"{delivery['operation_id']}:{delivery['attempt']}" for delivery in outbox],
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A worker that is killed breaks off its connections; that is no event here."""


def _handler(backend: FakeBackend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            path = re.sub(r"\?.*", "", self.path)
            if backend.token and self.headers.get("authorization") != f"Bearer {backend.token}":
                self._send(401, {"detail": "a token is needed"})
                return
            with backend.changed:
                backend.requests.append((self.command, path))
                status, answer = backend.answer(self.command, path, body)
            self._send(status, answer)
            with backend.changed:
                backend.changed.notify_all()

        def _send(self, status: int, answer: dict[str, Any] | bytes) -> None:
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = _serve

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
