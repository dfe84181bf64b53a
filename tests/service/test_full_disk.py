"""A disk that becomes full while jobs run: a tmpfs of some megabytes is the data folder."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.protocol import DISK_FULL
from tests.support.chaos import VARIANTS
from tests.support.digits_jobs import outcome_of, undisturbed, upload_digits
from tests.support.leftovers import assert_nothing_is_left
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import MISBEHAVING_CHILD, REPOSITORY, Server, running_server
from tests.support.small_disk import SmallDisk, small_disk

KEPT_FREE = 4 * 2**20


def test_a_full_disk_stops_new_work_and_loses_nothing(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "child_module": MISBEHAVING_CHILD,
        "executions": tmp_path / "n",
        "min_free_disk_bytes": 2 * 2**20,
    }
    with (
        small_disk(tmp_path / "data", megabytes=8) as disk,
        running_server(tmp_path, **settings) as server,
    ):
        before = prune(server, b"ok\nbefore").headers["content-location"]
        running, waiting = submit(server, b"sleep 3"), submit(server, b"ok\nlater")
        server.wait_for(running, "running")
        disk.fill()
        answer = prune(server, b"ok\nnew")
        assert answer.status_code in (503, 507), answer.text
        assert answer.json()["code"] in ("insufficient_storage", "database_unavailable")
        assert server.client.get("/readyz").status_code == 503
        assert server.client.get("/healthz").status_code == 200
        assert server.client.get(before).content == b"pruned ok\nbefore"
        time.sleep(4)
        disk.empty()
        done = server.wait_for(running, seconds=40)
        assert done["state"] == "succeeded" or done["problem"]["code"] == "insufficient_storage"
        assert server.wait_for(waiting, seconds=40)["state"] == "succeeded"
        assert prune(server, b"ok\nnew").status_code == 200
        assert server.client.get("/readyz").status_code == 200


def test_a_child_that_cannot_even_say_why_says_that_the_disk_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        request = {"action": "inspect", "file_bytes": 2**30, "model": "/nowhere"}
        (disk.folder / "request.json").write_text(json.dumps(request))
        disk.fill()
        command = [sys.executable, "-m", "service.child", str(disk.folder)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=60)
    assert done.returncode == DISK_FULL, done.stderr


def put(server: Server, body: dict[str, Any], number: int) -> httpx.Response:
    request = {**body, "options": VARIANTS[number % len(VARIANTS)]}
    return server.client.put(f"/v1/jobs/full-{number}", json=request)


def squeeze(server: Server, disk: SmallDisk, names: list[str], seconds: float) -> None:
    """Fill the disk and give it back, again and again, while jobs run."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        disk.fill()
        time.sleep(1.2)
        disk.empty()
        time.sleep(0.8)
        states = [server.client.get(f"/v1/jobs/{name}").json().get("state") for name in names]
        if all(state in ("succeeded", "failed") for state in states):
            return


@pytest.mark.slow
def test_jobs_on_a_disk_that_is_full_time_and_again_end_rightly_or_can_be_retried(
    tmp_path: Path,
) -> None:
    expected = [undisturbed(options, tmp_path / str(n)) for n, options in enumerate(VARIANTS)]
    with (
        small_disk(tmp_path / "data", megabytes=48) as disk,
        running_server(tmp_path, min_free_disk_bytes=KEPT_FREE, ort_threads=1) as server,
    ):
        body = upload_digits(server.client)
        names = [put(server, body, number).raise_for_status().json()["id"] for number in range(4)]
        server.wait_for(names[0], "running")
        squeeze(server, disk, names, seconds=20)

        disk.fill(left_bytes=KEPT_FREE // 2)  # the database can write, and new work is refused
        problem = assert_problem(put(server, body, 4), 507, "insufficient_storage")
        assert problem["free_bytes"] < problem["kept_free_bytes"] == KEPT_FREE
        bundle = {"content": b"more", "headers": {"Content-Type": "application/octet-stream"}}
        refused = server.client.post("/v1/bundles", **bundle)  # type: ignore[arg-type]
        assert_problem(refused, 507, "insufficient_storage")

        disk.empty()
        assert put(server, body, 4).status_code == 202
        failed = []
        for number, name in enumerate([*names, "full-4"]):
            job = server.wait_for(name, seconds=120)
            if job["state"] == "failed":
                assert job["problem"]["code"] == "insufficient_storage", job  # type: ignore[index]
                failed.append(name)
                assert server.client.post(f"/v1/jobs/{name}/retry").status_code == 202
                job = server.wait_for(name, seconds=120)
            assert job["state"] == "succeeded", job
            assert outcome_of(server.client, name) == expected[number % len(VARIANTS)]
        assert failed or "the disk is almost full" in server.log, "no job noticed"
        assert_nothing_is_left(server, jobs=5)
        with closing(sqlite3.connect(disk.folder / "jobs.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
