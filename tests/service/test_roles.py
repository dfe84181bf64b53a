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
from tests.support.postgres import needs_postgres, running_postgres
from tests.support.prune_requests import prune, submit
from tests.support.server import (
    MISBEHAVING_CHILD,
    REPOSITORY,
    Server,
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


def test_the_jobs_of_a_worker_that_leaves_go_to_another(
    api: Server, tmp_path: Path, small: dict[str, Any]
) -> None:
    with running_worker(tmp_path, "one", **small) as one:
        job_id = submit(api, b"sleep 1.5")
        api.wait_for(job_id, "running")
        with running_worker(tmp_path, "two", **small):
            one.terminate()
            assert one.wait(10) == 0
            began = time.monotonic()
            assert api.wait_for(job_id, "succeeded")["attempts"] == 2
            assert time.monotonic() - began < 5, "it was waited for as for a dead one"


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
        assert len(family) == 3
        server.process.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive


@needs_postgres
def test_a_worker_that_never_returns_loses_nothing(
    postgres: str, tmp_path: Path, small: dict[str, Any]
) -> None:
    small["database_url"] = postgres
    with (
        running_server(tmp_path, "/healthz", role="api", **small) as server,
        running_worker(tmp_path, "one", **small) as one,
    ):
        job_id = submit(server, b"sleep 2")
        server.wait_for(job_id, "running")
        with running_worker(tmp_path, "two", **small):
            one.kill()
            done = server.wait_for(job_id, "succeeded", seconds=30)
            assert done["attempts"] == 2
            assert executions(server) == 2
            assert prune(server).status_code == 200
        assert not (server.data_dir / "jobs.sqlite").exists()


@needs_postgres
def test_a_worker_that_was_only_asleep_is_fenced_off(
    postgres: str, tmp_path: Path, small: dict[str, Any]
) -> None:
    small["database_url"] = postgres
    with (
        running_server(tmp_path, "/healthz", role="api", **small) as server,
        running_worker(tmp_path, "one", **small) as one,
    ):
        job_id = submit(server, b"sleep 2")
        server.wait_for(job_id, "running")
        with running_worker(tmp_path, "two", **small):
            os.kill(one.pid, signal.SIGSTOP)
            try:
                done = server.wait_for(job_id, "succeeded", seconds=30)
            finally:
                os.kill(one.pid, signal.SIGCONT)
            time.sleep(1.5)
            assert server.client.get(f"/v1/jobs/{job_id}").json() == done
            results = list((server.data_dir / "jobs" / job_id).iterdir())
            assert [path.name for path in results] == ["results-2"]
            assert server.client.get(f"/v1/jobs/{job_id}/model").content == b"pruned sleep 2"
        assert prune(server).status_code == 200, "the worker that slept goes on"
