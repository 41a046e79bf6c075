"""A tiny HTTP server that answers what a test tells it to: for what a real backend cannot be made to say."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Said:
    """One answer: a JSON value, or text of another type."""

    body: Any = None
    status: int = 200
    kind: str = "application/json"


@dataclass
class Scripted:
    """The server's address, what was asked of it, and the function that answers; ``hang_up`` requests get none."""

    answer: Callable[[str, str], Said]
    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    hang_up: int = 0


@contextlib.contextmanager
def scripted(answer: Callable[[str, str], Said]) -> Iterator[Scripted]:
    """A server whose ``answer(method, path)`` is called for each request; the path has its query."""
    script = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if script.hang_up:
                script.hang_up -= 1
                self.close_connection = True
                return
            script.asked.append((self.command, self.path))
            said = script.answer(self.command, self.path)
            text = said.body if isinstance(said.body, str) else json.dumps(said.body)
            content = b"" if said.status == 204 else text.encode()
            self.send_response(said.status)
            self.send_header("Content-Type", said.kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _answer  # the names that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join(10)


@contextlib.contextmanager
def mute(*, hang_up: bool) -> Iterator[str]:
    """The URL of something that takes connections and either ends them at once or never says a word."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    kept.append(connection)
                    if hang_up:
                        connection.recv(1 << 16)
                        connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join(10)
            for connection in kept:
                connection.close()
