"""Quotas, and the numbers that tell of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from service.gpu_memory import GpuMemory
from tests.service.conftest import Start
from tests.support.keys import client_with, make_key
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit


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
