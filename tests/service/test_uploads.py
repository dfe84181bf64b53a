"""Models and bundles as resources: content-addressed, streamed, checked before they are kept."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.service.conftest import Start
from tests.service.test_idempotency import executions
from tests.support.problems import assert_problem
from tests.support.prune_requests import prune
from tests.support.server import MISBEHAVING_CHILD, Server, running_server


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_an_upload_is_named_by_its_content(server: Server, kind: str) -> None:
    content = f"ok {kind} by content".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    first = server.client.post(f"/v1/{kind}s", files={"file": ("net.bin", content)})
    assert first.status_code == 201
    assert first.headers["location"] == f"/v1/{kind}s/{sha256}"
    view = first.json()
    assert view["id"] == sha256
    assert view["size_bytes"] == len(content)
    assert view["filename"] == "net.bin"
    again = server.client.post(f"/v1/{kind}s", content=content)
    assert again.status_code == 200
    assert again.json() == server.client.get(f"/v1/{kind}s/{sha256}").json()
    # Sending it again was a use of it.
    assert again.json().pop("expires_at") > view.pop("expires_at")
    assert {name: again.json()[name] for name in view} == view
    stored = server.data_dir / f"{kind}s" / sha256 / "file"
    assert stored.read_bytes() == content
    assert server.client.delete(f"/v1/{kind}s/{sha256}").status_code == 204
    assert not stored.exists()


def test_a_refused_model_is_not_stored(server: Server) -> None:
    content = b"raise TruncatedModelError"
    response = server.client.post("/v1/models", content=content)
    assert_problem(response, 422, "model_truncated")
    assert not (server.data_dir / "models" / hashlib.sha256(content).hexdigest()).exists()


def test_facts_are_found_once(server: Server) -> None:
    before = executions(server)
    model_id = server.client.post("/v1/models", content=b"ok once").json()["id"]
    for _ in range(3):
        assert server.client.get(f"/v1/models/{model_id}").json()["model"] == {"bytes": 7}
        assert server.client.get(f"/v1/models/{model_id}/channels").json() == {"bytes": 7}
    assert executions(server) == before + 2


def test_a_model_that_came_with_a_job_is_inspected_when_asked(server: Server) -> None:
    response = prune(server, b"ok with job")
    job = server.client.get(response.headers["content-location"].removesuffix("/model")).json()
    assert server.client.get(f"/v1/models/{job['model_id']}").json()["model"] == {"bytes": 11}


def test_low_disk_refuses_new_work_and_keeps_the_old_readable(start: Start) -> None:
    with start() as server:
        location = prune(server).headers["content-location"]
        server.terminate()
    with running_server(
        server.data_dir.parent,
        child_module=MISBEHAVING_CHILD,
        executions=server.data_dir.parent / "executions",
        min_free_disk_bytes=2**60,
        until="/healthz",
    ) as server:
        for response in (prune(server), server.client.post("/v1/models", content=b"ok")):
            assert_problem(response, 507, "insufficient_storage")
        checks = assert_problem(server.client.get("/readyz"), 503, "not_ready")["checks"]
        assert checks["disk"] != "ok"
        assert server.client.get(location).content == b"pruned ok"


def test_a_declared_size_is_refused_before_the_body_is_sent(server: Server) -> None:
    """With `Expect: 100-continue` the answer comes while the body is still at home."""
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as connection:
        connection.settimeout(20)
        connection.sendall(
            b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"model_too_large" in answer


@pytest.mark.parametrize("is_declared", [False, True])
@pytest.mark.parametrize("is_form", [False, True])
def test_memory_stays_flat_during_a_large_upload(
    idle: Server, is_form: bool, is_declared: bool
) -> None:
    """Also where a thread fetches the bytes itself, since their number was declared."""
    size = 300 * 2**20
    block = bytes(range(256)) * 4096
    start, end = b"ok %d %d\n" % (is_form, is_declared), b""
    headers = {"content-type": "application/octet-stream"}
    content_bytes = size + len(start)
    if is_form:
        start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m"\r\n\r\n' + start
        end = b"\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
    if is_declared:
        headers["content-length"] = str(len(start) + size + len(end))

    def body() -> Iterator[bytes]:
        yield start
        for _ in range(size // len(block)):
            yield block
        yield end

    process = idle.role("api")
    assert process is not None
    idle.client.post("/v1/bundles", content=b"ok")
    before = process.memory_info().rss
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        response = idle.client.post("/v1/bundles", content=body(), headers=headers)
    finally:
        done.set()
        watcher.join()
    assert response.status_code == 201
    assert response.json()["size_bytes"] == content_bytes
    stored = idle.data_dir / "bundles" / response.json()["id"] / "file"
    with stored.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == response.json()["id"]
    assert peak[0] - before < 32 * 2**20
    metrics = idle.client.get("/metrics").text
    assert "pruner_upload_bytes_total" in metrics
    assert idle.client.delete(response.headers["location"]).status_code == 204


def test_a_long_upload_that_stands_still_is_given_up(start: Start) -> None:
    with start(upload_idle_timeout_s=1) as server, _half_sent(server) as connection:
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"upload_stalled" in answer
        assert server.leftovers() == []


def test_a_client_that_goes_away_late_in_an_upload_leaves_nothing(idle: Server) -> None:
    with _half_sent(idle):
        time.sleep(0.5)
        assert idle.leftovers() != []
    end = time.monotonic() + 10
    while idle.leftovers() and time.monotonic() < end:
        time.sleep(0.02)
    assert idle.leftovers() == []


@contextmanager
def _half_sent(server: Server) -> Iterator[socket.socket]:
    """The connection of a client that sends 20 MB of 40."""
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(
            b"POST /v1/bundles HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: close\r\nContent-Length: 40000000\r\n\r\n" + bytes(20_000_000)
        )
        yield connection


def test_a_long_form_is_refused_at_the_byte_that_passes_the_limit(start: Start) -> None:
    """What was declared, with what a form adds, is within it."""
    limit = 20 * 2**20
    with start(max_upload_bytes=limit) as server:
        for size, status in ((limit, 201), (limit + 1, 413)):
            content = b"ok\n" + bytes(size - 3)
            response = server.client.post("/v1/bundles", files={"file": ("b", content)})
            assert response.status_code == status
        assert_problem(response, 413, "upload_too_large")
        assert server.leftovers() == []
