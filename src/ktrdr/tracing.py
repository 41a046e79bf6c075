"""Traces of operations, for OpenTelemetry: off, and free of charge, unless the standard environment asks for them.

An operation is one trace. Its ids follow from the operation's id, so that a backend which restarts and every worker
write into the same trace and nobody has to remember it. Spans are recorded when they end.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from ktrdr.errors import InvalidSetting

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = [
    "OtelTraces",
    "Place",
    "Span",
    "Traces",
    "attempt_place",
    "operation_place",
    "traces_from_environment",
]

_log = logging.getLogger("ktrdr.tracing")
_HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")
_FLUSH_MS = 3_000
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Place:
    """A span's identity: hexadecimal digits, 32 for the trace and 16 for the span."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """As W3C's header has it; always sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    @classmethod
    def of(cls, traceparent: str | None) -> Place | None:
        """What the header names; None if it is none."""
        found = _HEADER.match(traceparent or "")
        return cls(found[1], found[2]) if found and int(found[1], 16) and int(found[2], 16) else None

    def child(self, name: str) -> Place:
        """The span of this name below; the same for the same name."""
        return Place(self.trace_id, hashlib.sha256(f"{self.span_id}/{name}".encode()).hexdigest()[:16])


def operation_place(operation_id: str) -> Place:
    """The root of an operation's trace."""
    digest = hashlib.sha256(operation_id.encode()).hexdigest()
    return Place(digest[:32], digest[32:48])


def attempt_place(operation_id: str, attempt: int) -> Place:
    """The span of one attempt; what the worker does is below it."""
    return operation_place(operation_id).child(f"attempt {attempt}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took time. ``error`` says why it did not go well."""

    name: str
    place: Place
    parent: Place | None
    start: datetime
    end: datetime
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str | None = None


class Traces:
    """Where spans go: nowhere."""

    enabled = False

    def record(self, span: Span) -> None:
        """Hand over a span that has ended; never blocks, never raises."""

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""


class OtelTraces(Traces):
    """Spans go to an exporter of OpenTelemetry's SDK, in batches, by a thread of its own.

    Parameters
    ----------
    service
        ``service.name``, unless ``OTEL_SERVICE_NAME`` says otherwise.
    """

    enabled = True

    def __init__(self, exporter: SpanExporter, service: str, version: str) -> None:
        from opentelemetry.sdk.resources import Resource  # lazy: an extra, and only who asked for traces pays
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        named = {"service.version": version, "service.name": os.environ.get("OTEL_SERVICE_NAME") or service}
        self._resource = Resource.create(named)
        self._scope = InstrumentationScope("ktrdr", version)
        self._processor = BatchSpanProcessor(exporter)

    def record(self, span: Span) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        def context(place: Place) -> SpanContext:
            sampled = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(int(place.trace_id, 16), int(place.span_id, 16), False, sampled)

        status = Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.OK)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context(span.place),
                None if span.parent is None else context(span.parent),
                self._resource,
                {f"ktrdr.{name}": value for name, value in span.attributes.items()},
                status=status,
                start_time=_nanoseconds(span.start),
                end_time=max(_nanoseconds(span.start), _nanoseconds(span.end)),
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        self._processor.force_flush(_FLUSH_MS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000


def traces_from_environment(service: str, version: str, environ: Mapping[str, str] | None = None) -> Traces:
    """Traces to the collector that ``OTEL_EXPORTER_OTLP_ENDPOINT`` names (OTLP over HTTP), or none.

    The exporter reads its other settings from the environment, too, as OpenTelemetry documents them.

    Raises
    ------
    InvalidSetting
        If another protocol than ``http/protobuf`` is asked for.
    """
    env = os.environ if environ is None else environ
    if not any(env.get(name) for name in _ENDPOINTS) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Traces()
    protocol = next((env[name] for name in _PROTOCOLS if env.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise InvalidSetting(
            f"OTEL_EXPORTER_OTLP_PROTOCOL='{protocol}' is not spoken here; set it to http/protobuf and the endpoint "
            "to the collector's port for it, usually 4318."
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # lazy: an extra
    except ImportError:
        _log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need: pip install 'ktrdr[otel]'")
        return Traces()
    return OtelTraces(OTLPSpanExporter(timeout=_FLUSH_MS / 1_000), service, version)
