"""Workers that have nothing else to do score shards of a job that another one runs."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.digits_jobs import Outcome, outcome_of, undisturbed, upload_digits
from tests.support.leftovers import assert_left, names_in
from tests.support.object_storage import running_object_server
from tests.support.postgres import needs_postgres, running_postgres
from tests.support.server import Server, native_work, running_server, running_worker

OPTIONS: dict[str, Any] = {
    "max_samples": 200,
    "steps": 2,
    "target": {"filters": 8},
    "recovery": "none",
    "score_shards": 5,
}
SLOW = "tests.support.slow_scoring_child"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return undisturbed(OPTIONS, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Cluster:
    """An API and workers that share a folder; shards take a second each."""

    def __init__(self, stack: ExitStack, folder: Path, **settings: Any) -> None:
        self._stack, self.folder = stack, folder
        self._settings = {
            "child_module": SLOW,
            "shard_seconds": 1,
            "scored_shards": folder / "scored",
            "ort_threads": 1,
            **settings,
        }
        self.server: Server = stack.enter_context(
            running_server(folder, "/healthz", role="api", **self._settings)
        )
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **settings: Any) -> subprocess.Popen[bytes]:
        settings = {**self._settings, **settings}
        worker = running_worker(self.folder, name, **settings)
        self.workers[name] = self._stack.enter_context(worker)
        return self.workers[name]

    def submit(self, options: dict[str, Any]) -> str:
        body = {**upload_digits(self.server.client), "options": options}
        job_id: str = self.server.client.post("/v1/jobs", json=body).json()["id"]
        return job_id

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def scored(self) -> list[str]:
        """Round and shard of all that was scored, as often as it was."""
        path = self.folder / "scored"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not what():
            logs = "".join(self.log(name) for name in self.workers)
            assert time.monotonic() < end, logs
            time.sleep(0.02)

    def roles(self) -> tuple[str, str]:
        """Who runs the job and who helps, once the helper's child has scored a shard."""
        self.until(lambda: any("helps with" in self.log(name) for name in self.workers))
        (helper,) = [name for name in self.workers if "helps with" in self.log(name)]
        (runner,) = [name for name in self.workers if " attempt 1 " in self.log(name)]
        return runner, helper


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_one_worker_and_three_leave_the_same_bytes(
    tmp_path: Path, stack: ExitStack, expected: Outcome, workers: int
) -> None:
    cluster = Cluster(stack, tmp_path)
    for number in range(workers):
        cluster.start(f"w{number}")
    job_id = cluster.submit(OPTIONS)
    assert cluster.server.wait_for(job_id, seconds=90)["state"] == "succeeded"
    assert outcome_of(cluster.server.client, job_id) == expected
    assert Counter(cluster.scored()) == {f"{r} {n}": 1 for r in (1, 2) for n in range(5)}
    helped = [name for name in cluster.workers if "helps with" in cluster.log(name)]
    assert bool(helped) == (workers > 1)
    folder = cluster.server.data_dir / "jobs" / job_id
    assert_left(["results-1"], lambda: names_in(folder))


def test_the_setting_splits_where_the_option_does_not(tmp_path: Path, stack: ExitStack) -> None:
    options = {name: value for name, value in OPTIONS.items() if name != "score_shards"}
    cluster = Cluster(stack, tmp_path, score_shards=3, shard_seconds=0.1)
    cluster.start("w", max_concurrent_jobs=2)
    job_id = cluster.submit(options)
    assert cluster.server.wait_for(job_id, seconds=60)["state"] == "succeeded"
    assert outcome_of(cluster.server.client, job_id) == undisturbed(options, tmp_path / "expected")
    assert Counter(cluster.scored()) == {f"{r} {n}": 1 for r in (1, 2) for n in range(3)}


def test_a_helper_that_is_killed_costs_its_shard_alone(
    tmp_path: Path, stack: ExitStack, expected: Outcome
) -> None:
    cluster = Cluster(stack, tmp_path)
    for name in ("a", "b"):
        cluster.start(name)
    job_id = cluster.submit(OPTIONS)
    _, helper = cluster.roles()
    cluster.until(lambda: bool(native_work(psutil.Process(cluster.workers[helper].pid))))
    cluster.workers[helper].kill()
    job = cluster.server.wait_for(job_id, seconds=90)
    assert (job["state"], job["attempts"]) == ("succeeded", 1)
    assert outcome_of(cluster.server.client, job_id) == expected


def done_shards(cluster: Cluster) -> list[str]:
    """Round and shard of what is done, as the database says."""
    with closing(sqlite3.connect(cluster.server.data_dir / "jobs.sqlite")) as database:
        rows = database.execute("SELECT round, shard FROM score_shards WHERE sha256 IS NOT NULL")
        return [f"{number} {shard}" for number, shard in rows]


@pytest.mark.slow
def test_a_job_that_is_begun_again_scores_no_finished_shard_twice(
    tmp_path: Path, stack: ExitStack, expected: Outcome
) -> None:
    cluster = Cluster(stack, tmp_path)
    for name in ("a", "b"):
        cluster.start(name)
    job_id = cluster.submit(OPTIONS)
    runner, _ = cluster.roles()
    cluster.until(lambda: len(done_shards(cluster)) >= 2)
    cluster.workers[runner].kill()
    cluster.workers[runner].wait()
    done = done_shards(cluster)
    job = cluster.server.wait_for(job_id, seconds=120)
    assert (job["state"], job["attempts"]) == ("succeeded", 2)
    assert outcome_of(cluster.server.client, job_id) == expected
    counts = Counter(cluster.scored())
    assert len(done) >= 2
    assert [counts[shard] for shard in done] == [1] * len(done)


@pytest.mark.slow
def test_a_worker_that_comes_back_under_its_name_gives_its_shard_back(
    tmp_path: Path, stack: ExitStack, expected: Outcome
) -> None:
    cluster = Cluster(stack, tmp_path)
    for name in ("a", "b"):
        cluster.start(name)
    job_id = cluster.submit(OPTIONS)
    _, helper = cluster.roles()
    cluster.workers[helper].kill()
    cluster.workers[helper].wait()
    cluster.start(helper)
    assert cluster.server.wait_for(job_id, seconds=90)["state"] == "succeeded"
    assert outcome_of(cluster.server.client, job_id) == expected


def test_cancelling_ends_the_native_work_of_all_shards(tmp_path: Path, stack: ExitStack) -> None:
    cluster = Cluster(stack, tmp_path, shard_seconds=30)
    for name in ("a", "b"):
        cluster.start(name)
    job_id = cluster.submit(OPTIONS)
    cluster.roles()
    processes = [psutil.Process(worker.pid) for worker in cluster.workers.values()]
    cluster.until(lambda: all(native_work(process) for process in processes))
    began = time.monotonic()
    cancelled = cluster.server.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert time.monotonic() - began < 2
    assert [native_work(process) for process in processes] == [[], []]
    with closing(sqlite3.connect(cluster.server.data_dir / "jobs.sqlite")) as database:
        cluster.until(lambda: not database.execute("SELECT * FROM score_shards").fetchall())


def test_machines_that_share_a_bucket_help_each_other(
    tmp_path: Path, stack: ExitStack, expected: Outcome
) -> None:
    objects = stack.enter_context(running_object_server(tmp_path))
    database = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    cluster = Cluster(stack, tmp_path, database_url=database, **objects.settings)
    for name in ("a", "b"):
        cluster.start(name, data_dir=tmp_path / name)
    job_id = cluster.submit(OPTIONS)
    runner, helper = cluster.roles()
    assert cluster.server.wait_for(job_id, seconds=90)["state"] == "succeeded"
    assert outcome_of(cluster.server.client, job_id) == expected
    assert Counter(cluster.scored()) == {f"{r} {n}": 1 for r in (1, 2) for n in range(5)}
    results = ["pruned.onnx", "report.json", "scores.npz"]
    assert_left(results, lambda: objects.file_names(f"jobs/{job_id}/"))
    assert (tmp_path / helper / "models").is_dir(), "each has a folder of its own"
    assert runner != helper


@needs_postgres
def test_help_works_on_postgresql(tmp_path: Path, stack: ExitStack, expected: Outcome) -> None:
    url = stack.enter_context(running_postgres())
    cluster = Cluster(stack, tmp_path, database_url=url)
    for name in ("a", "b"):
        cluster.start(name)
    job_id = cluster.submit(OPTIONS)
    cluster.roles()
    assert cluster.server.wait_for(job_id, seconds=90)["state"] == "succeeded"
    assert outcome_of(cluster.server.client, job_id) == expected
