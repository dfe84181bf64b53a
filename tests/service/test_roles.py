"""Each role alone: an API and workers that share a database and a data folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.service.test_idempotency import executions
from tests.support.leftovers import assert_left, names_in
from tests.support.postgres import needs_postgres, running_postgres, running_postgres_server
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import (
    MISBEHAVING_CHILD,
    REPOSITORY,
    Server,
    native_work,
    running_server,
    running_worker,
)


@pytest.fixture
def small(tmp_path: Path) -> dict[str, Any]:
    """Settings of every role of a test."""
    return {"child_module": MISBEHAVING_CHILD, "executions": tmp_path / "executions"}


@pytest.fixture
def postgres() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def api(tmp_path: Path, small: dict[str, Any]) -> Iterator[Server]:
    with running_server(tmp_path, "/healthz", role="api", **small) as server:
        yield server


def test_an_api_without_workers_takes_jobs_and_is_not_ready(
    api: Server, tmp_path: Path, small: dict[str, Any]
) -> None:
    job_id = submit(api, b"ok")
    checks = api.client.get("/readyz").json()["checks"]
    assert checks["workers"] == "none is alive"
    assert checks["database"] == "ok"
    time.sleep(0.5)
    assert api.client.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    with running_worker(tmp_path, "one", **small):
        api.wait_for(job_id, "succeeded")
        assert api.client.get("/readyz").status_code == 200
    assert api.client.get("/readyz").json()["checks"]["workers"] == "none is alive"


def the_busy_one(*workers: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """The worker that has the job, once its child is at work."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for worker in workers:
            if native_work(psutil.Process(worker.pid)):
                return worker
        time.sleep(0.01)
    raise AssertionError("no worker has begun")


def test_the_jobs_of_a_worker_that_leaves_go_to_another(
    api: Server, tmp_path: Path, small: dict[str, Any]
) -> None:
    with (
        running_worker(tmp_path, "one", **small) as one,
        running_worker(tmp_path, "two", **small) as two,
    ):
        job_id = submit(api, b"sleep 1.5")
        leaver = the_busy_one(one, two)
        leaver.terminate()
        assert leaver.wait(10) == 0
        assert api.wait_for(job_id, "succeeded")["attempts"] == 2


@pytest.mark.parametrize(
    ("role", "words"), [("worker", "named 'one' is running"), ("all", "used by another server")]
)
def test_processes_that_cannot_share_are_refused(
    api: Server, tmp_path: Path, small: dict[str, Any], role: str, words: str
) -> None:
    with running_worker(tmp_path, "one", **small):
        done = subprocess.run(
            [sys.executable, "-m", "service"],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "DATA_DIR": str(api.data_dir),
                "ROLE": role,
                "WORKER_NAME": "one",
                "PORT": "0",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert words in done.stderr


def test_the_worker_is_started_again(tmp_path: Path, small: dict[str, Any]) -> None:
    with running_server(tmp_path, **small) as server:
        server.kill_role("worker")
        assert prune(server).content == b"pruned ok"
        assert "the worker ended with status -9" in server.log


def test_requests_wait_while_the_api_is_started_again(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    with running_server(tmp_path, **small) as server:
        server.kill_role("api")
        assert prune(server).content == b"pruned ok"


def test_both_roles_die_with_their_supervisor(tmp_path: Path, small: dict[str, Any]) -> None:
    with running_server(tmp_path, **small) as server:
        submit(server, b"sleep 60")
        end = time.monotonic() + 10
        while not server.children() and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)  # the child confines itself first
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert len(family) >= 3, "an API, a worker and its child, and perhaps a spare one"
        server.process.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive


def test_the_supervisor_loads_nothing_that_only_its_roles_need() -> None:
    code = (
        "import sys, service.__main__; "
        "print({'dbos', 'fastapi', 'graph_ops.runtime', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


@needs_postgres
def test_a_worker_that_never_returns_loses_nothing(
    postgres: str, tmp_path: Path, small: dict[str, Any]
) -> None:
    small["database_url"] = postgres
    with (
        running_server(tmp_path, "/healthz", role="api", **small) as server,
        running_worker(tmp_path, "one", **small) as one,
        running_worker(tmp_path, "two", **small) as two,
    ):
        job_id = submit(server, b"sleep 1.5")
        busy = the_busy_one(one, two)
        while executions(server) < 1:
            time.sleep(0.01)
        busy.kill()
        done = server.wait_for(job_id, "succeeded", seconds=40)
        assert done["attempts"] == executions(server) == 2
        assert not (server.data_dir / "jobs.sqlite").exists()


@needs_postgres
def test_a_worker_that_was_only_asleep_is_fenced_off(
    postgres: str, tmp_path: Path, small: dict[str, Any]
) -> None:
    small["database_url"] = postgres
    with (
        running_server(tmp_path, "/healthz", role="api", **small) as server,
        running_worker(tmp_path, "one", **small) as one,
        running_worker(tmp_path, "two", **small) as two,
    ):
        job_id = submit(server, b"sleep 2")
        sleeper = the_busy_one(one, two)
        os.kill(sleeper.pid, signal.SIGSTOP)
        try:
            done = server.wait_for(job_id, "succeeded", seconds=40)
        finally:
            os.kill(sleeper.pid, signal.SIGCONT)
        time.sleep(1.5)
        assert server.client.get(f"/v1/jobs/{job_id}").json() == done
        folder = server.data_dir / "jobs" / job_id
        assert_left(["results-2"], lambda: names_in(folder))
        assert server.client.get(f"/v1/jobs/{job_id}/model").content == b"pruned sleep 2"
        other = one if sleeper is two else two
        other.terminate()
        other.wait(10)
        assert prune(server).status_code == 200, "the worker that slept goes on"


@pytest.mark.slow
@needs_postgres
def test_the_database_may_go_away_for_a_while(tmp_path: Path, small: dict[str, Any]) -> None:
    with running_postgres_server() as database:
        small["database_url"] = database.url
        with (
            running_server(tmp_path, "/healthz", role="api", **small) as server,
            running_worker(tmp_path, "one", **small),
        ):
            job_id = submit(server, b"sleep 6")
            server.wait_for(job_id, "running")
            database.stop()
            began = time.monotonic()
            response = server.client.get(f"/v1/jobs/{job_id}")
            assert_problem(response, 503, "database_unavailable")
            assert "database" in server.client.get("/readyz").json()["detail"]
            assert server.client.get("/healthz").status_code == 200
            time.sleep(max(0.0, began + 10 - time.monotonic()))
            database.start()
            done = server.wait_for(job_id, "succeeded", seconds=30)
            assert done["attempts"] == 1
            assert prune(server).status_code == 200
