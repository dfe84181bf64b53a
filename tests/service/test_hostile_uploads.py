"""More than 300 hostile uploads: each is a 4xx problem, within its limits, and harms nobody.

    make test-slow ARGS="tests/service/test_hostile_uploads.py"

The default run sends some of each kind.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import digits
from tests.support.hostile import Hostile, corpus
from tests.support.server import Server, running_server

MEMORY_BYTES = 1500 * 2**20
SECONDS = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(folder, job_memory_bytes=MEMORY_BYTES, job_timeout_s=SECONDS) as running:
        yield running


def test_the_corpus_is_large_and_has_no_two_of_a_kind() -> None:
    everything = corpus()
    assert len(everything) >= 300
    assert len({(h.part, h.content) for h in everything}) >= 300
    assert len({h.name for h in everything}) == len(everything)


def assert_harmless(server: Server, uploads: list[Hostile]) -> None:
    good = {"model": digits.MODEL.read_bytes(), "bundle": digits.BUNDLE.read_bytes()}
    worker, api = server.role("worker"), server.role("api")
    assert worker is not None
    assert api is not None
    wrong = []
    for upload in uploads:
        parts = {**good, upload.part: upload.content}
        files = {name: (name, content) for name, content in parts.items() if name in good}
        data = {"options": parts.get("options", b'{"max_samples": 32}')}
        began = time.monotonic()
        answer = server.client.post("/v1/prune", files=files, data=data)
        seconds = time.monotonic() - began
        kind = answer.headers["content-type"]
        if not 400 <= answer.status_code < 500 or kind != "application/problem+json":
            wrong.append(f"{upload.name}: {answer.status_code} {answer.text[:300]}")
        elif "Traceback" in answer.text or seconds > SECONDS:
            wrong.append(f"{upload.name}: {seconds:.0f} s {answer.text[:300]}")
    assert not wrong, "\n".join(wrong)
    for role in (worker, api):
        assert role.is_running()
        assert role.memory_info().rss < 400 * 2**20
    assert not Path("/tmp/pwned").exists()
    assert server.client.get("/readyz").status_code == 200
    assert server.leftovers() == []
    assert psutil.Process(server.process.pid).is_running()


def test_hostile_uploads_are_refused(server: Server) -> None:
    assert_harmless(server, corpus()[::25])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_hostile_upload_is_refused(server: Server) -> None:
    assert_harmless(server, corpus())
