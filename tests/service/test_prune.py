"""`POST /v1/prune` as a client sees it, with a child that leaves small results."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.problems import assert_problem
from tests.support.prune_requests import prune, submit
from tests.support.server import Server

PRUNED = b"pruned ok"


def test_the_reply_is_the_model_and_names_its_job(server: Server) -> None:
    response = prune(server, options='{"target": {"filters": 3}}', filename="digits.onnx")
    assert response.status_code == 200
    assert response.content == PRUNED
    assert response.headers["content-type"] == "application/octet-stream"
    assert 'filename="digits-pruned.onnx"' in response.headers["content-disposition"]
    assert response.headers["etag"] == f'"{hashlib.sha256(PRUNED).hexdigest()}"'
    location = response.headers["content-location"]
    assert server.client.get(location).content == PRUNED
    job_url = location.removesuffix("/model")
    assert f'<{job_url}>; rel="related"' in response.headers["link"]
    assert f"<{job_url}/report>" in response.headers["link"]
    report = server.client.get(f"{job_url}/report").json()
    assert report["options"]["target"]["filters"] == 3
    assert report["options"]["min_filters"] == 4
    assert server.client.get(f"{job_url}/scores").content == b"scores"


def test_the_one_line_curl_call_works(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"ok")
    (tmp_path / "cal.npz").write_bytes(b"ok")
    subprocess.run(
        [
            *("curl", "-sSf", "-F", "model=@m.onnx", "-F", "bundle=@cal.npz"),
            *("-F", 'options={"target":{"filters":8}}', f"{server.url}/v1/prune"),
            *("-o", "pruned.onnx"),
        ],
        cwd=tmp_path,
        check=True,
        timeout=30,
    )
    assert (tmp_path / "pruned.onnx").read_bytes() == PRUNED


@pytest.mark.parametrize("order", [("options", "bundle", "model"), ("bundle", "model", "options")])
def test_parts_may_come_in_any_order(server: Server, order: tuple[str, ...]) -> None:
    content = {"model": b"ok", "bundle": b"ok", "options": b'{"seed": 5}'}
    response = server.client.post(
        "/v1/prune", files=[(name, (f"{name}.bin", content[name])) for name in order]
    )
    assert response.content == PRUNED
    job = server.client.get(response.headers["content-location"].removesuffix("/model")).json()
    assert job["options"]["seed"] == 5


def test_uploads_are_used_again_by_id(server: Server) -> None:
    ids = {
        f"{kind}_id": server.client.post(f"/v1/{kind}s", content=b"ok again").json()["id"]
        for kind in ("model", "bundle")
    }
    # httpx sends multipart only when there is a file; text parts are files without names.
    response = server.client.post("/v1/prune", files={k: (None, v) for k, v in ids.items()})
    assert response.content == b"pruned ok again"


def test_respond_async_answers_before_the_job_is_over(server: Server) -> None:
    response = prune(server, b"sleep 0.5", prefer="respond-async")
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    job = response.json()
    assert response.headers["location"] == job["links"]["self"] == f"/v1/jobs/{job['id']}"
    assert job["state"] in ("queued", "running")
    assert_problem(server.client.get(f"/v1/jobs/{job['id']}/model"), 409, "job_not_finished")
    done = server.wait_for(job["id"])
    assert done["state"] == "succeeded"
    assert list(done["times"]) == ["queued", "running", "succeeded"]
    progress = {"phase": "done", "done": 4, "total": 4, "message": "", "eta_s": 0.0}
    assert done["progress"] == progress
    assert server.client.get(done["links"]["model"]).content == b"pruned sleep 0.5"


def test_progress_is_seen_while_the_job_runs(server: Server) -> None:
    job_id = submit(server, b"sleep 1")
    end = time.monotonic() + 5
    while (progress := server.client.get(f"/v1/jobs/{job_id}").json()["progress"]) is None:
        assert time.monotonic() < end
    assert progress.pop("eta_s") is None
    assert progress == {"phase": "sleeping", "done": 1, "total": 4, "message": "1"}
    server.wait_for(job_id)


def test_wait_bounds_the_time_to_the_answer(server: Server) -> None:
    assert prune(server, prefer="respond-async, wait=10").content == PRUNED
    began = time.monotonic()
    response = prune(server, b"sleep 1.2", prefer="wait=0")
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=0"
    assert time.monotonic() - began < 1
    server.wait_for(response.json()["id"])


def test_a_client_that_goes_away_leaves_a_job(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"sleep 0.8 for the client that left")
    command = ["curl", "-sS", "-m", "0.4", "-F", "model=@m", "-F", "bundle=@m"]
    result = subprocess.run(
        [*command, f"{server.url}/v1/prune"], cwd=tmp_path, capture_output=True, timeout=30
    )
    assert result.returncode == 28  # curl's own time-out
    job = server.client.get("/v1/jobs", params={"limit": 1}).json()["items"][0]
    assert server.wait_for(job["id"], "succeeded")["filename"] == "m"


def test_a_failed_job_answers_with_its_problem(server: Server) -> None:
    response = prune(server, b"raise UnreachableTargetError")
    problem = assert_problem(response, 422, "target_unreachable")
    assert problem["field"] == "x"
    assert problem["error_status"] == 7
    assert problem["instance"] == response.headers["content-location"]
    job = server.client.get(problem["instance"]).json()
    assert job["state"] == "failed"
    assert job["problem"] == problem
    for result in ("model", "report", "scores"):
        again = server.client.get(f"{problem['instance']}/{result}")
        assert assert_problem(again, 422, "target_unreachable") == problem


def test_file_names_are_made_harmless(server: Server) -> None:
    response = prune(server, filename='..\\evil/..";\x01 ä.onnx')
    disposition = response.headers["content-disposition"]
    assert "/" not in disposition.split("''")[-1]
    assert "%C3%A4-pruned.onnx" in disposition
    job = server.client.get(response.headers["content-location"].removesuffix("/model")).json()
    assert json.dumps(job["filename"])
