"""Traces by OpenTelemetry, sent as OTLP over HTTP. Imported only where traces are wanted.

Spans are sent from a thread, in batches; a collector that does not answer costs spans, never a
job. `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`, `OTEL_TRACES_SAMPLER` and the other variables of
OpenTelemetry's SDK apply.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from graph_ops.version import VERSION
from service.tracing import Span, Tracing, Value

_NANOSECONDS = 1_000_000_000
_CLOSE_MS = 3000
_PROPAGATOR = TraceContextTextMapPropagator()

# A collector that is away would be told of with every batch.
logging.getLogger("opentelemetry").setLevel(logging.ERROR)


class OtlpTracing(Tracing):
    """Sends spans to a collector.

    Args:
        url: Where: `http://collector:4318/v1/traces`.
        role: `api` or `worker`.
        name: Which one.
    """

    def __init__(self, url: str, role: str, name: str) -> None:
        resource = Resource.create(
            {
                "service.name": f"onnx-filter-pruner-{role}",
                "service.instance.id": name,
                "service.version": VERSION,
            }
        )
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("service", VERSION)

    @contextmanager
    def span(self, name: str, parent: str | None, **attributes: Value) -> Iterator[Span]:
        """Trace a block."""
        span = self._tracer.start_span(name, _context_of(parent), attributes=attributes)
        try:
            yield _Open(span)
        finally:
            span.end()

    def record(
        self, name: str, parent: str | None, begin_s: float, end_s: float, **attributes: Value
    ) -> None:
        """Trace what is over."""
        begin, end = (int(at * _NANOSECONDS) for at in (begin_s, end_s))
        context = _context_of(parent)
        span = self._tracer.start_span(name, context, attributes=attributes, start_time=begin)
        span.end(max(begin, end))

    def close(self) -> None:
        """Send what is not sent yet."""
        self._provider.force_flush(_CLOSE_MS)


class _Open(Span):
    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        found = span.get_span_context()
        self.traceparent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def note(self, name: str, value: Value) -> None:
        """Say more about it."""
        self._span.set_attribute(name, value)


def _context_of(parent: str | None) -> Context:
    """What `start_span` takes for its parent: an empty one begins a trace."""
    return Context() if parent is None else _PROPAGATOR.extract({"traceparent": parent}, Context())
