"""The whole way with the real library: the digits network, over HTTP."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest

from graph_ops.report_page import CONTENT_SECURITY_POLICY, render_report
from tests.support.problems import assert_problem
from tests.support.server import REPOSITORY, Server, running_server

MODEL = REPOSITORY / "examples" / "digits" / "digits.onnx"
BUNDLE = REPOSITORY / "examples" / "digits" / "calibration.npz"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As operators have it: with all threads, where other tests have one."""
    settings = {"max_unpack_ratio": 100, "ort_threads": 0}
    with running_server(tmp_path_factory.mktemp("real"), **settings) as server:
        yield server


def prune(server: Server, model: bytes, bundle: bytes, options: str = "{}") -> httpx.Response:
    return server.client.post(
        "/v1/prune",
        files={"model": ("digits.onnx", model), "bundle": ("cal.npz", bundle)},
        data={"options": options},
    )


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def test_curl_prunes_the_digits_network(real: Server, tmp_path: Path) -> None:
    output = tmp_path / "pruned.onnx"
    subprocess.run(
        [
            *("curl", "-sSf", "-F", f"model=@{MODEL}", "-F", f"bundle=@{BUNDLE}"),
            *("-F", 'options={"target":{"filters":8}}', f"{real.url}/v1/prune", "-o", output),
        ],
        check=True,
        timeout=120,
    )
    onnx.checker.check_model(onnx.load(output), full_check=True)
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    images = np.load(BUNDLE)["image"][:5]
    (scores,) = session.run(None, {session.get_inputs()[0].name: images})
    assert scores.shape == (5, 10)
    job = real.client.get("/v1/jobs?limit=1").json()["items"][0]
    report = real.client.get(job["links"]["report"]).json()
    assert report["filters"]["before"] - report["filters"]["after"] == 8
    assert report["model"]["sha256"] == job["model_id"]
    assert report["proof"]["max_rel_diff"] <= 1e-4
    assert zipfile.is_zipfile(io.BytesIO(real.client.get(job["links"]["scores"]).content))


def test_the_report_is_a_page_that_may_only_run_its_own_script(real: Server) -> None:
    reply = prune(real, MODEL.read_bytes(), BUNDLE.read_bytes(), '{"max_samples": 100}')
    job = real.client.get(reply.headers["content-location"].removesuffix("/model")).json()
    page = real.client.get(job["links"]["report_html"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == render_report(real.client.get(job["links"]["report"]).json(), "digits.onnx")
    policy = page.headers["content-security-policy"]
    assert policy.startswith(CONTENT_SECURITY_POLICY)
    assert "default-src 'none'" in policy
    again = {"if-none-match": page.headers["etag"]}
    assert real.client.get(job["links"]["report_html"], headers=again).status_code == 304
    head = real.client.head(job["links"]["report_html"])
    assert (head.headers["content-length"], head.content) == (page.headers["content-length"], b"")


def test_the_same_request_gives_the_same_bytes(real: Server) -> None:
    replies = [prune(real, MODEL.read_bytes(), BUNDLE.read_bytes()) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].headers["etag"] == replies[1].headers["etag"]
    assert replies[0].headers["content-location"] != replies[1].headers["content-location"]


def test_what_is_known_of_a_model(real: Server) -> None:
    added = real.client.post("/v1/models", files={"file": ("digits.onnx", MODEL.read_bytes())})
    model = added.json()["model"]
    assert model["filters"] == 60
    assert model["prunable_filters"] == 48
    channels = real.client.get(f"{added.headers['location']}/channels").json()
    assert sum(block["classes"] for block in channels["blocks"]) == 60


def test_what_is_known_of_a_bundle(real: Server) -> None:
    added = real.client.post("/v1/bundles", content=BUNDLE.read_bytes())
    arrays = {array["name"]: array for array in added.json()["arrays"]}
    assert arrays["image"] == {"name": "image", "dtype": "float32", "shape": [1000, 1, 28, 28]}


def test_a_dry_run_with_curl_says_what_a_job_would_come_to(real: Server) -> None:
    ids = {
        f"{kind}_id": real.client.post(f"/v1/{kind}s", content=path.read_bytes()).json()["id"]
        for kind, path in (("model", MODEL), ("bundle", BUNDLE))
    }
    body = json.dumps({**ids, "options": {"target": {"max_macs_ratio": 0.6}, "steps": 3}})
    done = subprocess.run(
        [
            *("curl", "-sSf", "-H", "Content-Type: application/json", "-d", body),
            f"{real.url}/v1/jobs?dry_run=true",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["rounds"] == 3
    assert found["before"]["macs"] == 4_550_400
    assert 0.5 < found["after"]["macs"] / found["before"]["macs"] <= 0.6


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"not a model at all", 422, "model_not_onnx"),
        (MODEL.read_bytes()[:-1000], 422, "model_truncated"),
        (BUNDLE.read_bytes(), 422, "model_archive"),
    ],
)
def test_unusable_models_are_refused(real: Server, content: bytes, status: int, code: str) -> None:
    assert_problem(real.client.post("/v1/models", content=content), status, code)
    assert_problem(prune(real, content, BUNDLE.read_bytes()), status, code)


IMAGES = np.zeros((20, 1, 28, 28), np.float32)
LABELS = np.arange(20) % 10


@pytest.mark.parametrize(
    ("bundle", "status", "code"),
    [
        (b"not a bundle at all", 422, "bundle_format"),
        (npz(labels=LABELS), 422, "bundle_missing_input"),
        (npz(image=IMAGES[:, :, :9], labels=LABELS), 422, "bundle_shape"),
        (npz(image=IMAGES, labels=LABELS[:9]), 422, "bundle_length"),
        (npz(image=IMAGES, labels=LABELS + 9), 422, "bundle_label_range"),
        (npz(image=IMAGES + np.float32("nan"), labels=LABELS), 422, "bundle_not_finite"),
        (npz(image=np.zeros((9000, 1, 28, 28), np.float32)), 413, "bundle_too_large"),
    ],
)
def test_unusable_bundles_are_refused(real: Server, bundle: bytes, status: int, code: str) -> None:
    assert_problem(prune(real, MODEL.read_bytes(), bundle), status, code)


def test_an_unreachable_target_says_how_far_it_could_go(real: Server) -> None:
    options = '{"target": {"filter_ratio": 0.01}}'
    response = prune(real, MODEL.read_bytes(), BUNDLE.read_bytes(), options)
    problem = assert_problem(response, 422, "target_unreachable")
    assert set(problem) > {"job_id", "detail"}
