"""Images over HTTP: shown what is guessed of them, refused until somebody says yes, then pruned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph_ops.pruning import prune
from tests.support import digits
from tests.support.digit_images import COUNT, FOLDERS, GUESS, SOURCES, as_parquet
from tests.support.image_bundles import as_zip
from tests.support.problems import assert_problem
from tests.support.server import Server, running_server

QUICK = {"recovery": "none", "target": {"filters": 8}}
FILES = {kind: make for kind, make in SOURCES.items() if kind != "folder"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def model_id(server: Server) -> str:
    return upload(server, "models", digits.MODEL)["id"]


def upload(server: Server, kind: str, path: Path) -> dict[str, Any]:
    response = server.client.post(f"/v1/{kind}", content=path.read_bytes())
    assert response.status_code in (200, 201), response.text
    view: dict[str, Any] = response.json()
    return view


def post_job(server: Server, body: dict[str, object], query: str = "") -> httpx.Response:
    return server.client.post(f"/v1/jobs{query}", json=body)


@pytest.mark.parametrize("kind", FILES)
def test_the_guess_is_shown_accepted_and_used(
    server: Server, model_id: str, tmp_path: Path, kind: str
) -> None:
    path = FILES[kind](tmp_path / "bundle")
    bundle = upload(server, "bundles", path)
    assert bundle["images"]["count"] == COUNT
    assert bundle["images"]["preprocessing"] is None
    body = {"model_id": model_id, "bundle_id": bundle["id"], "options": QUICK}

    problem = assert_problem(post_job(server, body), 422, "bundle_preprocessing")
    shown = server.client.get(f"/v1/models/{model_id}").json()["model"]["preprocessing_guess"]
    assert problem["guess"] == shown == GUESS
    assert json.dumps(GUESS) in problem["detail"]
    assert_problem(post_job(server, body, "?dry_run=true"), 422, "bundle_preprocessing")

    accepted = {**QUICK, "preprocessing": problem["guess"]}
    job = post_job(server, {**body, "options": accepted}).json()
    server.wait_for(job["id"], "succeeded", seconds=60)
    report = server.client.get(f"/v1/jobs/{job['id']}/report").json()
    ours = prune(digits.MODEL, path, accepted).report
    assert report["convolutions"] == ours["convolutions"]
    assert report["bundle"]["images"] == ours["bundle"]["images"]


def test_one_request_shows_the_guess_and_takes_it(server: Server, tmp_path: Path) -> None:
    bundle = as_zip(tmp_path / "digits.zip", {**FOLDERS, "0/new.png": FOLDERS[min(FOLDERS)]})

    def send(options: dict[str, object]) -> httpx.Response:
        files = {
            "model": ("digits.onnx", digits.MODEL.read_bytes()),
            "bundle": ("digits.zip", bundle.read_bytes()),
        }
        return server.client.post(
            "/v1/prune", files=files, data={"options": json.dumps(options)}, timeout=60
        )

    problem = assert_problem(send(QUICK), 422, "bundle_preprocessing")
    assert problem["guess"] == GUESS
    assert send({**QUICK, "preprocessing": problem["guess"]}).status_code == 200


def test_settings_that_are_wrong_are_named_as_an_option(server: Server, model_id: str) -> None:
    options = {**QUICK, "preprocessing": {"preset": "imagenet", "std": [0.0]}}
    body = {"model_id": model_id, "bundle_id": "0" * 64, "options": options}
    problem = assert_problem(post_job(server, body), 422, "options_invalid")
    assert problem["fields"][0]["field"] == "preprocessing"


def test_settings_for_arrays_are_refused(server: Server, model_id: str) -> None:
    bundle_id = upload(server, "bundles", digits.BUNDLE)["id"]
    options = {**QUICK, "preprocessing": GUESS}
    body = {"model_id": model_id, "bundle_id": bundle_id, "options": options}
    problem = assert_problem(post_job(server, body, "?dry_run=true"), 422, "bundle_preprocessing")
    assert problem["found"] == ["image", "labels"]


def test_a_parquet_file_that_is_cut_short_is_refused(server: Server, tmp_path: Path) -> None:
    whole = as_parquet(tmp_path / "b.parquet").read_bytes()
    response = server.client.post("/v1/bundles", content=whole[: len(whole) // 2])
    assert_problem(response, 422, "bundle_format")


def test_sessions_and_cuts_refuse_images_that_nobody_has_described(
    server: Server, model_id: str, tmp_path: Path
) -> None:
    bundle_id = upload(server, "bundles", as_zip(tmp_path / "b.zip", FOLDERS))["id"]
    cut = {"drop": {"conv1": [0]}, "bundle_id": bundle_id}
    response = server.client.post(f"/v1/models/{model_id}/cut", json=cut)
    assert_problem(response, 422, "bundle_preprocessing")
    for options, status in (({}, 422), ({"preprocessing": GUESS}, 202)):
        body = {"model_id": model_id, "options": options}
        session = server.client.post("/v1/sessions", json=body).json()["links"]["self"]
        response = server.client.post(f"{session}/bundles", json={"bundle_id": bundle_id})
        assert response.status_code == status, response.text
