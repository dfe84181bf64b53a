"""Whatever native work does in its process, the client gets a problem and the server lives on."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from service.problem_types import PROBLEM_TYPES
from tests.service.conftest import Start
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import Server

FATES = [
    ("segfault", "job_crashed"),
    ("abort", "job_crashed"),
    ("exit 3", "job_crashed"),
    ("exit 0", "job_failed"),
    ("exit 74", "insufficient_storage"),
    ("vanish", "job_out_of_memory"),
    ("memory", "job_out_of_memory"),
    ("overallocate", "job_out_of_memory"),
    ("sleep 60", "job_timeout"),
    ("file 5000000", "result_too_large"),
    ("bug", "job_failed"),
    ("link", "job_failed"),
    ("raise ProofError", "proof_failed"),
    ("raise NotOnnxError", "model_not_onnx"),
    ("raise BundleTooLargeError", "bundle_too_large"),
]


@pytest.mark.parametrize(("fate", "code"), FATES)
def test_fate_of_a_job(server: Server, fate: str, code: str) -> None:
    problem = assert_problem(prune(server, fate.encode()), PROBLEM_TYPES[code].status, code)
    assert "secret" not in str(problem)
    job = server.client.get(problem["instance"]).json()
    assert job["state"] == "failed"
    assert prune(server).status_code == 200
    assert server.children() == []


@pytest.mark.parametrize(
    ("fate", "code"), [pair for pair in FATES if pair[0].split()[0] not in ("link", "exit")]
)
def test_fate_of_an_inspection(server: Server, fate: str, code: str) -> None:
    response = server.client.post("/v1/models", content=fate.encode())
    assert_problem(response, PROBLEM_TYPES[code].status, code)
    assert server.leftovers() == []


def test_the_next_job_runs_in_the_child_that_waits(server: Server) -> None:
    prune(server)
    spare = server.spare()
    job_id = submit(server, b"sleep 0.5")
    server.wait_for(job_id, "running")
    end = time.monotonic() + 5
    while spare not in server.children() and time.monotonic() < end:
        time.sleep(0.01)
    assert server.children() == [spare]
    server.wait_for(job_id, "succeeded")
    assert server.spare() != spare, "a child is used once"


def test_the_next_inspection_is_done_by_the_child_that_waits(server: Server) -> None:
    before = server.spare("api")
    server.client.post("/v1/models", content=b"ok to inspect").raise_for_status()
    assert not before.is_running()
    assert server.spare("api") != before, "a child is used once"


def test_a_waiting_child_that_died_costs_nothing(server: Server) -> None:
    prune(server)
    server.spare().kill()
    job_id = submit(server, b"ok")
    assert server.wait_for(job_id)["attempts"] == 1


def test_the_log_has_what_the_client_does_not_see(server: Server) -> None:
    prune(server, b"bug")
    assert "a secret of the implementation" in server.log


def test_a_crash_names_its_signal(server: Server) -> None:
    assert prune(server, b"segfault").json()["signal"] == "SIGSEGV"


def test_noise_of_native_code_is_harmless(server: Server) -> None:
    assert prune(server, b"noise").content == b"pruned noise"


def test_cancel_ends_everything_a_job_started(server: Server) -> None:
    job_id = submit(server, b"family")
    end = time.monotonic() + 10
    while len(server.children()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    family = server.children()
    assert len(family) == 2
    began = time.monotonic()
    cancelled = server.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert time.monotonic() - began < 2
    assert cancelled["state"] == "cancelled"
    assert not any(_is_alive(member) for member in family)


def test_no_child_outlives_a_killed_server(start: Start) -> None:
    with start() as server:
        submit(server, b"sleep 600")
        end = time.monotonic() + 10
        while not server.children() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.5)  # the child confines itself first
        children = server.children()
        assert children
        server.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive


def test_the_server_never_loads_native_model_code() -> None:
    code = (
        "import sys, service.app, service.worker; "
        "print({'onnx', 'onnx_ir', 'onnxruntime', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
