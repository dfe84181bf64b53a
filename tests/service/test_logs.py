"""What is logged, and what never is; headers that a security scanner looks for."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.logs import JOB_ID, JsonFormatter, TextFormatter
from tests.support.keys import client_with, make_key
from tests.support.server import MISBEHAVING_CHILD, Server, running_server

SECRETS = {
    "file name": "codename-zebra.onnx",
    "metadata": "metadata-zebra",
    "label": "label-zebra",
    "data": "data-zebra",
    "path": "path-zebra",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings = {"child_module": MISBEHAVING_CHILD, "executions": folder / "n"}
    with running_server(folder, log_format="json", **settings) as running:
        yield running


def lines_of(server: Server) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def test_every_line_is_json_with_the_ids_it_belongs_to(server: Server) -> None:
    with client_with(server, make_key(server, "ci")) as client:
        sent = client.post(
            "/v1/prune", files={"model": ("m.onnx", b"ok"), "bundle": ("b.npz", b"ok")}
        )
    assert sent.status_code == 200
    job_id = sent.headers["content-location"].split("/")[3]
    end = time.monotonic() + 10
    requests: list[dict[str, object]] = []
    while not requests and time.monotonic() < end:  # the line comes after the answer
        time.sleep(0.05)
        lines = lines_of(server)
        request_id = sent.headers["x-request-id"]
        requests = [line for line in lines if line.get("request_id") == request_id]
    (request,) = requests
    assert request["message"] == "POST /v1/prune 200"
    assert request["key_id"]
    worked = [line for line in lines if line.get("job_id") == job_id]
    assert {"service.worker"} <= {line["logger"] for line in worked}


def test_logs_never_hold_what_users_sent_or_keys(server: Server) -> None:
    token = make_key(server, "secretive")
    with client_with(server, token) as client:
        for model in (b"ok", b"raise ProofError", b"bug", b"segfault"):
            client.post(
                "/v1/prune",
                files={
                    "model": (SECRETS["file name"], model + b"\n" + SECRETS["data"].encode()),
                    "bundle": ("b.npz", b"ok"),
                },
                data={"metadata": json.dumps({"k": SECRETS["metadata"]})},
            )
        client.get("/v1/jobs", params={"label": SECRETS["label"]})
        client.get(f"/v1/jobs/{SECRETS['path']}")
        client.get(f"/{SECRETS['path']}")
        client.post("/v1/jobs", content=json.dumps({"options": SECRETS["metadata"]}))
        client.get("/v1/jobs", headers={"Authorization": f"Bearer {token}x"})
    log = server.log
    assert "a secret of the implementation" in log, "tracebacks are there"
    for what, secret in SECRETS.items():
        assert secret not in log, what
    assert token.split("_", 2)[2] not in log


def test_tracebacks_stay_in_the_log(server: Server) -> None:
    with client_with(server, make_key(server, "buggy")) as client:
        answer = client.post(
            "/v1/prune", files={"model": ("m.onnx", b"bug"), "bundle": ("b.npz", b"ok")}
        )
    assert answer.status_code == 500
    for word in ("Traceback", "a secret", ".py", "/service/"):
        assert word not in answer.text


@pytest.mark.parametrize("path", ["/healthz", "/v1/jobs", "/", "/no/such/page", "/docs/assets/"])
def test_every_answer_has_the_headers_of_a_careful_service(server: Server, path: str) -> None:
    headers = server.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "unsafe-eval" not in headers["content-security-policy"]
    assert "server" not in headers
    assert ("etag" in headers) or headers["cache-control"] in ("no-store", "no-cache")


def test_https_is_remembered_where_a_proxy_speaks_it(server: Server) -> None:
    assert "strict-transport-security" not in server.client.get("/healthz").headers
    answer = server.client.get("/healthz", headers={"X-Forwarded-Proto": "https"})
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def record(message: str, exc: BaseException | None = None) -> logging.LogRecord:
    info = None if exc is None else (type(exc), exc, None)
    return logging.LogRecord("service", logging.ERROR, str(Path("x")), 1, message, (), info)


def test_line_breaks_cannot_forge_lines() -> None:
    text = JsonFormatter().format(record('a\n{"level": "info"}', ValueError("b\nc")))
    assert "\n" not in text
    assert json.loads(text)["message"] == 'a\n{"level": "info"}'


def test_text_lines_name_the_job() -> None:
    token = JOB_ID.set("j1")
    try:
        assert TextFormatter().format(record("done")).endswith("done job=j1")
    finally:
        JOB_ID.reset(token)
