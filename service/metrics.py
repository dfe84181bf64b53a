"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

_REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0)
_JOB_BUCKETS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "pruner_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "pruner_http_request_seconds",
            "Time from a request's headers to the end of its response.",
            ["method", "route"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self._upload_bytes = Counter(
            "pruner_upload_bytes", "Bytes of files received.", registry=self.registry
        )
        self._jobs_ended = Counter(
            "pruner_jobs_ended", "Jobs that ended.", ["state", "code"], registry=self.registry
        )
        self._job_seconds = Histogram(
            "pruner_job_seconds",
            "Time jobs ran.",
            buckets=_JOB_BUCKETS,
            registry=self.registry,
        )
        self._jobs = Gauge(
            "pruner_jobs", "Jobs that wait or run now.", ["state"], registry=self.registry
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the path's template, not the path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def count_upload(self, size_bytes: int) -> None:
        """Count received bytes."""
        self._upload_bytes.inc(size_bytes)

    def count_job(self, state: str, code: str, seconds: float | None) -> None:
        """Count a job that ended, and how long it ran if it did."""
        self._jobs_ended.labels(state, code).inc()
        if seconds is not None:
            self._job_seconds.observe(seconds)

    def watch_jobs(self, counts: Mapping[str, Callable[[], float]]) -> None:
        """Read the number of jobs in each state from these functions."""
        for state, count in counts.items():
            self._jobs.labels(state).set_function(count)

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)
