"""Many clients watch while a job runs: 500 open event streams, and 50 status requests a second.

A server of its own runs on loopback with SQLite. Without and with the clients one job of many
rounds runs; compared are its times, and measured are those of the status requests. The clients
are a process of their own, so that they do not wait for each other more than for the server. They
take processor time too, which on a small machine the job then lacks: the time that clients and
API used is told beside it.

    python -m benchmarks.load [--streams 500] [--rate 50] [--steps 40]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.tables import markdown_table
from tests.support.digits_jobs import upload_digits
from tests.support.server import Server, running_server


async def _watch(client: httpx.AsyncClient, job_id: str, opened: asyncio.Semaphore) -> int:
    """Follow a job's events to its end; how many came."""
    count = 0
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        response.raise_for_status()
        opened.release()
        async for line in response.aiter_lines():
            count += line.startswith("data:")
    return count


async def _load(url: str, job_id: str, streams: int, rate: float, ready: Event) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=streams + 60, max_keepalive_connections=streams + 60)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=300) as client:
        opened = asyncio.Semaphore(0)
        watching = [asyncio.create_task(_watch(client, job_id, opened)) for _ in range(streams)]
        for _ in range(streams):
            await opened.acquire()
        ready.set()
        latencies: list[float] = []

        async def poll() -> None:
            began = time.perf_counter()
            (await client.get(f"/v1/jobs/{job_id}")).raise_for_status()
            latencies.append(time.perf_counter() - began)

        polls = []
        start = time.perf_counter()
        while not all(task.done() for task in watching):
            polls.append(asyncio.create_task(poll()))
            await asyncio.sleep(max(0.0, start + len(polls) / rate - time.perf_counter()))
        await asyncio.gather(*polls)
        events = await asyncio.gather(*watching)
    return {"latencies": latencies, "events": events, "cpu_s": time.process_time()}


def _client(url: str, job_id: str, streams: int, rate: float, ready: Event, results: Any) -> None:
    results.put(asyncio.run(_load(url, job_id, streams, rate, ready)))


def _job(server: Server, body: dict[str, Any]) -> str:
    response = server.client.post("/v1/jobs", json=body)
    response.raise_for_status()
    job_id: str = response.json()["id"]
    return job_id


def _work_s(server: Server, job_id: str) -> float:
    """Seconds that a job spent in graph_ops."""
    job = server.wait_for(job_id, seconds=900)
    assert job["state"] == "succeeded", job
    report = json.loads(server.client.get(f"/v1/jobs/{job_id}/report").content)
    return float(sum(report["timing_s"].values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder), ort_threads=1) as server,
    ):
        options = {"steps": arguments.steps, "target": {"filters": 40}, "recovery": "none"}
        body: dict[str, Any] = {**upload_digits(server.client), "options": options}
        _work_s(server, _job(server, body))
        alone_s = _work_s(server, _job(server, body))
        api = server.role("api")
        assert isinstance(api, psutil.Process)
        api_before = sum(api.cpu_times()[:2])
        # The watched job waits behind another, so that all streams are open when it begins.
        first = _job(server, body)
        watched = _job(server, body)
        ready, results = context.Event(), context.Queue()
        process = context.Process(
            target=_client,
            args=(server.url, watched, arguments.streams, arguments.rate, ready, results),
        )
        process.start()
        assert ready.wait(120), "the streams were not opened in two minutes"
        assert server.client.get(f"/v1/jobs/{watched}").json()["state"] == "queued"
        watched_s = _work_s(server, watched)
        found = results.get(timeout=120)
        process.join()
        api_s = sum(api.cpu_times()[:2]) - api_before
        assert first != watched
    latencies = sorted(found["latencies"])
    p99_ms = 1000 * latencies[int(len(latencies) * 0.99)]
    rows = [
        ["status requests", str(len(latencies))],
        ["median, ms", f"{1000 * statistics.median(latencies):.1f}"],
        ["p99, ms", f"{p99_ms:.1f}"],
        ["slowest, ms", f"{1000 * latencies[-1]:.1f}"],
        ["events to each stream", f"{min(found['events'])} to {max(found['events'])}"],
        ["job alone, s", f"{alone_s:.2f}"],
        ["job watched, s", f"{watched_s:.2f} ({watched_s / alone_s - 1:+.0%})"],
        ["processor time of the API, s", f"{api_s:.1f}"],
        ["processor time of the clients, s", f"{found['cpu_s']:.1f}"],
    ]
    print(markdown_table(["", f"{arguments.streams} streams, {arguments.rate:g}/s"], rows))


if __name__ == "__main__":
    main()
