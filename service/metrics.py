"""What the server counts, in the text format of Prometheus.

Requests are counted by the process that answers them. Jobs are counted in the database, where
their ends are written, so every API tells the same numbers, also after a restart.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from service.job_statistics import DURATION_BUCKETS, JobStatistics
from service.storage import Storage
from service.workers import Workers

CONTENT_TYPE = CONTENT_TYPE_LATEST

_REQUEST_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0, 300.0, 1800.0)


class Metrics:
    """The server's counters, in a registry of their own."""

    def __init__(self, statistics: JobStatistics, workers: Workers, storage: Storage) -> None:
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
        self._response_bytes = Counter(
            "pruner_response_bytes", "Bytes of response bodies sent.", registry=self.registry
        )
        self.registry.register(_JobCollector(statistics))
        self.registry.register(_MachineCollector(statistics, workers, storage))

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is the path's template, not the path."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def count_upload(self, size_bytes: int) -> None:
        """Count received bytes."""
        self._upload_bytes.inc(size_bytes)

    def count_download(self, size_bytes: int) -> None:
        """Count sent bytes."""
        self._response_bytes.inc(size_bytes)

    def render(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self.registry)


class _JobCollector(Collector):
    """Counts jobs when they are asked for."""

    def __init__(self, statistics: JobStatistics) -> None:
        self._statistics = statistics

    def describe(self) -> Iterable[Metric]:
        """Nothing: the database is not asked before it is there."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Jobs that wait or run, jobs that ended, and how long they took."""
        waiting = GaugeMetricFamily("pruner_jobs", "Jobs that are not over.", labels=["state"])
        for state, count in self._statistics.counts().items():
            waiting.add_metric([state], count)
        ended = CounterMetricFamily(
            "pruner_jobs_ended", "Jobs that ended.", labels=["state", "code"]
        )
        jobs: Tally[tuple[str, str]] = Tally()
        buckets: Tally[int] = Tally()
        seconds = 0.0
        for row in self._statistics.ended():
            jobs[row["state"], row["code"]] += row["jobs"]
            if row["bucket"] >= 0:
                buckets[row["bucket"]] += row["jobs"]
                seconds += row["seconds"]
        for labels, count in jobs.items():
            ended.add_metric(list(labels), count)
        bounds = [*map(str, DURATION_BUCKETS), "+Inf"]
        totals, total = [], 0
        for index, bound in enumerate(bounds):
            total += buckets[index]
            totals.append((bound, float(total)))
        duration = HistogramMetricFamily(
            "pruner_job_seconds", "Time from a job's first start to its end."
        )
        duration.add_metric([], totals, seconds)
        age = GaugeMetricFamily(
            "pruner_queue_age_seconds",
            "Time that the oldest queued job has waited.",
            self._statistics.oldest_waiting_s(),
        )
        phases = CounterMetricFamily(
            "pruner_phase_seconds", "Time that succeeded jobs spent in a phase.", labels=["phase"]
        )
        for row in self._statistics.phases():
            phases.add_metric([row["phase"]], row["seconds"])
        return [waiting, ended, duration, age, phases]


class _MachineCollector(Collector):
    """Tells of workers and storage when asked."""

    def __init__(self, statistics: JobStatistics, workers: Workers, storage: Storage) -> None:
        self._statistics = statistics
        self._workers = workers
        self._storage = storage

    def describe(self) -> Iterable[Metric]:
        """Nothing: the database is not asked before it is there."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Workers that are alive, their GPUs, and room for files."""
        alive = self._workers.alive()
        slots = GaugeMetricFamily(
            "pruner_worker_slots", "Jobs that a worker runs at a time.", labels=["worker"]
        )
        used = GaugeMetricFamily(
            "pruner_gpu_memory_used_bytes", "Memory in use on a worker's GPU.", labels=["worker"]
        )
        total = GaugeMetricFamily(
            "pruner_gpu_memory_total_bytes", "Memory of a worker's GPU.", labels=["worker"]
        )
        for row in alive:
            slots.add_metric([row["name"]], row["slots"])
            if row["gpu_total_bytes"] is not None:
                used.add_metric([row["name"]], row["gpu_used_bytes"])
                total.add_metric([row["name"]], row["gpu_total_bytes"])
        gauges = {
            "pruner_stored_bytes": (
                "Bytes of models, bundles and results.",
                self._statistics.stored_bytes(),
            ),
            "pruner_disk_free_bytes": (
                "Free bytes on the disk of this API's data folder.",
                self._storage.free_bytes(),
            ),
            "pruner_webhooks_waiting": (
                "Webhook messages that have not arrived yet.",
                self._statistics.waiting_webhooks(),
            ),
        }
        plain = [GaugeMetricFamily(name, words, value) for name, (words, value) in gauges.items()]
        return [slots, used, total, *plain]
