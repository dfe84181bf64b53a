"""Settings: wrong ones end the server at once, with a line that names them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.settings import Settings
from tests.support.server import REPOSITORY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "70000"),
        ("MAX_CONCURRENT_JOBS", "0"),
        ("JOB_TIMEOUT_S", "-1"),
        ("LOG_LEVEL", "loud"),
        ("MAX_UPLOAD_BYTES", "much"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_binds_to_loopback_unless_told_otherwise() -> None:
    assert Settings().host == "127.0.0.1"


def test_the_memory_of_the_machine_is_shared_between_the_places() -> None:
    one, two = Settings(max_concurrent_jobs=1), Settings(max_concurrent_jobs=2)
    assert one.memory_limit_bytes // 2 == two.memory_limit_bytes
    assert Settings(job_memory_bytes=5, max_concurrent_jobs=2).memory_limit_bytes == 5
