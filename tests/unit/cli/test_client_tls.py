"""A command that goes on for days while certificates are renewed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ktrdr.cli.client import Api
from ktrdr.errors import ServerUnreachable
from ktrdr.protocol.tls import TlsSettings
from ktrdr.protocol.tls_renewal import connecting, serving
from support.certificates import Authority


class _Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.send_header("connection", "close")  # so that every request makes a connection of its own
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def _served(settings: TlsSettings) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Backend) as server:
        context = serving(settings)
        assert context is not None
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who trusts nobody hangs up
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _copy(sources: tuple[Path, ...], targets: tuple[Path, ...]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.write_bytes(source.read_bytes())


def test_a_client_follows_its_files(tmp_path: Path) -> None:
    old, new = (Authority(tmp_path / name, name) for name in ("old", "new"))
    shown, trusted = (tmp_path / "cert.pem", tmp_path / "key.pem"), tmp_path / "ca.pem"
    _copy((*old.sign("backend"), old.ca), (*shown, trusted))
    with _served(TlsSettings(cert=shown[0], key=shown[1])) as url:
        settings = TlsSettings(ca=trusted)
        with Api(url, tls=connecting(settings)) as follower, Api(url, tls=settings.client_context()) as fixed:
            assert follower.get("/operations") == fixed.get("/operations") == {}
            _copy(new.sign("backend"), shown)
            for api in (follower, fixed):
                with pytest.raises(ServerUnreachable, match="is not accepted"):
                    api.get("/operations")
            _copy((new.ca,), (trusted,))
            assert follower.get("/operations") == {}
            with pytest.raises(ServerUnreachable, match="is not accepted"):
                fixed.get("/operations")
