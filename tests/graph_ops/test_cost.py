"""Parameters are those that convolutions and Gemm/MatMul read, in whatever form they are stored."""

from __future__ import annotations

import io

import numpy as np
import pytest

from graph_ops import prune
from graph_ops.inspection import inspect_model
from tests.support import digits
from tests.support.cutting import model_of
from tests.support.precision import quantised

CONV = "y = Conv<pads=[1,1,1,1]>(x, w, b)"
WEIGHTS = "float[8,3,3,3] w, float[8] b"


@pytest.mark.parametrize(
    ("body", "weights", "more"),
    [
        (CONV, WEIGHTS, 0),
        (f"s = Shape(w) k = ReduceProd<keepdims=0>(s) {CONV}", WEIGHTS, 0),
        ("v = Mul(w, g) y = Conv<pads=[1,1,1,1]>(x, v, b)", f"{WEIGHTS}, float[8,1,1,1] g", 8),
        ("v = Transpose<perm=[1,0,2,3]>(w) y = Conv(x, v, b)", "float[3,8,3,3] w, float[8] b", 0),
    ],
    ids=["read once", "its shape is read before", "scaled", "transposed"],
)
def test_a_weight_counts_whoever_else_reads_it(body: str, weights: str, more: int) -> None:
    assert inspect_model(model_of(body, weights))["parameters"] == 8 * 3 * 3 * 3 + 8 + more


def test_a_quantised_model_has_the_weights_of_the_float_model() -> None:
    model = digits.MODEL.read_bytes()
    found = inspect_model(quantised(model))["parameters"]
    biases = 20 + 20 + 20 + 10
    assert inspect_model(model)["parameters"] - found in (0, biases)


def test_a_share_of_the_parameters_is_a_share_of_computed_ones() -> None:
    body = """
        s = Shape(w)
        k = ReduceProd<keepdims=0>(s)
        a = Conv<pads=[1,1,1,1]>(x, w)
        r = Relu(a)
        v = Mul(u, g)
        c = Conv<pads=[1,1,1,1]>(r, v)
        t = Relu(c)
        p = GlobalAveragePool(t)
        f = Flatten(p)
        y = Gemm<transB=1>(f, q)
    """
    weights = "float[16,3,3,3] w, float[16,16,3,3] u, float[16,1,1,1] g, float[5,16] q"
    rng = np.random.default_rng(0)
    bundle = {"x": rng.standard_normal((16, 3, 6, 6)).astype(np.float32)}
    options = {"target": {"max_params_ratio": 0.5}, "recovery": "none", "min_filters": 1}
    cost = prune(model_of(body, weights), saved(bundle), options).report["cost"]
    before, after = (cost[side]["parameters"] for side in ("before", "after"))
    assert before == 16 * 27 + 16 * 144 + 16 + 5 * 16
    assert 0.4 * before < after <= 0.5 * before


def saved(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
