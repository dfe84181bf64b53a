"""Object storage in the place of a shared folder: machines that share a bucket and a database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph_ops import prune
from service.objects import ObjectStorage, StorageUnavailable
from service.outbound import OutboundGuard
from service.problems import Problem
from service.settings import Settings
from service.sources import Sources
from tests.support import digits
from tests.support.digits_jobs import outcome_of, undisturbed, upload_digits
from tests.support.leftovers import assert_left
from tests.support.object_storage import ObjectServer, running_object_server
from tests.support.postgres import needs_postgres, running_postgres
from tests.support.problems import assert_problem
from tests.support.receiver import Receiver, running_receiver
from tests.support.server import Server, running_server, running_worker

OPTIONS: dict[str, Any] = {"max_samples": 128, "steps": 3, "target": {"filters": 9}}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    with running_object_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def store(objects: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectStorage:
    for name, value in objects.settings.items():
        monkeypatch.setenv(name.upper(), value)
    return ObjectStorage(objects.settings["storage_url"])


def test_a_file_comes_back_as_it_was(store: ObjectStorage, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    content = b"0123456789abcdef" * (2**20 + 1)  # more than one part
    source.write_bytes(content)
    store.put("x/y/file", source)
    assert store.fetch("x/y/file", target)
    assert target.read_bytes() == content
    assert [(o.name, o.size_bytes) for o in store.below("x")] == [("x/y/file", len(content))]
    assert store.folders("x") == ["y"]
    found = store.read("x/y/file")
    assert found is not None
    assert abs(found[1] - time.time()) < 60
    store.delete(["x/y/file", "x/none"])
    assert store.below("x") == []


def test_what_is_not_there_is_not_there(store: ObjectStorage, tmp_path: Path) -> None:
    assert store.read("none") is None
    assert not store.fetch("none", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_is_away_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(StorageUnavailable):
        ObjectStorage("s3://bucket").check()


def test_one_machine_with_a_bucket(objects: ObjectServer, tmp_path: Path) -> None:
    short = {"cache_retention_s": 2, "sweep_interval_s": 0.5}
    with running_server(tmp_path, **short, **objects.settings) as server:
        assert server.client.get("/readyz").json()["checks"]["storage"] == "ok"
        body = upload_digits(server.client)
        job = server.client.post("/v1/jobs", json={**body, "options": OPTIONS}).json()
        server.wait_for(job["id"], "succeeded", seconds=60)
        check_that_copies_go_and_are_fetched_again(server, body["model_id"], job["id"])
        results = ["pruned.onnx", "report.json", "scores.npz"]
        assert_left(results, lambda: objects.file_names(f"jobs/{job['id']}/"))
        assert server.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
        assert not [n for n in objects.names() if n.startswith("jobs/")]
        for kind in ("model", "bundle"):
            path = f"/v1/{kind}s/{body[f'{kind}_id']}"
            assert server.client.delete(path).status_code == 204
            assert server.client.get(path).status_code == 404
        assert objects.names() == []


def check_that_copies_go_and_are_fetched_again(
    server: Server, model_id: str, job_id: object
) -> None:
    model = server.data_dir / "models" / model_id
    result = server.data_dir / "jobs" / str(job_id)
    end = time.monotonic() + 30
    while model.exists() or result.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert server.client.get(f"/v1/models/{model_id}/channels").status_code == 200
    assert server.client.get(f"/v1/jobs/{job_id}/model").status_code == 200


@needs_postgres
def test_machines_share_nothing_but_bucket_and_database(
    objects: ObjectServer, tmp_path: Path
) -> None:
    """An API and two workers, each with a data folder of its own; one worker dies on the way."""
    expected = undisturbed(OPTIONS, tmp_path / "expected")
    with running_postgres() as url:
        settings = {**objects.settings, "database_url": url}
        homes = [tmp_path / name for name in ("api", "one", "two")]
        for home in homes:
            home.mkdir()
        with running_server(homes[0], "/healthz", role="api", **settings) as server:
            body = upload_digits(server.client)
            job = server.client.post("/v1/jobs", json={**body, "options": OPTIONS}).json()
            with running_worker(homes[1], "one", **settings) as one:
                end = time.monotonic() + 60
                while not any("/checkpoint/round-" in name for name in objects.names()):
                    assert time.monotonic() < end
                    time.sleep(0.02)
                one.kill()
                one.wait(10)
            with running_worker(homes[2], "two", **settings):
                done = server.wait_for(job["id"], "succeeded", seconds=90)
            assert done["attempts"] == 2
            assert "after 0 rounds" not in (homes[2] / "two.log").read_text()
            assert outcome_of(server.client, str(job["id"])) == expected


CURVE: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.4},
    "points": 4,
    "max_samples": 200,
    "on_unreachable": "best",
}


@pytest.mark.slow
@needs_postgres
def test_points_of_a_curve_outlive_the_machine_that_made_them(
    objects: ObjectServer, store: ObjectStorage, tmp_path: Path
) -> None:
    """Those a dead worker finished are not made again, and any API has them all."""
    expected = prune(digits.MODEL, digits.BUNDLE, CURVE)
    with running_postgres() as url:
        settings = {**objects.settings, "database_url": url}
        homes = [tmp_path / name for name in ("api", "one", "two", "other")]
        for home in homes:
            home.mkdir()
        with running_server(homes[0], "/healthz", role="api", **settings) as server:
            body = upload_digits(server.client)
            job = server.client.post("/v1/jobs", json={**body, "options": CURVE}).json()
            with running_worker(homes[1], "one", **settings) as one:
                first_point = json.loads(_wait_for_object(store, "-point-01.json"))
                _wait_for_object(store, "/checkpoint/round-0002.npz")
                one.kill()
                one.wait(10)
            with running_worker(homes[2], "two", **settings):
                done = server.wait_for(job["id"], "succeeded", seconds=90)
                assert_left([], lambda: objects.file_names(f"jobs/{job['id']}/checkpoint/"))
        assert done["attempts"] == 2
        with running_server(homes[3], "/healthz", role="api", **settings) as other:
            path = f"/v1/jobs/{job['id']}/points"
            models = [other.client.get(f"{path}/{n}").content for n in (1, 2, 3, 4)]
            report = other.client.get(f"{path}/1/report").json()
    assert models == [point.model for point in expected.points]
    assert report == first_point  # its timings too
    names = [name for name in objects.names() if name.startswith(f"jobs/{job['id']}/")]
    assert len([name for name in names if "/point-" in name]) == 8


def _wait_for_object(store: ObjectStorage, ending: str) -> bytes:
    """The object with this ending of its name, once there is one."""
    end = time.monotonic() + 60
    while True:
        for found in store.below("jobs"):
            content = store.read(found.name) if found.name.endswith(ending) else None
            if content is not None:
                return content[0]
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_the_storage_may_go_away_for_a_while(objects: ObjectServer, tmp_path: Path) -> None:
    with running_server(tmp_path, **objects.settings) as server:
        body = upload_digits(server.client)
        options = {**OPTIONS, "steps": 8, "target": {"filters": 16}}
        job = server.client.post("/v1/jobs", json={**body, "options": options}).json()
        server.wait_for(job["id"], "running")
        objects.pause()
        try:
            time.sleep(10)
        finally:
            objects.go_on()
        done = server.wait_for(job["id"], "succeeded", seconds=90)
        assert done["attempts"] == 1
        assert outcome_of(server.client, str(job["id"])) == undisturbed(options, tmp_path / "e")


def test_an_upload_to_a_storage_that_is_away_is_told_to_come_again(tmp_path: Path) -> None:
    away = {
        "storage_url": "s3://bucket",
        "aws_endpoint_url": "http://127.0.0.1:9",
        "aws_access_key_id": "x",
        "aws_secret_access_key": "x",
    }
    with running_server(tmp_path, "/healthz", role="api", **away) as server:
        answer = server.client.get(f"/v1/models/{'0' * 64}")
        assert_problem(answer, 503, "storage_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert "storage" in server.client.get("/readyz").json()["detail"]


URL_SETTINGS = {"source_buckets": "pruner/sources, other"}


def test_a_model_is_fetched_from_a_url(objects: ObjectServer, tmp_path: Path) -> None:
    with running_receiver() as web:
        web.content = digits.MODEL.read_bytes()
        settings = {**objects.settings, **URL_SETTINGS, "outbound_private_hosts": web.address}
        httpx.put(f"{objects.url}/pruner/sources/m.onnx", content=web.content).raise_for_status()
        with running_server(tmp_path, max_model_bytes=2 * 2**20, **settings) as server:
            first = server.client.post("/v1/models", json={"url": f"{web.url}/a/net.onnx?x=y"})
            assert first.status_code == 201, first.text
            assert first.json()["filename"] == "net.onnx"
            second = server.client.post("/v1/models", json={"url": "s3://pruner/sources/m.onnx"})
            assert second.status_code == 200
            assert second.json()["id"] == first.json()["id"]
            check_urls_that_are_refused(server, web, objects)


def check_urls_that_are_refused(server: Server, web: Receiver, objects: ObjectServer) -> None:
    for url in (
        "s3://pruner/tests/models/x/file",
        "s3://pruner/elsewhere",
        "s3://pruner/sources/../tests/x",
        "s3://pruner",
        "s3://secret/x",
        "https://127.0.0.1/x",
        "http://127.0.0.1:9/x",
        "file:/etc/passwd",
        "",
    ):
        answer = server.client.post("/v1/bundles", json={"url": url})
        assert_problem(answer, 422, "source_not_allowed")
    missing = server.client.post("/v1/bundles", json={"url": "s3://pruner/sources/none"})
    assert_problem(missing, 422, "source_unreadable")
    web.answers[:] = [(404, {})]
    assert_problem(
        server.client.post("/v1/bundles", json={"url": f"{web.url}/x"}), 422, "source_unreadable"
    )
    web.content = bytes(3 * 2**20)
    assert_problem(
        server.client.post("/v1/models", json={"url": f"{web.url}/x"}), 413, "model_too_large"
    )
    for body in ({}, {"url": 1}, {"url": "a", "b": 1}, [], "x"):
        answer = server.client.post("/v1/models", json=body)
        assert_problem(answer, 422, "request_invalid")


def test_urls_of_other_buckets_are_refused() -> None:
    settings = Settings(storage_url="s3://own/prefix", source_buckets="own, open/data")
    sources = Sources(settings, OutboundGuard([], []))
    urls = ("s3://own/prefix/models/x/f", "s3://open/other", "s3://open/database/x", "s3://x/y")
    for url in urls:
        with pytest.raises(Problem) as caught:
            sources.fetch(url, None)  # type: ignore[arg-type]
        assert caught.value.code == "source_not_allowed"
