"""Jobs while everything is killed at random: a short form, and long ones.

    make test-slow ARGS="tests/service/test_chaos.py"

CHAOS_JOBS and CHAOS_SECONDS change the size of the long ones, CHAOS_SHARED_JOBS and
CHAOS_SHARED_SECONDS that of the one whose scoring several workers share.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.chaos import Chaos, kill_process
from tests.support.leftovers import assert_nothing_is_left, assert_nothing_is_left_of
from tests.support.mortal import mortal_api, mortal_worker
from tests.support.ports import free_port
from tests.support.postgres import needs_postgres, running_postgres
from tests.support.server import native_work, running_server

# The killing is not the jobs' fault; what a job's own attempts are for is tested elsewhere.
SETTINGS: dict[str, Any] = {"max_job_attempts": 1000, "max_queued_jobs": 1000}


LONG_JOBS = int(os.environ.get("CHAOS_JOBS", "200"))
LONG_SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
SHARED_JOBS = int(os.environ.get("CHAOS_SHARED_JOBS", "6"))
SHARED_SECONDS = float(os.environ.get("CHAOS_SHARED_SECONDS", "30"))
SHARED_VARIANTS: list[dict[str, Any]] = [
    {"max_samples": 128, "steps": 3, "target": {"filters": 9}, "score_shards": 4},
    {"max_samples": 96, "steps": 2, "target": {"filters": 8}, "score_shards": 3, "seed": 1},
]
SLOW = "tests.support.slow_scoring_child"


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


def assert_few_open_files(roles: Callable[[], list[psutil.Process]], count: int) -> None:
    """That so many roles are back, and that none holds more than a few files."""
    end = time.monotonic() + 30
    while len(roles()) < count and time.monotonic() < end:
        time.sleep(0.1)
    found = [role.num_fds() for role in roles()]
    assert len(found) == count
    assert max(found) < 100


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
        both = ("api", "worker")
        assert_few_open_files(lambda: [p for name in both if (p := server.role(name))], 2)


def test_jobs_survive_chaos(tmp_path: Path) -> None:
    one_machine(tmp_path, jobs=10, clients=4, seconds=15)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_survive_a_long_chaos(tmp_path: Path) -> None:
    one_machine(tmp_path, LONG_JOBS, 8, LONG_SECONDS)


def many_machines(folder: Path, settings: dict[str, Any], **run: Any) -> None:
    """Chaos among an API and two workers, each on its own; nothing is left at the end."""
    port = free_port()
    settings = {**settings, "sweep_interval_s": 2}
    with ExitStack() as stack:
        api = stack.enter_context(mortal_api(folder, port, 2, **settings))
        # A worker is sometimes away for longer than others wait before they take over.
        workers = [
            stack.enter_context(mortal_worker(folder, name, 10, **settings)) for name in ("a", "b")
        ]

        def alive() -> list[psutil.Process]:
            return [process for worker in workers if (process := worker.process())]

        victims = {
            role.name: lambda role=role: kill_process(role.process())  # type: ignore[misc]
            for role in (api, *workers)
        }
        victims["child"] = lambda: a_child(alive)
        url = f"http://127.0.0.1:{port}"
        chaos = Chaos(url, pause_s=(0.5, 4.0), victims=victims, **run)
        chaos.run(folder / "expected")
        print("killed", chaos.kills)
        assert sum(chaos.kills.values()) >= 3, chaos.kills

        def roles() -> list[psutil.Process]:
            return [process for role in (api, *workers) if (process := role.process())]

        def children() -> list[psutil.Process]:
            return [child for role in roles() for child in native_work(role)]

        assert_nothing_is_left_of(run["jobs"], folder / "data", children)
        assert_few_open_files(roles, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@needs_postgres
def test_jobs_survive_a_long_chaos_on_postgresql(tmp_path: Path) -> None:
    with running_postgres() as url:
        settings = {**SETTINGS, "database_url": url}
        many_machines(tmp_path, settings, jobs=LONG_JOBS, clients=8, seconds=LONG_SECONDS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_jobs_that_workers_share_survive_chaos(tmp_path: Path) -> None:
    settings = {**SETTINGS, "ort_threads": 1, "child_module": SLOW, "shard_seconds": 0.5}
    settings["scored_shards"] = tmp_path / "scored"
    # One client: while one worker runs its job the other has nothing better to do than to help.
    run: dict[str, Any] = {"jobs": SHARED_JOBS, "clients": 1, "seconds": SHARED_SECONDS}
    many_machines(tmp_path, settings, variants=SHARED_VARIANTS, **run)
    helped = sum((tmp_path / f"{name}.log").read_text().count("helps with") for name in ("a", "b"))
    assert helped > 0
    with closing(sqlite3.connect(tmp_path / "data/jobs.sqlite")) as database:
        assert database.execute("SELECT * FROM score_shards").fetchall() == []
