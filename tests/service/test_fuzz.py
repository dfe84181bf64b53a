"""Random bytes, mutated models and mutated bundles: always an answer, never a dead server."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.cutting import model_of
from tests.support.server import Server, running_server

MODEL = model_of(
    "[conv1] a = Conv <pads = [1,1,1,1]> (x, w1)\nr = Relu(a)\n[conv2] b = Conv (r, w2)\n"
    "p = GlobalAveragePool(b)\ny = Flatten(p)",
    "float[8,3,3,3] w1, float[5,8,1,1] w2",
)
OPTIONS = '{"target": {"filters": 2}, "validation_fraction": 0, "recovery": "none"}'
PROFILE = settings(
    max_examples=10,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
NATIVE = {"job_crashed", "job_out_of_memory", "job_timeout"}
"""Ends of a child process that a mutated model may bring about; the server outlives them."""


def make_bundle() -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    images = rng.standard_normal((8, 3, 6, 6)).astype(np.float32)
    np.savez(file, x=images, labels=rng.integers(0, 5, 8))
    return file.getvalue()


BUNDLE = make_bundle()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("fuzz"), job_timeout_s=30) as running:
        yield running


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """The bytes with a few of them changed, cut out, doubled, or cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["flip", "delete", "double", "truncate", "random"])):
            case "flip":
                data[position : position + 1] = bytes([data[position] ^ draw(st.integers(1, 255))])
            case "delete":
                del data[position : position + length]
            case "double":
                data[position:position] = data[position : position + length]
            case "truncate":
                del data[max(1, position) :]
            case "random":
                data[position : position + length] = draw(st.binary(min_size=length))
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def assert_answered(server: Server, model: bytes, bundle: bytes) -> None:
    response: httpx.Response = server.client.post(
        "/v1/prune",
        files={"model": ("m.onnx", model), "bundle": ("b.npz", bundle)},
        data={"options": OPTIONS},
    )
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["detail"]
        assert response.status_code < 500 or problem["code"] in NATIVE, problem
    assert server.client.get("/healthz").status_code == 200


def test_the_original_is_pruned(server: Server) -> None:
    response = server.client.post(
        "/v1/prune",
        files={"model": ("m.onnx", MODEL), "bundle": ("b.npz", BUNDLE)},
        data={"options": OPTIONS},
    )
    assert response.status_code == 200, response.text


@given(data=st.binary(min_size=1, max_size=400))
@PROFILE
def test_random_bytes_as_a_model(server: Server, data: bytes) -> None:
    assert_answered(server, data, BUNDLE)


@given(data=st.binary(min_size=1, max_size=400))
@PROFILE
def test_random_bytes_as_a_bundle(server: Server, data: bytes) -> None:
    assert_answered(server, MODEL, data)


@given(model=mutations(MODEL))
@PROFILE
def test_mutated_models(server: Server, model: bytes) -> None:
    assert_answered(server, model, BUNDLE)


@given(bundle=mutations(BUNDLE))
@PROFILE
def test_mutated_bundles(server: Server, bundle: bytes) -> None:
    assert_answered(server, MODEL, bundle)
