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


def test_the_same_request_is_the_same_job(start: Start) -> None:
    with start() as server:
        first = prune(server, options='{"seed": 1}', idempotency_key="k")
        again = prune(server, options='{ "seed":1 }', idempotency_key="k")
        assert again.content == first.content
        assert again.headers["content-location"] == first.headers["content-location"]
        assert executions(server) == 1


def test_another_key_is_another_job(start: Start) -> None:
    with start() as server:
        jobs = {prune(server, idempotency_key=k).headers["content-location"] for k in "abc"}
        assert len(jobs) == executions(server) == 3


def test_a_failure_is_repeated_too(start: Start) -> None:
    with start() as server:
        first = prune(server, b"raise ProofError", idempotency_key="k")
        again = prune(server, b"raise ProofError", idempotency_key="k")
        assert assert_problem(again, 500, "proof_failed") == first.json()
        assert executions(server) == 1


def test_other_content_under_the_same_key_is_refused(start: Start) -> None:
    with start() as server:
        prune(server, idempotency_key="k")
        for other in (
            prune(server, b"ok other", idempotency_key="k"),
            prune(server, bundle=b"other", idempotency_key="k"),
            prune(server, options='{"seed": 2}', idempotency_key="k"),
        ):
            assert_problem(other, 422, "idempotency_key_reused")
        assert executions(server) == 1


def test_parallel_requests_execute_once(start: Start) -> None:
    with start() as server, ThreadPoolExecutor(8) as pool:
        replies = list(
            pool.map(lambda _: prune(server, b"sleep 0.3", idempotency_key="k"), range(8))
        )
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.headers["content-location"] for reply in replies}) == 1
        assert executions(server) == 1


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


def test_a_deleted_job_frees_its_key(start: Start) -> None:
    with start() as server:
        url = prune(server, idempotency_key="k").headers["content-location"].removesuffix("/model")
        server.client.delete(url)
        assert prune(server, idempotency_key="k").status_code == 200
        assert executions(server) == 2
