"""What a job costs beyond its work: from the request to the result, less the time in graph_ops.

A server of its own runs on loopback with SQLite. Requests are sent one after the other, so that
none waits for another; the first one is not counted. What is left over is the way through the
API, the database, the queue, a child process, and back. Sent without a pause, a job may come
before the child that waits for it has imported the library, and waits for that as well.

    python -m benchmarks.job_overhead [--jobs 10]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.tables import markdown_table
from tests.support.digits import BUNDLE, MODEL
from tests.support.server import Server, running_server

KINDS: tuple[tuple[str, dict[str, object], float], ...] = (
    ("1 round, 3 s apart", {}, 3.0),
    ("8 rounds, 3 s apart", {"steps": 8}, 3.0),
    ("1 round, no pause", {}, 0.0),
)


def measure(server: Server, options: dict[str, object], pause_s: float) -> tuple[float, float]:
    """Seconds from request to result, and seconds of these in graph_ops."""
    time.sleep(pause_s)
    began = time.perf_counter()
    response = server.client.post(
        "/v1/prune",
        files={"model": ("digits.onnx", MODEL.read_bytes()), "bundle": BUNDLE.read_bytes()},
        data={"options": json.dumps(options)},
    )
    total_s = time.perf_counter() - began
    response.raise_for_status()
    job = response.headers["content-location"].removesuffix("/model")
    report = server.client.get(f"{job}/report").json()
    return total_s, sum(report["timing_s"].values())


def overhead_row(name: str, pairs: list[tuple[float, float]]) -> list[str]:
    """A row of the table: medians, and the worst overhead."""
    overheads = [total - work for total, work in pairs]
    return [
        name,
        f"{statistics.median(total for total, _ in pairs):.2f}",
        f"{statistics.median(work for _, work in pairs):.2f}",
        f"{statistics.median(overheads):.2f}",
        f"{max(overheads):.2f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10, help="requests of each kind")
    jobs = parser.parse_args().jobs
    rows = []
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder)) as server:
        for name, options, pause_s in KINDS:
            measure(server, options, pause_s)
            pairs = [measure(server, options, pause_s) for _ in range(jobs)]
            rows.append(overhead_row(name, pairs))
    titles = ["digits", "request to result, s", "in graph_ops, s", "overhead, s", "worst, s"]
    print(markdown_table(titles, rows))


if __name__ == "__main__":
    main()
