"""`Idempotency-Key`: one execution per key and content, also in parallel and after a restart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.service.conftest import Start
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import Server


def executions(server: Server) -> int:
    path = server.data_dir.parent / "executions"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_the_same_request_is_the_same_job(idle: Server) -> None:
    first = prune(idle, options='{"seed": 1}', idempotency_key="k")
    again = prune(idle, options='{ "seed":1 }', idempotency_key="k")
    assert again.content == first.content
    assert again.headers["content-location"] == first.headers["content-location"]
    assert executions(idle) == 1


def test_another_key_is_another_job(idle: Server) -> None:
    jobs = {prune(idle, idempotency_key=k).headers["content-location"] for k in "abc"}
    assert len(jobs) == executions(idle) == 3


def test_a_failure_is_repeated_too(idle: Server) -> None:
    first = prune(idle, b"raise ProofError", idempotency_key="k")
    again = prune(idle, b"raise ProofError", idempotency_key="k")
    assert assert_problem(again, 500, "proof_failed") == first.json()
    assert executions(idle) == 1


def test_other_content_under_the_same_key_is_refused(idle: Server) -> None:
    prune(idle, idempotency_key="k")
    for other in (
        prune(idle, b"ok other", idempotency_key="k"),
        prune(idle, bundle=b"other", idempotency_key="k"),
        prune(idle, options='{"seed": 2}', idempotency_key="k"),
    ):
        assert_problem(other, 422, "idempotency_key_reused")
    assert executions(idle) == 1


def test_parallel_requests_execute_once(idle: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: prune(idle, b"sleep 0.3", idempotency_key="k"), range(8)))
    assert {reply.status_code for reply in replies} == {200}
    assert len({reply.headers["content-location"] for reply in replies}) == 1
    assert executions(idle) == 1


def test_keys_outlive_the_server(start: Start) -> None:
    with start() as server:
        first = prune(server, idempotency_key="k")
        server.terminate()
    with start() as server:
        again = prune(server, idempotency_key="k")
        assert again.headers["content-location"] == first.headers["content-location"]
        assert executions(server) == 1


def test_a_known_key_is_answered_when_the_queue_is_full(start: Start) -> None:
    with start(max_queued_jobs=0) as server:
        first = prune(server, idempotency_key="k")
        submit(server, b"sleep 60")
        assert prune(server, idempotency_key="k").content == first.content
        assert_problem(prune(server, idempotency_key="new"), 503, "queue_full")


def test_the_job_of_a_killed_server_is_not_sent_twice(start: Start) -> None:
    with start() as server:
        job_id = submit(server, b"sleep 1", idempotency_key="k")
        server.wait_for(job_id, "running")
        server.kill()
    with start() as server:
        again = prune(server, b"sleep 1", idempotency_key="k")
        assert again.headers["content-location"] == f"/v1/jobs/{job_id}/model"


def test_a_deleted_job_frees_its_key(idle: Server) -> None:
    url = prune(idle, idempotency_key="k").headers["content-location"].removesuffix("/model")
    idle.client.delete(url)
    assert prune(idle, idempotency_key="k").status_code == 200
    assert executions(idle) == 2
