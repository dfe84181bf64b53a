"""Who gets in, and what they see, on a running server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from service.database import Database
from service.keys import KeyStore
from tests.service.conftest import Start
from tests.support.keys import client_with, make_key
from tests.support.problems import assert_problem
from tests.support.server import MISBEHAVING_CHILD, Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module, closed by a key of its own."""
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, child_module=MISBEHAVING_CHILD, executions=folder / "n") as running:
        make_key(running, "first")
        yield running


PARTS = {"model": ("net.onnx", b"ok"), "bundle": ("cal.npz", b"ok")}


def submit(client: httpx.Client, model: bytes = b"ok") -> str:
    parts = {**PARTS, "model": ("net.onnx", model)}
    response = client.post("/v1/prune", files=parts, headers={"Prefer": "respond-async"})
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def test_everyone_is_the_operator_until_there_is_a_key(start: Start) -> None:
    with start() as server:
        check_an_open_server(server)


def check_an_open_server(server: Server) -> None:
    assert "there are no API keys: everyone on this machine" in server.log
    assert server.client.get("/v1/jobs").status_code == 200
    wrong = server.client.get("/v1/jobs", headers={"Authorization": "Bearer ofp_no"})
    assert_problem(wrong, 401, "unauthenticated")
    rebound = server.client.get("/v1/jobs", headers={"Host": "attacker.example"})
    assert_problem(rebound, 403, "host_not_allowed")
    forged = server.client.post("/v1/prune", files=PARTS, headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(forged, 403, "host_not_allowed")
    own = server.client.post("/v1/prune", files=PARTS, headers={"Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 200
    token = make_key(server, "ci")
    time.sleep(0.1)
    answer = server.client.get("/v1/jobs")
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    with client_with(server, token) as client:
        assert client.get("/v1/jobs").status_code == 200


def test_public_pages_need_no_key_and_everything_else_does(server: Server) -> None:
    document = server.client.get("/openapi.json").json()
    public = {"/healthz", "/readyz", "/problems", "/problems/{code}", "/v1/options/schema"}
    tried = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            url = path.replace("{", "").replace("}", "")
            answer = httpx.request(method.upper(), server.url + url)
            if operation.get("security") == []:
                assert path in public
                assert answer.status_code != 401
            else:
                assert_problem(answer, 401, "unauthenticated")
                tried += 1
    assert tried > 15
    for page in ("/", "/docs", "/openapi.json"):
        assert server.client.get(page).status_code == 200


def test_a_request_without_a_key_is_refused_before_its_body_is_read(server: Server) -> None:
    with client_with(server, make_key(server, "metrics", "read")) as client:
        before = uploaded(client)
        answer = server.client.post("/v1/models", content=b"x" * 2**20)
        assert_problem(answer, 401, "unauthenticated")
        assert uploaded(client) == before


def uploaded(client: httpx.Client) -> list[str]:
    lines = client.get("/metrics").text.splitlines()
    return [line for line in lines if line.startswith("pruner_upload_bytes_total")]


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "ofp_1_2"])
def test_other_ways_to_authenticate_are_refused(server: Server, header: str) -> None:
    answer = server.client.get("/v1/jobs", headers={"Authorization": header})
    assert_problem(answer, 401, "unauthenticated")


def test_the_scope_read_only_reads(server: Server) -> None:
    submitting = client_with(server, make_key(server, "sender", owner="team"))
    reading = client_with(server, make_key(server, "wall", "read", owner="team"))
    with submitting, reading:
        job_id = submit(submitting)
        assert reading.get(f"/v1/jobs/{job_id}").json()["owner"] == "team"
        for method, path in (
            ("POST", "/v1/prune"),
            ("POST", f"/v1/jobs/{job_id}/cancel"),
            ("DELETE", f"/v1/jobs/{job_id}"),
            ("PUT", "/v1/jobs/mine"),
            ("POST", "/v1/models"),
        ):
            problem = assert_problem(reading.request(method, path), 403, "forbidden")
            assert problem["needed"] == "submit"


def test_owners_do_not_see_each_other(server: Server) -> None:
    one, two = (client_with(server, make_key(server, name)) for name in ("one", "two"))
    admin = client_with(server, make_key(server, "root", "admin"))
    with one, two, admin:
        job_id = submit(one)
        job = one.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
        assert job["state"] == "succeeded"
        for method, path in (
            ("GET", ""),
            ("GET", "/events"),
            ("GET", "/model"),
            ("GET", "/report"),
            ("GET", "/report.html"),
            ("POST", "/cancel"),
            ("POST", "/retry"),
            ("DELETE", ""),
        ):
            answer = two.request(method, f"/v1/jobs/{job_id}{path}")
            assert_problem(answer, 404, "job_not_found")
        assert two.get("/v1/jobs").json()["items"] == []
        for client in (one, admin):
            listed = [j["id"] for j in client.get("/v1/jobs").json()["items"]]
            assert job_id in listed if client is admin else [job_id] == listed
            assert client.get(f"/v1/jobs/{job_id}/model").status_code == 200
        body = {"model_id": job["model_id"], "bundle_id": job["bundle_id"]}
        assert_problem(two.post("/v1/jobs", json=body), 404, "model_not_found")
        assert_problem(two.get(f"/v1/models/{job['model_id']}"), 404, "model_not_found")
        taken = two.put(f"/v1/jobs/{job_id}", json=body)
        assert taken.status_code == 404
        submit(two)
        taken = two.put(f"/v1/jobs/{job_id}", json=body)
        assert assert_problem(taken, 409, "job_exists")["detail"] == f"The id {job_id} is taken."
        key = {"Idempotency-Key": "same"}
        first, second = (c.post("/v1/jobs", json=body, headers=key).json() for c in (one, two))
        assert first["id"] != second["id"]


def test_the_same_bytes_belong_to_each_who_sent_them(server: Server) -> None:
    one, two = (client_with(server, make_key(server, name)) for name in ("three", "four"))
    with one, two:
        headers = {"Content-Disposition": 'attachment; filename="secret-project.npz"'}
        raw = {"Content-Type": "application/octet-stream"}
        first = one.post("/v1/bundles", content=b"ok\nshared", headers={**raw, **headers})
        assert first.status_code == 201
        path = first.headers["location"]
        assert_problem(two.get(path), 404, "bundle_not_found")
        second = two.post("/v1/bundles", content=b"ok\nshared", headers=raw)
        assert second.status_code == 201, "that another has it is not told"
        assert second.json()["filename"] == "bundle"
        assert one.get(path).json()["filename"] == "secret-project.npz"
        assert two.post("/v1/bundles", content=b"ok\nshared", headers=raw).status_code == 200
        assert one.delete(path).status_code == 204
        assert_problem(one.get(path), 404, "bundle_not_found")
        assert two.get(path).status_code == 200
        assert two.delete(path).status_code == 204
        assert not (server.data_dir / "bundles" / path.rpartition("/")[2]).exists()


def test_a_revoked_key_is_refused_within_two_seconds(server: Server) -> None:
    with client_with(server, make_key(server, "brief")) as client:
        assert client.get("/v1/jobs").status_code == 200
        database = Database(f"sqlite:///{server.data_dir / 'jobs.sqlite'}")
        KeyStore(database).revoke("brief")
        database.close()
        time.sleep(1.2)
        assert_problem(client.get("/v1/jobs"), 401, "unauthenticated")


def test_a_key_has_limits(server: Server) -> None:
    with client_with(server, make_key(server, "slow", max_requests_per_minute=6)) as client:
        assert client.get("/v1/jobs").status_code == 200
        answer = client.get("/v1/jobs")
        assert_problem(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 10
    with client_with(server, make_key(server, "few", max_jobs=2)) as client:
        jobs = [submit(client, b"sleep 30") for _ in range(2)]
        answer = client.post("/v1/prune", files=PARTS, headers={"Prefer": "respond-async"})
        assert_problem(answer, 429, "too_many_jobs")
        assert int(answer.headers["retry-after"]) > 0
        assert client.delete(f"/v1/jobs/{jobs[0]}").status_code == 204
        submit(client)
        assert client.delete(f"/v1/jobs/{jobs[1]}").status_code == 204


def test_jobs_of_owners_are_run_in_turn(server: Server) -> None:
    many, few = (client_with(server, make_key(server, name)) for name in ("many", "seldom"))
    with many, few:
        first = [submit(many, b"sleep 0.6") for _ in range(4)]
        late = submit(few)
        server_order = [*first, late]
        done = {}
        for client, job_id in [*((many, i) for i in first), (few, late)]:
            job = client.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=30"}).json()
            done[job_id] = job["times"]["running"]
        order = sorted(server_order, key=lambda i: done[i])
        assert order.index(late) <= 2, "not behind all that was sent before"
