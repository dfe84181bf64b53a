"""Many clients watch while a job runs: 500 open event streams, and 50 status requests a second.

A server of its own runs on loopback with SQLite. A job of many rounds runs by turns alone and
watched; compared are its times, and measured are those of the status requests. The worker has the
machine's last core for itself (`WORKER_CORES`), alone and watched alike; the API and the clients
share the others, and a core that takes both is slower for both than where clients are elsewhere.

Other programs disturb the seconds of a job far more than its processor time, so both are told.

    python -m benchmarks.load [--streams 500] [--rate 50] [--steps 40] [--pairs 2]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from benchmarks.tables import markdown_table
from tests.support.digits_jobs import upload_digits
from tests.support.server import Server, native_work, running_server

_LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Connection:
    """A connection of a client that does little beside reading: what is measured is the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, url: str) -> Connection:
        """Connect to `http://host:port`."""
        host, _, port = url.removeprefix("http://").partition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def ask(self, path: str) -> bytes:
        """Send a GET; the head of its answer.

        Raises:
            AssertionError: it is not 200.
        """
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return head


async def _watch(url: str, job_id: str, opened: asyncio.Semaphore) -> int:
    """Follow a job's events to its end; how many came."""
    connection = await Connection.open(url)
    await connection.ask(f"/v1/jobs/{job_id}/events")
    count = 0
    while data := await connection.reader.read(2**16):
        found = data.count(b"\ndata: ")
        if found and not count:
            opened.release()  # it has what was before, and waits for what comes
        count += found
        if data.endswith(_LAST_CHUNK):
            break
    connection.writer.close()
    return count


async def _poll(connection: Connection, job_id: str) -> None:
    """Ask once for a job's state."""
    head = await connection.ask(f"/v1/jobs/{job_id}")
    size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    await connection.reader.readexactly(int(size))


async def _load(url: str, job_id: str, streams: int, rate: float, ready: Event) -> dict[str, Any]:
    opened = asyncio.Semaphore(0)
    watching = [asyncio.create_task(_watch(url, job_id, opened)) for _ in range(streams)]
    for _ in range(streams):
        await opened.acquire()
    ready.set()
    idle: list[Connection] = []
    latencies: list[float] = []

    async def poll() -> None:
        began = time.perf_counter()
        connection = idle.pop() if idle else await Connection.open(url)
        try:
            await _poll(connection, job_id)
        except (ConnectionError, asyncio.IncompleteReadError):
            # The server had closed it, because it was idle: a client takes a new one.
            connection.writer.close()
            connection = await Connection.open(url)
            await _poll(connection, job_id)
        latencies.append(time.perf_counter() - began)
        idle.append(connection)

    polls = []
    cpu, start = time.process_time(), time.perf_counter()
    while not all(task.done() for task in watching):
        polls.append(asyncio.create_task(poll()))
        await asyncio.sleep(max(0.0, start + len(polls) / rate - time.perf_counter()))
    await asyncio.gather(*polls)
    events = await asyncio.gather(*watching)
    return {
        "latencies": latencies,
        "events": events,
        "seconds": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
    }


def _client(url: str, job_id: str, streams: int, rate: float, ready: Event, results: Any) -> None:
    results.put(asyncio.run(_load(url, job_id, streams, rate, ready)))


@dataclass(frozen=True)
class Work:
    """What a job took: seconds in graph_ops, and processor time of the worker with its child."""

    seconds: float
    cpu_s: float


def _job(server: Server, body: dict[str, Any]) -> str:
    response = server.client.post("/v1/jobs", json=body)
    response.raise_for_status()
    job_id: str = response.json()["id"]
    return job_id


def _cpu_s(process: psutil.Process) -> float:
    """Processor time of a process and of its children that have ended."""
    return float(sum(process.cpu_times()[:4]))


def _until_idle(server: Server) -> psutil.Process:
    """The worker, once it has nothing to do and its next child is warm."""
    worker = server.role("worker")
    assert worker is not None
    server.spare()
    end = time.monotonic() + 30
    while native_work(worker) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(3)
    return worker


def _measure(server: Server, body: dict[str, Any], meanwhile: Callable[[str], None]) -> Work:
    """One job, and what happens `meanwhile`: called with its id before it can begin."""
    worker = _until_idle(server)
    first_id = _job(server, body)  # the measured one waits behind it
    job_id = _job(server, body)
    meanwhile(job_id)
    assert server.client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued", "it began too soon"
    server.wait_for(first_id, seconds=900, pause_s=0.5)
    before = _cpu_s(worker)
    job = server.wait_for(job_id, seconds=900, pause_s=0.5)
    assert job["state"] == "succeeded", job
    report = json.loads(server.client.get(f"/v1/jobs/{job_id}/report").content)
    return Work(float(sum(report["timing_s"].values())), _cpu_s(worker) - before)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=2, help="jobs alone and watched, by turns")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    *others, last = sorted(os.sched_getaffinity(0))
    assert others, "this takes two cores"
    os.sched_setaffinity(0, others)
    alone, watched, loads, api_s = [], [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), worker_cores=last) as server,
    ):
        options = {"steps": arguments.steps, "target": {"filters": 40}, "recovery": "none"}
        body: dict[str, Any] = {**upload_digits(server.client), "options": options}
        api = server.role("api")
        assert api is not None
        server.wait_for(_job(server, body), seconds=900, pause_s=0.5)
        for _ in range(arguments.pairs):
            alone.append(_measure(server, body, lambda _: None))
            ready, results = context.Event(), context.Queue()

            def watch(job_id: str, ready: Event = ready, results: Any = results) -> None:
                asked = (server.url, job_id, arguments.streams, arguments.rate, ready, results)
                context.Process(target=_client, args=asked, daemon=True).start()
                assert ready.wait(120), "the streams were not opened in two minutes"
                api_s.append(-_cpu_s(api))

            watched.append(_measure(server, body, watch))
            loads.append(results.get(timeout=120))
            api_s[-1] += _cpu_s(api)
    latencies = sorted(latency for load in loads for latency in load["latencies"])
    events = [count for load in loads for count in load["events"]]
    p99_ms = 1000 * latencies[int(len(latencies) * 0.99)]
    seconds = sum(load["seconds"] for load in loads)
    rows = [
        ["status requests", str(len(latencies))],
        ["median, ms", f"{1000 * statistics.median(latencies):.1f}"],
        ["p99, ms", f"{p99_ms:.1f}"],
        ["slowest, ms", f"{1000 * latencies[-1]:.1f}"],
        ["events to each stream", f"{min(events)} to {max(events)}"],
        ["job, s", _compared([w.seconds for w in alone], [w.seconds for w in watched])],
        [
            "its worker's processor time, s",
            _compared([w.cpu_s for w in alone], [w.cpu_s for w in watched]),
        ],
        ["API, share of a core", f"{sum(api_s) / seconds:.0%}"],
        ["clients, share of a core", f"{sum(load['cpu_s'] for load in loads) / seconds:.0%}"],
    ]
    print(markdown_table(["", f"{arguments.streams} streams, {arguments.rate:g}/s"], rows))


def _compared(alone: list[float], watched: list[float]) -> str:
    """Medians alone and watched, and by how much they differ."""
    before, after = statistics.median(alone), statistics.median(watched)
    return f"{before:.2f} alone, {after:.2f} watched ({after / before - 1:+.0%})"


if __name__ == "__main__":
    main()
