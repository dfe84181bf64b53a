"""Curves, cuts by hand and score sessions over HTTP, with the real library."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from graph_ops.pruning import prune, score
from tests.support import digits
from tests.support.digits_jobs import upload_digits
from tests.support.problems import assert_problem
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def ids(server: Server) -> dict[str, str]:
    return upload_digits(server.client)


def part_of_bundle(begin: int, end: int) -> bytes:
    stream = io.BytesIO()
    with np.load(digits.BUNDLE) as data:
        np.savez(stream, image=data["image"][begin:end], labels=data["labels"][begin:end])
    return stream.getvalue()


def upload_part(client: httpx.Client, begin: int, end: int) -> str:
    response = client.post("/v1/bundles", content=part_of_bundle(begin, end))
    assert response.status_code in (200, 201), response.text
    return str(response.json()["id"])


def new_session(client: httpx.Client, model_id: str) -> str:
    response = client.post("/v1/sessions", json={"model_id": model_id})
    assert response.status_code == 201, response.text
    assert response.headers["location"] == response.json()["links"]["self"]
    return str(response.json()["links"]["self"])


def feed(client: httpx.Client, session: str, begin: int, end: int) -> None:
    body = {"bundle_id": upload_part(client, begin, end)}
    response = client.post(f"{session}/bundles", json=body, headers={"Prefer": "wait=60"})
    assert response.status_code == 200, response.text
    assert (response.json()["kind"], response.json()["state"]) == ("score", "succeeded")


def report_of(client: httpx.Client, response: httpx.Response) -> dict[str, Any]:
    path = response.headers["content-location"].removesuffix("/model")
    report: dict[str, Any] = client.get(f"{path}/report").json()
    return report


def shapes(content: bytes) -> dict[str, list[int]]:
    model = onnx.load_from_string(content)
    return {t.name: list(t.dims) for t in model.graph.initializer}


def test_every_point_of_a_curve_can_be_downloaded(server: Server, ids: dict[str, str]) -> None:
    options = {
        "target": {"max_macs_ratio": 0.5},
        "points": 3,
        "max_samples": 128,
        "recovery": "none",
    }
    response = server.client.post("/v1/jobs", json={**ids, "options": options})
    job = server.wait_for(response.json()["id"], seconds=120)
    assert job["state"] == "succeeded", job
    links = job["links"]
    assert isinstance(links, dict)
    report = server.client.get(links["report"]).json()
    for entry in report["curve"]:
        number = entry["point"]
        model = server.client.get(links[f"points/{number}"])
        assert len(model.content) == entry["bytes"]
        onnx.checker.check_model(onnx.load_from_string(model.content))
        own = server.client.get(links[f"points/{number}/report"]).json()
        assert own["proof"]["max_rel_diff"] == entry["max_rel_diff"] <= 1e-4
    assert len(report["curve"]) == 3
    assert server.client.get(links["points/3"]).content == (
        server.client.get(links["model"]).content
    )
    missing = server.client.get(f"{job['links']['self']}/points/4")  # type: ignore[index]
    assert_problem(missing, 404, "result_not_found")


def test_channels_are_cut_by_name_without_a_bundle(server: Server, ids: dict[str, str]) -> None:
    response = server.client.post(
        f"/v1/models/{ids['model_id']}/cut", json={"drop": {"conv1": [0, 5]}}
    )
    assert response.status_code == 200, response.text
    assert shapes(response.content)["conv1.weight"][0] == 18
    report = report_of(server.client, response)
    assert report["proof"]["inputs"] == "random"
    assert report["stop_reason"] == "cut_as_asked"
    job = server.client.get(response.headers["content-location"].removesuffix("/model")).json()
    assert (job["kind"], job["bundle_id"]) == ("cut", None)
    assert_problem(server.client.get(f"{job['links']['self']}/scores"), 404, "result_not_found")


def test_a_report_is_replayed_on_a_sibling_and_refused_on_a_stranger(
    server: Server, ids: dict[str, str]
) -> None:
    options = {"target": {"filters": 20}, "max_samples": 128, "recovery": "none"}
    result = prune(digits.MODEL, digits.BUNDLE, options)
    sibling = onnx.load(digits.MODEL)
    for tensor in sibling.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * 1.5, tensor.name))
    upload = server.client.post("/v1/models", content=sibling.SerializeToString())
    path = f"/v1/models/{upload.json()['id']}/cut"
    replayed = server.client.post(path, json={"report": result.report})
    assert replayed.status_code == 200, replayed.text
    assert shapes(replayed.content) == shapes(result.model)
    changed = json.loads(json.dumps(result.report))
    changed["convolutions"][1]["filters_before"] = 64
    problem = assert_problem(
        server.client.post(path, json={"report": changed}), 422, "report_mismatch"
    )
    assert problem["convolution"] == "conv2"
    assert (problem["expected"], problem["found"]) == (20, 64)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "request_invalid"),
        ({"drop": {}, "keep": {}}, "request_invalid"),
        ({"drop": {"conv9": [0]}}, "channels_invalid"),
        ({"drop": {"conv1": [99]}}, "channels_invalid"),
        ({"drop": {"conv1": [0]}, "bundle_id": "0" * 64}, "bundle_not_found"),
        ({"drop": {"conv1": [0]}, "options": {"nonsense": 1}}, "options_invalid"),
    ],
)
def test_cuts_that_cannot_be_made_say_why(
    server: Server, ids: dict[str, str], body: dict[str, Any], code: str
) -> None:
    response = server.client.post(f"/v1/models/{ids['model_id']}/cut", json=body)
    assert_problem(response, 404 if code == "bundle_not_found" else 422, code)


def test_halves_in_two_sessions_merged_equal_the_whole_bit_for_bit_and_survive_a_restart(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path) as server:
        client = server.client
        model_id = upload_digits(client)["model_id"]
        whole, first, second = (new_session(client, model_id) for _ in range(3))
        feed(client, whole, 0, 100)
        feed(client, first, 0, 37)
        feed(client, second, 37, 100)
        half = client.get(f"{second}/scores").content
    with running_server(tmp_path) as server:
        client = server.client
        merged = client.post(f"{first}/scores", content=half)
        assert merged.status_code == 200, merged.text
        assert sorted(p["source"] for p in merged.json()["pieces"]) == ["job", "upload"]
        sums = [client.get(f"{session}/scores") for session in (whole, first)]
        assert sums[0].content == sums[1].content
        assert sums[0].headers["etag"] == sums[1].headers["etag"]
        for ratio in (0.8, 0.5):
            body = {"options": {"target": {"max_macs_ratio": ratio}}}
            cuts = [client.post(f"{session}/cut", json=body) for session in (whole, first)]
            assert cuts[0].status_code == 200, cuts[0].text
            assert cuts[0].content == cuts[1].content
            report = report_of(client, cuts[0])
            assert report["proof"]["inputs"] == "random"
            assert report["cost"]["after"]["macs"] <= ratio * report["cost"]["before"]["macs"]
        assert client.delete(whole).status_code == 204
        assert_problem(client.get(whole), 404, "session_not_found")


def test_a_session_gives_the_librarys_own_scores(server: Server, ids: dict[str, str]) -> None:
    session = new_session(server.client, ids["model_id"])
    feed(server.client, session, 0, 50)
    own = score(digits.MODEL, part_of_bundle(0, 50), {"validation_fraction": 0})
    stream = io.BytesIO()
    np.savez(stream, format=np.int64(2), **own.arrays())  # type: ignore[arg-type]
    assert server.client.get(f"{session}/scores").content == stream.getvalue()


def test_a_cut_with_a_bundle_is_a_run_that_saves_the_scoring(
    server: Server, ids: dict[str, str]
) -> None:
    session = new_session(server.client, ids["model_id"])
    feed(server.client, session, 0, 100)
    body = {
        "bundle_id": ids["bundle_id"],
        "options": {"target": {"filters": 10}, "max_samples": 100, "recovery": "bias"},
    }
    response = server.client.post(f"{session}/cut", json=body)
    assert response.status_code == 200, response.text
    report = report_of(server.client, response)
    assert report["metric"]["name"] == "accuracy"
    assert report["proof"]["inputs"] == "bundle"
    assert report["filters"]["before"] - report["filters"]["after"] == 10


def test_sessions_refuse_what_does_not_belong_to_them(server: Server, ids: dict[str, str]) -> None:
    client = server.client
    session = new_session(client, ids["model_id"])
    body = {"options": {"target": {"filters": 4}}}
    assert_problem(client.post(f"{session}/cut", json=body), 422, "scores_missing")
    assert_problem(client.post(f"{session}/scores", content=b"x"), 422, "score_state_mismatch")
    options = {"reduction": "mean", "validation_fraction": 0}
    stranger = score(digits.MODEL, part_of_bundle(0, 20), options)
    stream = io.BytesIO()
    np.savez(stream, format=np.int64(2), **stranger.arrays())  # type: ignore[arg-type]
    response = client.post(f"{session}/scores", content=stream.getvalue())
    assert_problem(response, 422, "score_state_mismatch")
    assert client.get(session).json()["pieces"] == []
    unknown = client.post("/v1/sessions", json={"model_id": "0" * 64})
    assert_problem(unknown, 404, "model_not_found")
    by_weight = {"model_id": ids["model_id"], "options": {"criterion": "magnitude_l2"}}
    assert_problem(client.post("/v1/sessions", json=by_weight), 422, "options_invalid")
