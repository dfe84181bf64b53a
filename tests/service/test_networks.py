"""The nine networks of the `onnx` wheel, over HTTP: smaller by 30 % of the MACs, and proven."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.support.models import each_network, light_input, light_network
from tests.support.server import Server, running_server

UNSHRINKABLE = ("LRN", "Softmax", "graph output")
OPTIONS = '{"target": {"max_macs_ratio": 0.7}, "validation_fraction": 0.25, "recovery": "none"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("networks")) as running:
        yield running


def bundle(name: str, samples: int = 4) -> bytes:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((samples, 3, 224, 224)).astype(np.float32)
    file = io.BytesIO()
    np.savez(file, **{light_input(name): images}, labels=rng.integers(0, 1000, samples))  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("name", each_network())
def test_a_network_is_pruned_and_proven_over_http(server: Server, name: str) -> None:
    model = light_network(name, shrink=16)
    response = server.client.post(
        "/v1/prune",
        files={"model": (f"{name}.onnx", model), "bundle": ("cal.npz", bundle(name))},
        data={"options": OPTIONS},
        timeout=httpx.Timeout(500),
    )
    assert response.status_code == 200, response.text
    location = response.headers["content-location"].removesuffix("/model")
    report = server.client.get(f"{location}/report").json()

    before, after = report["cost"]["before"]["macs"], report["cost"]["after"]["macs"]
    assert 0.6 * before <= after <= 0.7 * before
    assert report["proof"]["max_rel_diff"] <= 1e-4
    for entry in report["convolutions"]:
        if entry["frozen"] is not None:
            assert any(word in entry["frozen"] for word in UNSHRINKABLE), entry
    shrunk = [e for e in report["convolutions"] if e["filters_after"] < e["filters_before"]]
    assert len(shrunk) >= 0.6 * len(report["convolutions"])

    onnx.checker.check_model(onnx.load(io.BytesIO(response.content)), full_check=True)
    session = onnxruntime.InferenceSession(response.content, providers=["CPUExecutionProvider"])
    image = np.zeros((1, 3, 224, 224), np.float32)
    (scores,) = session.run(None, {light_input(name): image})
    assert scores.reshape(1, -1).shape == (1, 1000)
    assert np.isfinite(scores).all()
