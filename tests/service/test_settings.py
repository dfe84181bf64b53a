"""Settings: wrong ones end the server at once, with a line that names them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.conftest import Start
from tests.support.prune_requests import submit
from tests.support.server import REPOSITORY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("MAX_CONCURRENT_JOBS", "0"),
        ("JOB_TIMEOUT_S", "-1"),
        ("LOG_LEVEL", "loud"),
        ("MAX_UPLOAD_BYTES", "much"),
        ("WORKER_CORES", "0,2-"),
        ("WEBHOOK_SECRET", "a-short-secret"),
    ],
)
@pytest.mark.parametrize("command", [(), ("keys", "list")])
def test_a_wrong_setting_is_named(name: str, value: str, command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service", *command],
        cwd=REPOSITORY,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert value not in done.stderr, "it may be a secret"


def test_cores_that_the_machine_does_not_have_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env={**os.environ, "ROLE": "worker", "DATA_DIR": str(tmp_path), "WORKER_CORES": "0,8191"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "Setting WORKER_CORES: this machine has no core 8191.\n",
    )


def test_a_worker_keeps_to_its_cores_with_its_children_and_the_api_does_not(start: Start) -> None:
    ours = os.sched_getaffinity(0)
    core = max(ours)
    with start(worker_cores=core) as server:
        worker, api = server.role("worker"), server.role("api")
        assert worker is not None
        assert api is not None
        job_id = submit(server, b"sleep 30")
        server.wait_for(job_id, "running")
        spare, (child,) = server.spare(), server.children()
        for process in (worker, child, spare):
            assert os.sched_getaffinity(process.pid) == {core}
        assert os.sched_getaffinity(api.pid) == ours


@pytest.mark.parametrize(("text", "cores"), [("3", {3}), ("0-2,5", {0, 1, 2, 5}), ("2-1", {1, 2})])
def test_cores_are_written_as_for_taskset(text: str, cores: set[int]) -> None:
    assert Settings(worker_cores=text).cores == cores


def test_the_server_binds_to_loopback_unless_told_otherwise() -> None:
    assert Settings().host == "127.0.0.1"


def test_the_memory_of_the_machine_is_shared_between_the_places() -> None:
    one, two = Settings(max_concurrent_jobs=1), Settings(max_concurrent_jobs=2)
    assert one.memory_limit_bytes // 2 == two.memory_limit_bytes
    assert Settings(job_memory_bytes=5, max_concurrent_jobs=2).memory_limit_bytes == 5
