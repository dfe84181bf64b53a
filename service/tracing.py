"""Traces of jobs: one trace each, from the request that sent it to the last phase of its work.

    submit                  the API accepts the job; below the caller's span, if there is one
      queue                 until a worker begins it
      attempt               one worker's work on it
        load, analyse, score, select, cut, write, prove, recover, measure    in the child
      help                  another worker's work on its shards, with phases of its own

Callers name their span in the header `traceparent` (W3C Trace Context); the job keeps the name of
its own, so that workers on other machines, and later attempts, belong to the same trace. Children
are given it too and say when their phases begin and end; they speak to nobody but their worker.

This module is what the service sees. Without `TRACES_URL` nothing is traced, and OpenTelemetry is
not even imported (`otlp.py` does that).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The caller's span, where the request that is being answered names one."""

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Value = str | int | float | bool


class TracingUnavailableError(RuntimeError):
    """Traces are wanted and what they take is not installed."""


def valid_traceparent(text: str | None) -> str | None:
    """A `traceparent` as it is, or None where it is none of version 00."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


class Span:
    """Something that takes time, while it does."""

    traceparent: str | None = None
    """Its name for others; None where nothing is traced."""

    def note(self, name: str, value: Value) -> None:
        """Say more about it."""


class Tracing:
    """Traces nothing."""

    @contextmanager
    def span(self, name: str, parent: str | None, **attributes: Value) -> Iterator[Span]:
        """Trace a block.

        Args:
            name: What it is.
            parent: The `traceparent` of the span it belongs to; None to begin a trace.
            attributes: More about it.
        """
        yield Span()

    def record(
        self, name: str, parent: str | None, begin_s: float, end_s: float, **attributes: Value
    ) -> None:
        """Trace what is over, by its times in seconds since the epoch."""

    def close(self) -> None:
        """Send what is not sent yet."""


def open_tracing(url: str | None, role: str, name: str) -> Tracing:
    """Tracing as the settings want it.

    Args:
        url: Where spans are sent; None for nowhere.
        role: `api` or `worker`.
        name: Which one.

    Raises:
        TracingUnavailableError: the extra `otel` is not installed.
    """
    if url is None:
        return Tracing()
    try:
        from service.otlp import OtlpTracing
    except ImportError as error:
        raise TracingUnavailableError(
            f"TRACES_URL needs the extra otel, and {error.name} is not installed: "
            "pip install 'onnx-filter-pruner[otel]'."
        ) from None
    return OtlpTracing(url, role, name)
