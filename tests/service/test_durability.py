"""Whatever is killed, a job goes on from its last round, to the same bytes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.service.test_idempotency import executions
from tests.support.digits_jobs import Outcome, outcome_of, undisturbed, upload_digits
from tests.support.leftovers import assert_left, names_in
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import Server, running_server

OPTIONS: dict[str, Any] = {"max_samples": 500, "steps": 6, "target": {"filters": 12}}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return undisturbed(OPTIONS, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    return {"max_job_attempts": 2}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def wait_for_round(server: Server, job_id: str, number: int) -> None:
    """Until a checkpoint of this round is there and the next round is under way."""
    folder = server.data_dir / "jobs" / job_id / "checkpoint"
    end = time.monotonic() + 30
    while not (folder / f"round-{number:04d}.npz").exists():
        assert time.monotonic() < end, server.log
        time.sleep(0.01)


def assert_tidy(server: Server) -> None:
    """No temporary files, once an API that has just started has looked at its first child."""
    end = time.monotonic() + 15
    while server.leftovers() and time.monotonic() < end:
        time.sleep(0.1)
    assert server.leftovers() == []


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param("child", marks=pytest.mark.slow),
        pytest.param("worker", marks=pytest.mark.slow),
        pytest.param("api", marks=pytest.mark.slow),
        "everything",
    ],
)
def test_a_job_goes_on_from_its_last_round_to_the_same_bytes(
    tmp_path: Path, stack: ExitStack, expected: Outcome, victim: str
) -> None:
    server = stack.enter_context(running_server(tmp_path))
    body = {**upload_digits(server.client), "options": OPTIONS}
    job_id = server.client.post("/v1/jobs", json=body).json()["id"]
    wait_for_round(server, job_id, 2)
    if victim == "everything":
        children = server.children()
        server.kill()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert not alive
        server = stack.enter_context(running_server(tmp_path))
    elif victim == "child":
        (child,) = server.children()
        child.kill()
    else:
        server.kill_role(victim)
    job = server.wait_for(job_id, seconds=60)
    assert job["state"] == "succeeded", job
    assert job["attempts"] == (1 if victim == "api" else 2)
    rounds = [int(n) for n in re.findall(r"attempt \d after (\d+) rounds", server.log)]
    assert rounds[0] == 0
    assert all(2 <= n < 6 for n in rounds[1:])
    assert outcome_of(server.client, job_id) == expected
    assert_tidy(server)
    folder = server.data_dir / "jobs" / job_id
    assert_left([f"results-{job['attempts']}"], lambda: names_in(folder))


def test_a_job_goes_on_after_a_stop_and_a_retry_after_a_cancel(
    tmp_path: Path, stack: ExitStack, expected: Outcome
) -> None:
    server = stack.enter_context(running_server(tmp_path))
    body = {**upload_digits(server.client), "options": OPTIONS}
    job_id = server.client.post("/v1/jobs", json=body).json()["id"]
    wait_for_round(server, job_id, 1)
    assert server.terminate() == 0
    server = stack.enter_context(running_server(tmp_path))
    wait_for_round(server, job_id, 3)
    began = time.monotonic()
    cancelled = server.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert time.monotonic() - began < 2
    assert server.children() == []
    assert cancelled["state"] == "cancelled"
    server.client.post(f"/v1/jobs/{job_id}/retry")
    server.wait_for(job_id, "succeeded", seconds=60)
    rounds = [int(n) for n in re.findall(r"attempt \d after (\d+) rounds", server.log)]
    assert rounds == sorted(rounds)
    assert rounds[-1] >= 3
    assert outcome_of(server.client, job_id) == expected


@pytest.mark.parametrize(
    ("fate", "code", "status"),
    [("abort", "job_crashed", 502), ("vanish", "job_out_of_memory", 507)],
)
def test_a_poison_model_fails_after_a_few_attempts(
    idle: Server, fate: str, code: str, status: int
) -> None:
    problem = assert_problem(prune(idle, fate.encode()), status, code)
    assert problem["attempts"] == executions(idle) == 2
    assert "begun 2 times" in problem["detail"]
    assert prune(idle).content == b"pruned ok"


def test_a_model_that_takes_the_worker_with_it_fails_too(idle: Server) -> None:
    job_id = submit(idle, b"parricide")
    job = idle.wait_for(job_id, "failed", seconds=40)
    assert job["problem"]["code"] == "job_crashed"  # type: ignore[index]
    assert job["problem"]["attempts"] == executions(idle) == 2  # type: ignore[index]
    assert prune(idle).content == b"pruned ok"


def test_a_job_that_gets_further_each_time_is_not_given_up(idle: Server) -> None:
    assert prune(idle, b"rounds 5").content == b"pruned rounds 5"
    assert executions(idle) == 6


def test_an_error_of_the_input_is_not_tried_again(idle: Server) -> None:
    prune(idle, b"raise ProofError")
    assert executions(idle) == 1


def test_an_accepted_job_outlives_the_api_that_took_it(idle: Server) -> None:
    job_id = submit(idle, b"ok", idempotency_key="k")
    idle.kill_role("api")
    again = prune(idle, b"ok", idempotency_key="k")
    assert again.headers["content-location"] == f"/v1/jobs/{job_id}/model"
    assert executions(idle) == 1
