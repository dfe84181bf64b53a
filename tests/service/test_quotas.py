"""Quotas, a full disk, and the numbers that tell of both."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.gpu_memory import GpuMemory
from tests.service.conftest import Start
from tests.support.keys import client_with, make_key
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import MISBEHAVING_CHILD, running_server


def test_an_owner_keeps_no_more_than_the_quota(start: Start) -> None:
    with start(max_stored_bytes_per_owner=3000, max_stored_bytes=5000) as server:
        one, two = (client_with(server, make_key(server, name)) for name in ("one", "two"))
        raw = {"Content-Type": "application/octet-stream"}

        def put(client: Any, letter: bytes) -> Any:
            return client.post("/v1/bundles", content=b"ok\n" + letter * 1397, headers=raw)

        with one, two:
            kept = [put(one, letter) for letter in (b"a", b"b")]
            assert [answer.status_code for answer in kept] == [201, 201]
            problem = assert_problem(put(one, b"c"), 507, "quota_exceeded")
            assert (problem["used_bytes"], problem["limit_bytes"]) == (2800, 3000)
            assert put(one, b"a").status_code == 200, "what is there takes no more room"
            assert put(two, b"a").status_code == 201, "nor in the total"
            assert put(two, b"d").status_code == 201
            assert "pruner_stored_bytes 4200.0" in two.get("/metrics").text
            problem = assert_problem(put(two, b"e"), 507, "quota_exceeded")
            assert one.delete(kept[1].headers["location"]).status_code == 204
            assert put(one, b"f").status_code == 201


def test_the_numbers_that_operators_watch(start: Start) -> None:
    with start() as server:
        prune(server, b"sleep 0.3")
        waiting = [submit(server, b"sleep 30"), submit(server, b"sleep 31")]
        server.wait_for(waiting[0], "running")
        text = server.client.get("/metrics").text
    assert 'pruner_phase_seconds_total{phase="sleeping"}' in text
    numbers = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }
    assert 0 < numbers["pruner_queue_age_seconds"] < 60
    assert numbers["pruner_stored_bytes"] > 0
    assert numbers["pruner_disk_free_bytes"] > 0
    assert numbers["pruner_webhooks_waiting"] == 0
    assert numbers["pruner_response_bytes_total"] > 0
    assert [v for k, v in numbers.items() if k.startswith("pruner_worker_slots{")] == [1]
    assert "pruner_gpu_memory_used_bytes{" not in text or Path("/dev/nvidia0").exists()


def test_gpu_memory_is_what_the_drivers_tool_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo "512, 81559";; *) exit 6;; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert GpuMemory(1).read() == (512 * 2**20, 81559 * 2**20)
    assert GpuMemory(0).read() is None
    tool.write_text("#!/bin/sh\necho '[N/A], [N/A]'\n")
    assert GpuMemory(1).read() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB of its own."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def test_a_full_disk_stops_new_work_and_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "child_module": MISBEHAVING_CHILD,
        "executions": tmp_path / "n",
        "min_free_disk_bytes": 2 * 2**20,
    }
    with running_server(tmp_path, **settings) as server:
        before = prune(server, b"ok\nbefore").headers["content-location"]
        running, waiting = submit(server, b"sleep 3"), submit(server, b"ok\nlater")
        server.wait_for(running, "running")
        fill(small_disk / "everything")
        answer = prune(server, b"ok\nnew")
        assert answer.status_code in (503, 507), answer.text
        assert answer.json()["code"] in ("insufficient_storage", "database_unavailable")
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get(before).content == b"pruned ok\nbefore"
        time.sleep(4)
        (small_disk / "everything").unlink()
        done = server.wait_for(running, seconds=40)
        assert done["state"] == "succeeded" or done["problem"]["code"] == "insufficient_storage"
        assert server.wait_for(waiting, seconds=40)["state"] == "succeeded"
        assert prune(server, b"ok\nnew").status_code == 200
        assert server.client.get("/readyz").status_code == 200
