"""Networks with constants in nodes: a cut that rewrites one moves it to an initializer."""

from __future__ import annotations

import io

import numpy as np

from graph_ops.pruning import prune
from graph_ops.recovery.walk import computing_nodes
from tests.support.cutting import model_of
from tests.support.recovering import random_inputs, recovered

SPLIT = """
    a = Conv<pads=[1,1,1,1]>(x, w1)
    r = Relu(a)
    sizes = Constant<value_ints=[6, 6]>()
    p, q = Split<axis=1>(r, sizes)
    b = Conv<pads=[1,1,1,1]>(p, w2)
    c = Conv<pads=[1,1,1,1]>(q, w3)
    k = Concat<axis=1>(b, c)
    z = Relu(k)
    e = Conv<pads=[1,1,1,1]>(z, w4)
    g = GlobalAveragePool(e)
    y = Flatten(g)
"""
WEIGHTS = "float[12,3,3,3] w1, float[8,6,3,3] w2, float[8,6,3,3] w3, float[5,16,3,3] w4"
SCALAR = """
    a = Conv<pads=[1,1,1,1]>(x, w1)
    n = Shape(a)
    zero = Constant<value_int=0>()
    count = Gather(n, zero)
    r = Relu(a)
    b = Conv<pads=[1,1,1,1]>(r, w2)
    t = Relu(b)
    axes = Constant<value_ints=[0]>()
    first = Unsqueeze(count, axes)
    rest = Constant<value_ints=[-1]>()
    shape = Concat<axis=0>(first, rest)
    f = Reshape(t, shape)
    y = Gemm<transB=1>(f, w3)
"""


def test_a_constant_that_is_rewritten_does_not_shift_the_layers() -> None:
    model = model_of(SPLIT, WEIGHTS)
    done = recovered(model, {"a": [1, 8], "b": [0, 3]}, samples=256, block_iterations=10)
    before, after = (m.graph for m in (done.classes.channels.model, done.model))
    assert len(list(before)) > len(list(after))
    pairs = zip(
        computing_nodes(done.classes.channels.model), computing_nodes(done.model), strict=True
    )
    assert all(a.outputs[0].name == b.outputs[0].name for a, b in pairs)
    plain, found = done.relative_errors(random_inputs(model, 100, seed=5))
    assert found < 0.9 * plain
    assert {layer.name for layer in done.recovery.layers} == {"b", "c", "e"}


def test_layers_of_such_a_network_are_measured() -> None:
    model = model_of(SPLIT, WEIGHTS)
    file = io.BytesIO()
    labels = np.random.default_rng(1).integers(0, 5, 256)
    np.savez(file, **random_inputs(model, 256), labels=labels)
    options = {"target": {"max_macs_ratio": 0.6}, "block_iterations": 2, "min_filters": 1}
    report = prune(model, file.getvalue(), options).report
    assert report["score"]["rank_by"] == "error_per_mac"
    assert report["cost"]["after"]["macs"] < 0.61 * report["cost"]["before"]["macs"]


def test_a_scalar_that_is_passed_on_stays_one() -> None:
    """It is among the values kept between layers, and Unsqueeze needs it as it is."""
    model = model_of(SCALAR, "float[8,3,3,3] w1, float[8,8,3,3] w2, float[5,288] w3")
    done = recovered(model, {"a": [1, 5]}, samples=64, block_iterations=3)
    assert done.recovery.method == "reconstruct"
    assert done.recovery.output_error_after is not None
    assert done.recovery.output_error_before is not None
    assert done.recovery.output_error_after < done.recovery.output_error_before
