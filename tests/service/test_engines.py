"""Which engines work is said over HTTP, and a job can ask for one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support import digits
from tests.support.server import Server, running_server
from tests.support.training import needs_training


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("engines")) as server:
        yield server


def test_the_engines_are_listed_with_their_state(real: Server) -> None:
    engines = real.client.get("/v1/engines").json()
    assert [e["name"] for e in engines] == ["standard", "ort-training"]
    assert engines[0]["works"] is True
    for engine in engines:
        assert engine["works"] or engine["reason"]
    assert real.client.get("/readyz").json()["engines"] == engines


@needs_training
def test_a_job_can_ask_for_ort_training(real: Server) -> None:
    with digits.MODEL.open("rb") as model, digits.BUNDLE.open("rb") as bundle:
        reply = real.client.post(
            "/v1/prune",
            files={"model": model, "bundle": bundle},
            data={"options": json.dumps({"engine": "ort-training", "max_samples": 64})},
        )
    assert reply.status_code == 200, reply.text
    report = real.client.get(reply.links["describedby"]["url"]).json()
    assert report["engine"]["name"] == "ort-training"
    assert report["engine"]["version"].startswith("1.19.2")
    assert report["engine"]["why"] == "asked for"
