"""Chaos: clients send jobs while processes are killed at random; every job ends once, rightly.

A client behaves like a careful one in the field: it chooses the id of its job, sends it again
when the connection breaks, and asks until the job is over. What each job should leave is known
from undisturbed runs.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.support.digits_jobs import Outcome, outcome_of, undisturbed, upload_digits

VARIANTS: list[dict[str, Any]] = [
    {"max_samples": 128, "steps": 3, "target": {"filters": 9}},
    {"max_samples": 128, "steps": 4, "target": {"filters": 12}, "seed": 1},
    {"max_samples": 96, "filters_per_step": 4, "target": {"filters": 10}},
    {"criterion": "magnitude_l2", "max_samples": 64, "target": {"filters": 8}},
]

_PATIENCE_S = 240.0

Answer = TypeVar("Answer")


@dataclass
class Chaos:
    """One run.

    Attributes:
        url: Of the API.
        jobs: How many jobs are sent.
        clients: How many clients send them.
        seconds: How long processes are killed; the jobs then have time to end.
        pause_s: Shortest and longest time between two kills.
        victims: By name, what kills one process; False when there was none to kill.
        variants: Options of the jobs, by turns.
    """

    url: str
    jobs: int
    clients: int
    seconds: float
    pause_s: tuple[float, float]
    victims: Mapping[str, Callable[[], bool]]
    variants: Sequence[dict[str, Any]] = field(default_factory=lambda: VARIANTS)
    seed: int = 0
    kills: dict[str, int] = field(default_factory=dict)

    def run(self, folder: Path) -> None:
        """Do it.

        Raises:
            AssertionError: a job was lost, failed, or left something else than it should.
        """
        expected = [
            undisturbed(options, folder / str(n)) for n, options in enumerate(self.variants)
        ]
        with httpx.Client(base_url=self.url, timeout=30) as client:
            body = _insist(lambda: upload_digits(client))
        stop = threading.Event()
        killer = threading.Thread(target=self._kill, args=(stop,))
        killer.start()
        try:
            with ThreadPoolExecutor(self.clients) as pool:
                runs = [pool.submit(self._send, body, number) for number in range(self.jobs)]
                outcomes = [run.result() for run in runs]
                # Jobs may be over early; the servers are to bear the rest as well.
                killer.join()
        finally:
            stop.set()
            killer.join()
        for number, outcome in enumerate(outcomes):
            assert outcome == expected[number % len(expected)], f"job {number}"
        self._assert_each_once()

    def _send(self, body: dict[str, str], number: int) -> Outcome:
        """Send one job, as often as it takes, and wait for it."""
        path = f"/v1/jobs/chaos-{number}"
        request = {
            **body,
            "options": self.variants[number % len(self.variants)],
            "metadata": {"chaos": str(number)},
        }
        with httpx.Client(base_url=self.url, timeout=15) as client:

            def put() -> dict[str, Any]:
                return _json(client.put(path, json=request))

            def look() -> dict[str, Any]:
                return _json(client.get(path, headers={"Prefer": "wait=5"}))

            job = _insist(put)
            # While processes are killed all the time, jobs may hardly get on; later they do.
            end = time.monotonic() + self.seconds + _PATIENCE_S
            while job["state"] in ("queued", "running") and time.monotonic() < end:
                job = _insist(look)
            assert job["state"] == "succeeded", job
            return _insist(lambda: outcome_of(client, str(job["id"])))

    def _kill(self, stop: threading.Event) -> None:
        chance = random.Random(self.seed)
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and not stop.wait(chance.uniform(*self.pause_s)):
            name = chance.choice(sorted(self.victims))
            if self.victims[name]():
                self.kills[name] = self.kills.get(name, 0) + 1

    def _assert_each_once(self) -> None:
        with httpx.Client(base_url=self.url, timeout=30) as client:
            ids = []
            url: str | None = "/v1/jobs?limit=200&label=chaos"
            while url is not None:
                page = _insist(lambda url=url: _page(client, url))  # type: ignore[misc]
                ids += [job["id"] for job in page[0]]
                url = page[1]
            assert sorted(ids) == sorted(f"chaos-{number}" for number in range(self.jobs))
            metrics = _insist(lambda: client.get("/metrics").text)
        ended = f'pruner_jobs_ended_total{{code="",state="succeeded"}} {float(self.jobs)}'
        assert ended in metrics, metrics
        for state in ("queued", "running", "cancelling"):
            assert f'pruner_jobs{{state="{state}"}} 0.0' in metrics


def kill_process(process: psutil.Process | None) -> bool:
    """Kill a process, and see it gone; False when there is none."""
    if process is None:
        return False
    try:
        process.kill()
        process.wait(10)
    except psutil.Error:
        return False
    return True


def _insist(ask: Callable[[], Answer]) -> Answer:
    """Ask again while the connection breaks or the server says that it is not there."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except httpx.TransportError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _json(response: httpx.Response) -> dict[str, Any]:
    if response.status_code == 503:  # stopping, starting, or the queue is full
        raise httpx.TransportError(response.text)
    assert response.status_code in (200, 202), response.text
    document: dict[str, Any] = response.json()
    return document


def _page(client: httpx.Client, url: str) -> tuple[list[dict[str, Any]], str | None]:
    response = client.get(url)
    return _json(response)["items"], response.links.get("next", {}).get("url")
