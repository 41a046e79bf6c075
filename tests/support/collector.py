"""A receiver of traces on loopback, as a collector of OpenTelemetry is."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["Collector", "collector"]


class Collector:
    """What came, by service; ``url`` is what to set as endpoint."""

    def __init__(self) -> None:
        self.url = ""
        self._spans: list[tuple[str, Span]] = []

    def take(self, body: bytes) -> None:
        """One request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self._spans += [(names["service.name"], span) for span in scope.spans]

    def spans(self, trace_id: str) -> dict[tuple[str, str], Span]:
        """Spans of a trace by service and name."""
        return {(service, s.name): s for service, s in list(self._spans) if s.trace_id.hex() == trace_id}


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A running receiver."""
    received = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server looks for
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join(10)
