"""The client and the commands that use it, against a running server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from service.client import Client, DownloadError, RequestProblem, UnreachableError
from service.client.retries import Retries, retry_after_s
from service.client.transfers import PartialFile, ignore_bytes
from tests.support import digits
from tests.support.flaky_proxy import flaky_proxy
from tests.support.keys import make_key
from tests.support.server import REPOSITORY, Server, running_server

OPTIONS = {"max_samples": 64, "target": {"filters": 4}, "recovery": "none"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return make_key(server, "client")


@pytest.fixture(scope="module")
def done(server: Server, key: str) -> str:
    """Id of a job that has succeeded."""
    with Client(server.url, key) as client:
        job = client.submit(digits.MODEL, digits.BUNDLE, OPTIONS, {"team": "vision"})
        reports: list[str] = []
        over = client.wait(job.id, lambda data: reports.append(data["phase"]))
        assert over.state == "succeeded"
        assert reports
        return job.id


def test_what_is_there_is_not_sent_again(server: Server, key: str, done: str) -> None:
    sent: list[int] = []
    with Client(server.url, key) as client:
        again = client.upload("model", digits.MODEL, lambda n, total: sent.append(n))
    assert again == hashlib.sha256(digits.MODEL.read_bytes()).hexdigest()
    assert sent == []


def test_uploads_are_told_of(server: Server, key: str, tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / 'näme "x".npz'
    np.savez(path, image=np.random.default_rng(0).random((300, 1000)))
    sent: list[tuple[int, int]] = []
    with Client(server.url, key) as client:
        client.upload("bundle", path, lambda n, total: sent.append((n, total)))
    size = path.stat().st_size
    assert len(sent) > 1
    assert sent[-1] == (size, size)


def test_a_job_is_found_by_its_label_and_id(server: Server, key: str, done: str) -> None:
    with Client(server.url, key) as client:
        assert [j.id for j in client.jobs(label="team=vision", limit=1)] == [done]
        assert client.job(done).is_over
        with pytest.raises(RequestProblem, match="no job with the id") as caught:
            client.job("nope")
    assert caught.value.code == "job_not_found"
    assert caught.value.status == 404


def test_a_wrong_key_is_said_in_words(server: Server, key: str) -> None:
    with Client(server.url, "wrong") as client, pytest.raises(RequestProblem) as caught:
        client.job("x")
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("budgets", [[], [3000], [3000, 3000, 700]])
def test_a_download_goes_on_where_it_was_cut(
    server: Server, key: str, done: str, tmp_path: Path, budgets: list[int]
) -> None:
    target = tmp_path / "m.onnx"
    with flaky_proxy(server.url, []) as proxy:
        with Client(proxy.url, key) as client:
            whole = client.download(done, "model", tmp_path / "whole").read_bytes()
        assert len(whole) > 4000, "or the cuts below fall behind its end"
        proxy.budgets[:] = [500, *budgets]  # the first is for HEAD, and is cut in its headers
        seen: list[int] = []
        with Client(proxy.url, key) as client:
            client.download(done, "model", target, lambda n, total: seen.append(n))
    assert target.read_bytes() == whole
    assert seen == sorted(seen), "never from the start"
    assert list(tmp_path.glob(".*")) == []


def test_another_process_finishes_a_download(
    server: Server, key: str, done: str, tmp_path: Path
) -> None:
    with Client(server.url, key) as client:
        whole = client.download(done, "model", tmp_path / "whole").read_bytes()
        etag = f'"{hashlib.sha256(whole).hexdigest()}"'
        part = PartialFile(tmp_path / "m.onnx", etag, len(whole))
        (tmp_path / f".m.onnx.{etag[1:17]}.part").write_bytes(whole[:1000])
        assert part.headers == {"Range": "bytes=1000-", "If-Range": etag}
        seen: list[int] = []
        client.download(done, "model", tmp_path / "m.onnx", lambda n, total: seen.append(n))
        assert seen[0] > 1000
        assert (tmp_path / "m.onnx").read_bytes() == whole
        (tmp_path / f".m.onnx.{etag[1:17]}.part").write_bytes(b"x" * len(whole))
        with pytest.raises(DownloadError):
            client.download(done, "model", tmp_path / "m.onnx")
        client.download(done, "model", tmp_path / "m.onnx", ignore_bytes)


def test_a_broken_event_stream_goes_on(server: Server, key: str) -> None:
    with flaky_proxy(server.url, []) as proxy, Client(proxy.url, key) as client:
        job = client.submit(digits.MODEL, digits.BUNDLE, {**OPTIONS, "seed": 1})
        client.close()
        with Client(proxy.url, key) as second:
            proxy.budgets[:] = [900, 900]
            states = [d["state"] for kind, d in second.events(job.id) if kind == "state"]
    assert states == ["queued", "running", "succeeded"]


def test_a_request_that_was_sent_twice_is_one_job(server: Server, key: str) -> None:
    with Client(server.url, key) as client:
        first, second = (
            client.submit(digits.MODEL, digits.BUNDLE, OPTIONS, job_id="mine") for _ in range(2)
        )
        assert first.id == second.id
        client.wait("mine")
        client.delete("mine")


def test_a_failed_job_is_an_error(server: Server, key: str) -> None:
    with Client(server.url, key) as client:
        job = client.submit(digits.MODEL, digits.BUNDLE, {"target": {"filters": 10_000}})
        with pytest.raises(RequestProblem) as caught:
            client.wait(job.id)
    assert caught.value.code == "target_unreachable"


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    kind = {"content-type": "application/problem+json"}
    body = json.dumps({"code": code, "detail": "Busy."})
    request = httpx.Request("GET", "http://localhost/")
    return httpx.Response(status, headers={**kind, **headers}, text=body, request=request)


def test_retry_after_is_honoured() -> None:
    sequence = iter([problem(503, "queue_full", **{"retry-after": "1"}), httpx.Response(200)])
    began = time.monotonic()
    assert Retries(5).send(lambda: next(sequence)).status_code == 200
    assert time.monotonic() - began >= 1


def test_a_wait_beyond_patience_is_not_begun() -> None:
    began = time.monotonic()
    with pytest.raises(RequestProblem) as caught:
        Retries(5).send(lambda: problem(429, "rate_limited", **{"retry-after": "600"}))
    assert caught.value.code == "rate_limited"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "is_final"),
    [
        (problem(502, "job_crashed"), True),
        (problem(504, "job_timeout"), True),
        (problem(409, "job_exists"), True),
        (httpx.Response(502, request=httpx.Request("GET", "http://x/")), False),
        (problem(503, "database_unavailable"), False),
    ],
    ids=["crashed job", "slow job", "conflict", "gateway", "database"],
)
def test_only_what_may_pass_is_tried_again(answer: httpx.Response, is_final: bool) -> None:
    sequence = iter([answer, httpx.Response(200)])
    found = Retries(5).send(lambda: next(sequence))
    assert found.status_code == (answer.status_code if is_final else 200)


def test_dates_are_understood() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after_s(soon) or 0) <= 30
    assert retry_after_s("7") == 7
    assert retry_after_s("soon") is None


def test_nobody_there_is_said_after_a_while() -> None:
    with Client("http://127.0.0.1:9", patience_s=1) as client, pytest.raises(UnreachableError):
        client.job("x")


def command(server: Server, key: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from service.client.commands import main; main()", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PRUNER_URL": server.url, "PRUNER_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_commands(server: Server, key: str, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned.onnx"
    options = ["--filters", "4", "--max-samples", "64", "--recovery", "none"]
    files = [str(digits.MODEL), str(digits.BUNDLE)]
    sent = command(
        server, key, "submit", *files, *options, "--metadata", "from=cli", "-o", str(pruned)
    )
    assert sent.returncode == 0, sent.stderr
    job_id = sent.stdout.strip()
    assert pruned.stat().st_size > 1000
    listed = command(server, key, "status", "--label", "from=cli").stdout
    assert listed == f"{job_id}  succeeded\n"
    document = json.loads(command(server, key, "status", job_id, "--json").stdout)
    assert document["options"]["max_samples"] == 64
    report = tmp_path / "report.json"
    got = command(server, key, "download", job_id, "--result", "report", "-o", str(report))
    assert got.returncode == 0, got.stderr
    assert json.loads(report.read_text())["filters"]["before"] > 0
    late = command(server, key, "cancel", job_id)
    assert late.returncode == 9
    assert late.stderr.startswith("error[job_not_active]: ")
    wrong = command(server, "nonsense", "wait", job_id)
    assert wrong.returncode == 9
    assert "error[unauthenticated]" in wrong.stderr
