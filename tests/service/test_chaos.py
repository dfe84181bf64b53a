"""Jobs while everything is killed at random: a short form, and long ones.

    make test-slow ARGS="tests/service/test_chaos.py"

CHAOS_JOBS and CHAOS_SECONDS change the size of the long ones.
"""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.chaos import Chaos, kill_process
from tests.support.postgres import needs_postgres, running_postgres
from tests.support.server import Server, running_server, running_worker

# The killing is not the jobs' fault; what a job's own attempts are for is tested elsewhere.
SETTINGS: dict[str, Any] = {"max_job_attempts": 1000, "max_queued_jobs": 1000}


LONG_JOBS = int(os.environ.get("CHAOS_JOBS", "200"))
LONG_SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))


def a_child(roots: Callable[[], list[psutil.Process]]) -> bool:
    """Kill one of the processes that do native work."""
    for root in roots():
        try:
            children = root.children()
        except psutil.Error:
            continue
        if children:
            return kill_process(random.Random().choice(children))
    return False


def open_files(process: psutil.Process | None) -> int:
    return 0 if process is None else process.num_fds()


def assert_nothing_is_left(server: Server, jobs: int) -> None:
    end = time.monotonic() + 20
    while (server.leftovers() or server.children()) and time.monotonic() < end:
        time.sleep(0.1)
    assert server.children() == []
    assert server.leftovers() == []
    folders = list((server.data_dir / "jobs").iterdir())
    assert len(folders) == jobs
    for folder in folders:
        (results,) = folder.iterdir()
        assert results.name.startswith("results-")


def one_machine(tmp_path: Path, jobs: int, clients: int, seconds: float) -> None:
    with running_server(tmp_path, **SETTINGS) as server:
        chaos = Chaos(
            server.url,
            jobs,
            clients,
            seconds,
            (0.5, 4.0),
            {
                "api": lambda: kill_process(server.role("api")),
                "worker": lambda: kill_process(server.role("worker")),
                "child": lambda: a_child(lambda: [p for p in [server.role("worker")] if p]),
            },
        )
        chaos.run(tmp_path / "expected")
        print("killed", chaos.kills)
        assert sum(chaos.kills.values()) >= 3, chaos.kills
        assert_nothing_is_left(server, jobs)
        for role in ("api", "worker"):
            assert open_files(server.role(role)) < 100


def test_jobs_survive_chaos(tmp_path: Path) -> None:
    one_machine(tmp_path, jobs=10, clients=4, seconds=15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_survive_a_long_chaos(tmp_path: Path) -> None:
    one_machine(tmp_path, LONG_JOBS, 8, LONG_SECONDS)


class MortalWorker:
    """A worker process that is started again, some time after it was killed."""

    def __init__(self, folder: Path, name: str, **settings: Any) -> None:
        self._folder, self._name, self._settings = folder, name, settings
        self._stop = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> MortalWorker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def process(self) -> psutil.Process | None:
        process = self._process
        return (
            None if process is None or process.poll() is not None else psutil.Process(process.pid)
        )

    def _live(self) -> None:
        chance = random.Random(self._name)
        while not self._stop.is_set():
            with running_worker(self._folder, self._name, **self._settings) as process:
                self._process = process
                while process.poll() is None and not self._stop.wait(0.05):
                    pass
            # Sometimes longer than others wait before they take over.
            self._stop.wait(chance.uniform(0, 10))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_postgres
def test_jobs_survive_a_long_chaos_on_postgresql(tmp_path: Path) -> None:
    with ExitStack() as stack:
        settings = {**SETTINGS, "database_url": stack.enter_context(running_postgres())}
        server = stack.enter_context(running_server(tmp_path, "/healthz", role="api", **settings))
        workers = [
            stack.enter_context(MortalWorker(tmp_path, name, **settings)) for name in ("a", "b")
        ]

        def alive() -> Iterator[psutil.Process]:
            return (process for worker in workers if (process := worker.process()))

        chaos = Chaos(
            server.url,
            LONG_JOBS,
            8,
            LONG_SECONDS,
            (0.5, 4.0),
            {
                "worker a": lambda: kill_process(workers[0].process()),
                "worker b": lambda: kill_process(workers[1].process()),
                "child": lambda: a_child(lambda: list(alive())),
            },
        )
        chaos.run(tmp_path / "expected")
        print("killed", chaos.kills)
        assert sum(chaos.kills.values()) >= 3, chaos.kills
