"""The queue, the list, and what survives a restart."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.service.conftest import Start
from tests.support.leftovers import assert_nothing_is_left
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import REPOSITORY, Server


def test_one_job_runs_and_the_rest_waits_in_order(idle: Server) -> None:
    ids = [submit(idle, f"sleep 0.2 {n}".encode()) for n in range(3)]
    assert idle.client.get(f"/v1/jobs/{ids[2]}").json()["state"] == "queued"
    jobs = [idle.wait_for(job_id, "succeeded") for job_id in ids]
    began = [job["times"]["running"] for job in jobs]  # type: ignore[index]
    ended = [job["times"]["succeeded"] for job in jobs]  # type: ignore[index]
    assert began == sorted(began)
    assert all(end <= begin for end, begin in zip(ended, began[1:], strict=False))


def test_two_places_run_two_jobs(start: Start) -> None:
    with start(max_concurrent_jobs=2) as server:
        ids = [submit(server, b"sleep 5"), submit(server, b"sleep 6")]
        for job_id in ids:
            server.wait_for(job_id, "running")
        assert server.client.get("/metrics").text.count('pruner_jobs{state="running"} 2.0') == 1
        for job_id in ids:
            assert server.client.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_a_full_queue_refuses_with_retry_after(start: Start) -> None:
    with start(max_queued_jobs=1) as server:
        running = submit(server, b"sleep 60")
        waiting = submit(server, b"sleep 60")
        response = prune(server, prefer="respond-async")
        problem = assert_problem(response, 503, "queue_full")
        assert problem["limit"] == 1
        assert int(response.headers["retry-after"]) > 0
        server.client.delete(f"/v1/jobs/{waiting}")
        server.client.delete(f"/v1/jobs/{running}")
        assert prune(server).status_code == 200


def test_with_no_queue_an_idle_server_still_works(start: Start) -> None:
    with start(max_queued_jobs=0) as server:
        assert prune(server).status_code == 200
        submit(server, b"sleep 60")
        assert_problem(prune(server), 503, "queue_full")


def test_a_queued_job_can_be_cancelled_and_never_runs(idle: Server) -> None:
    running = submit(idle, b"sleep 60")
    queued = submit(idle, b"ok")
    assert idle.client.post(f"/v1/jobs/{queued}/cancel").json()["state"] == "cancelled"
    again = idle.client.post(f"/v1/jobs/{queued}/cancel")
    assert_problem(again, 409, "job_not_active")
    idle.client.post(f"/v1/jobs/{running}/cancel")
    job = idle.client.get(f"/v1/jobs/{queued}").json()
    assert "running" not in job["times"]
    assert job["problem"]["code"] == "job_cancelled"
    assert_problem(idle.client.get(f"/v1/jobs/{queued}/model"), 409, "job_cancelled")


def test_a_deleted_job_is_gone(idle: Server) -> None:
    url = prune(idle).headers["content-location"].removesuffix("/model")
    assert idle.client.delete(url).status_code == 204
    assert_problem(idle.client.get(url), 404, "job_not_found")
    assert list((idle.data_dir / "jobs").iterdir()) == []


def test_what_a_job_needs_cannot_be_deleted(idle: Server) -> None:
    job_id = submit(idle, b"sleep 60")
    model_id = idle.client.get(f"/v1/jobs/{job_id}").json()["model_id"]
    refused = idle.client.delete(f"/v1/models/{model_id}")
    assert assert_problem(refused, 409, "resource_in_use")["job_id"] == job_id
    idle.client.post(f"/v1/jobs/{job_id}/cancel")
    assert idle.client.delete(f"/v1/models/{model_id}").status_code == 204
    assert_problem(idle.client.get(f"/v1/models/{model_id}"), 404, "model_not_found")


def test_pages_cover_all_jobs_newest_first(idle: Server) -> None:
    ids = []
    for _ in range(5):
        ids.append(submit(idle, b"ok"))
        time.sleep(0.002)  # ids sort by the millisecond
    for job_id in ids:
        idle.wait_for(job_id)
    seen: list[str] = []
    url: str | None = "/v1/jobs?limit=2&state=succeeded"
    while url is not None:
        page = idle.client.get(url)
        seen += [job["id"] for job in page.json()["items"]]
        url = page.links.get("next", {}).get("url")
    assert seen == ids[::-1]
    assert idle.client.get("/v1/jobs?state=failed").json() == {
        "items": [],
        "next_cursor": None,
    }


def test_finished_jobs_are_there_after_a_restart(start: Start) -> None:
    with start() as server:
        first = prune(server)
        location = first.headers["content-location"]
        failed = prune(server, b"raise ProofError").json()["instance"]
        assert server.terminate() == 0
    with start() as server:
        again = server.client.get(location)
        assert again.content == first.content
        assert again.headers["etag"] == first.headers["etag"]
        assert server.client.get(failed).json()["problem"]["code"] == "proof_failed"


def test_jobs_of_a_killed_server_are_run_by_the_next(start: Start) -> None:
    with start() as server:
        running = submit(server, b"sleep 1")
        queued = submit(server, b"ok")
        server.wait_for(running, "running")
        server.kill()
    with start() as server:
        for job_id in (running, queued):
            server.wait_for(job_id, "succeeded")
        assert server.client.get(f"/v1/jobs/{running}").json()["attempts"] == 2
        assert_nothing_is_left(server, 2)


def test_a_stopping_server_answers_those_who_wait(start: Start) -> None:
    with start() as server, httpx.Client(base_url=server.url, timeout=30) as client:
        request = client.build_request(
            "POST", "/v1/prune", files={"model": b"sleep 60", "bundle": b"ok"}
        )
        answer = _send_in_background(client, request)
        server.wait_for(_only_job(server), "running")
        began = time.monotonic()
        server.terminate()
        assert time.monotonic() - began < 8
        problem = assert_problem(answer(), 503, "server_stopping")
        assert problem["instance"] == f"/v1/jobs/{problem['job_id']}"


def test_two_servers_do_not_share_a_data_folder(idle: Server) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env={"DATA_DIR": str(idle.data_dir), "PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode != 0
    assert "used by another server" in second.stderr


def _only_job(server: Server) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        items = server.client.get("/v1/jobs").json()["items"]
        if items:
            job_id: str = items[0]["id"]
            return job_id
        time.sleep(0.01)
    raise AssertionError("no job appeared")


def _send_in_background(
    client: httpx.Client, request: httpx.Request
) -> Callable[[], httpx.Response]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(client.send, request)
    pool.shutdown(wait=False)
    return lambda: future.result(30)
