"""`/v1/jobs`: jobs on stored models and bundles, as a client sees them."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.service.test_idempotency import executions
from tests.support.problems import assert_problem
from tests.support.prune_requests import as_headers, job_body, prune, submit, upload
from tests.support.server import Server


@pytest.fixture
def body(server: Server) -> dict[str, Any]:
    return {"model_id": upload(server, "model"), "bundle_id": upload(server, "bundle")}


def send(server: Server, body: object, query: str = "", **headers: str) -> httpx.Response:
    return server.client.post(f"/v1/jobs{query}", json=body, headers=as_headers(headers))


def test_a_job_runs_on_stored_files(server: Server, body: dict[str, Any]) -> None:
    response = send(server, {**body, "options": {"seed": 4}, "metadata": {"team": "vision"}})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] in ("queued", "running")
    assert job["metadata"] == {"team": "vision"}
    done = server.wait_for(job["id"], "succeeded")
    assert server.client.get(done["links"]["model"]).content == b"pruned ok"  # type: ignore[index]
    report = server.client.get(done["links"]["report"]).json()  # type: ignore[index]
    assert report["options"]["seed"] == 4
    assert done["attempts"] == 1


def test_curl_sends_a_job_and_waits_for_it(server: Server, body: dict[str, Any]) -> None:
    done = subprocess.run(
        [
            *("curl", "-sSf", "-H", "Content-Type: application/json", "-H", "Prefer: wait=20"),
            *("-d", json.dumps(body), f"{server.url}/v1/jobs"),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    assert json.loads(done.stdout)["state"] == "succeeded"


def test_wait_bounds_the_time_to_the_answer(server: Server) -> None:
    body = job_body(server, b"sleep 1.5")
    early = send(server, body, prefer="wait=1")
    assert early.status_code == 202
    assert early.headers["preference-applied"] == "wait=1"
    waited = server.client.get(early.headers["location"], headers={"Prefer": "wait=20"})
    assert waited.headers["preference-applied"] == "wait=20"
    assert waited.json()["state"] == "succeeded"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model_id": "0" * 64}, 404, "model_not_found"),
        ({"bundle_id": "0" * 64}, 404, "bundle_not_found"),
        ({"model_id": "digits"}, 422, "request_invalid"),
        ({"model_id": None}, 422, "request_invalid"),
        ({"surprise": 1}, 422, "request_invalid"),
        ({"options": {"steps": 0}}, 422, "options_invalid"),
        ({"options": []}, 422, "request_invalid"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 422, "metadata_invalid"),
        ({"metadata": {"k": 1}}, 422, "metadata_invalid"),
        ({"metadata": {"k": "x" * 513}}, 422, "metadata_invalid"),
        ({"metadata": {"": "x"}}, 422, "metadata_invalid"),
        ({"metadata": {"a b": "x"}}, 422, "metadata_invalid"),
        ({"metadata": {"k": "\0"}}, 422, "metadata_invalid"),
        ({"metadata": {"k": "x" * 2000}}, 413, "body_too_large"),
    ],
)
def test_wrong_requests_are_problems(
    server: Server, body: dict[str, Any], change: dict[str, Any], status: int, code: str
) -> None:
    assert_problem(send(server, body | change), status, code)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_body_that_is_no_json_object_is_a_problem(server: Server, content: bytes) -> None:
    response = server.client.post("/v1/jobs", content=content)
    assert_problem(response, 422, "request_invalid")


def test_a_body_of_another_type_is_a_problem(server: Server) -> None:
    response = server.client.post("/v1/jobs", data={"a": "b"})
    assert_problem(response, 415, "unsupported_media_type")


def test_metadata_comes_with_a_prune_request_too(server: Server) -> None:
    response = prune(server, metadata='{"run": "7"}')
    job = server.client.get(response.headers["content-location"].removesuffix("/model")).json()
    assert job["metadata"] == {"run": "7"}
    assert_problem(prune(server, metadata='{"run": 7}'), 422, "metadata_invalid")
    assert_problem(prune(server, metadata='{"run": "\\ud800"}'), 422, "metadata_invalid")
    assert_problem(prune(server, metadata="run"), 422, "metadata_invalid")


def test_a_dry_run_makes_no_job(server: Server, body: dict[str, Any]) -> None:
    before = server.client.get("/v1/jobs?limit=1").json()["items"]
    response = send(server, {**body, "options": {"seed": 9}}, "?dry_run=true")
    assert response.status_code == 200
    found = response.json()
    assert found["is_reachable"] is True
    assert found["options"]["seed"] == 9
    assert server.client.get("/v1/jobs?limit=1").json()["items"] == before


def test_a_dry_run_finds_what_is_wrong(server: Server) -> None:
    body = job_body(server, b"raise UnreachableTargetError")
    assert_problem(send(server, body, "?dry_run=true"), 422, "target_unreachable")


def test_the_same_id_and_content_is_the_same_job(idle: Server) -> None:
    body = job_body(idle)
    first = idle.client.put("/v1/jobs/my-run.1", json=body)
    assert first.status_code == 202
    assert first.headers["location"] == "/v1/jobs/my-run.1"
    idle.wait_for("my-run.1", "succeeded")
    again = idle.client.put("/v1/jobs/my-run.1", json=body)
    assert again.status_code == 200
    assert again.json()["state"] == "succeeded"
    other = idle.client.put("/v1/jobs/my-run.1", json={**body, "options": {"seed": 1}})
    assert assert_problem(other, 409, "job_exists")["job_id"] == "my-run.1"
    assert idle.client.delete("/v1/jobs/my-run.1").status_code == 204
    assert idle.client.put("/v1/jobs/my-run.1", json=body).status_code == 202
    idle.wait_for("my-run.1", "succeeded")


@pytest.mark.parametrize("job_id", ["-x", "a b", "x" * 65, ".hidden", "a%2Fb", "%00"])
def test_ids_that_are_no_names_are_refused(
    server: Server, body: dict[str, Any], job_id: str
) -> None:
    response = server.client.put(f"/v1/jobs/{job_id}", json=body)
    assert response.status_code in (404, 405, 422)


def test_one_id_sent_many_times_at_once_is_one_execution(idle: Server) -> None:
    body = job_body(idle)
    before = executions(idle)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: idle.client.put("/v1/jobs/one", json=body), range(8)))
    assert {reply.status_code for reply in replies} <= {200, 202}
    idle.wait_for("one", "succeeded")
    assert executions(idle) <= before + 2  # that of `job_body` may still have been waiting


def test_idempotency_keys_hold_for_jobs_too(server: Server, body: dict[str, Any]) -> None:
    first = send(server, body, idempotency_key="a job's key")
    assert_problem(first, 400, "idempotency_key_invalid")
    first = send(server, body, idempotency_key="key-of-a-job")
    again = send(server, body, idempotency_key="key-of-a-job")
    assert again.json()["id"] == first.json()["id"]
    other = send(server, {**body, "metadata": {"a": "b"}}, idempotency_key="key-of-a-job")
    assert_problem(other, 422, "idempotency_key_reused")


def test_lists_are_filtered_by_label(idle: Server) -> None:
    body = job_body(idle)
    pairs = [{"team": "a", "run": "1"}, {"team": "a", "run": "2"}, {"team": "b=c"}, {}]
    ids = [send(idle, {**body, "metadata": pair}).json()["id"] for pair in pairs]

    def found(**query: Any) -> list[str]:
        items = idle.client.get("/v1/jobs", params=query).json()["items"]
        return [job["id"] for job in items]

    assert found(label="team=a") == [ids[1], ids[0]]
    assert found(label="team") == [ids[2], ids[1], ids[0]]
    assert found(label=["team=a", "run=1"]) == [ids[0]]
    assert found(label="team=b=c") == [ids[2]]
    assert found(label="nobody") == []
    seen: list[str] = []
    url: str | None = "/v1/jobs?limit=1&label=team"
    while url is not None:
        page = idle.client.get(url)
        seen += [job["id"] for job in page.json()["items"]]
        url = page.links.get("next", {}).get("url")
    assert seen == [ids[2], ids[1], ids[0]]


def test_a_failed_job_can_be_retried(idle: Server) -> None:
    # The first attempt finds no file and fails; the second finds it.
    flag = idle.data_dir.parent / "flag"
    job_id = submit(idle, f"need {flag}".encode())
    failed = idle.wait_for(job_id, "failed")
    assert failed["problem"]["code"] == "proof_failed"  # type: ignore[index]
    flag.touch()
    response = idle.client.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert response.json()["state"] == "queued"
    assert response.json()["problem"] is None
    idle.wait_for(job_id, "succeeded")
    again = idle.client.post(f"/v1/jobs/{job_id}/retry")
    assert_problem(again, 409, "job_not_retryable")
    assert_problem(idle.client.post("/v1/jobs/nobody/retry"), 404, "job_not_found")


def test_a_cancelled_job_can_be_retried(idle: Server) -> None:
    job_id = submit(idle, b"sleep 0.6")
    idle.wait_for(job_id, "running")
    assert idle.client.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    idle.client.post(f"/v1/jobs/{job_id}/retry")
    assert "cancelled" not in idle.wait_for(job_id, "succeeded")["times"]  # type: ignore[operator]


def test_cancelled_is_said_when_the_native_work_has_stopped(idle: Server) -> None:
    job_id = submit(idle, b"family")
    end = time.monotonic() + 10
    while len(idle.children()) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    began = time.monotonic()
    job = idle.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert idle.children() == []
    assert time.monotonic() - began < 2
    assert list(job["times"]) == ["queued", "running", "cancelling", "cancelled"]


def test_a_job_whose_worker_is_gone_is_cancelling_and_not_cancelled(idle: Server) -> None:
    job_id = submit(idle, b"sleep 60")
    idle.wait_for(job_id, "running")
    worker = idle.role("worker")
    assert worker is not None
    while not idle.children():  # a job runs from when it is taken on, before its child has it
        time.sleep(0.02)
    worker.suspend()
    try:
        with httpx.Client(base_url=idle.url, timeout=30) as client:
            job = client.post(f"/v1/jobs/{job_id}/cancel").json()
        assert job["state"] == "cancelling"
        assert idle.children() != []
    finally:
        worker.resume()
    idle.wait_for(job_id, "cancelled")
    assert idle.children() == []
