"""The proof of a network that carries rounding to its end, and what float64 makes of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graph_ops.result
from graph_ops.errors import ProofError
from graph_ops.pruning import prune

PAIRS = 32
GAIN = 1e6
STEPS = 50
OPTIONS = {
    "target": {"filters": 8},
    "criterion": "magnitude_l2",
    "recovery": "none",
    "include": ["conv0"],
}


def cancelling() -> bytes:
    """The second convolution adds and takes away the same large numbers, in pairs of equal filters.

    What is left at the end is small beside the rounding of the sums on the way.
    """
    rng = np.random.default_rng(0)
    half = rng.standard_normal((PAIRS, 3, 3, 3)).astype(np.float32)
    odd = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    weight = rng.standard_normal((4, PAIRS, 3, 3)).astype(np.float32) * GAIN
    small = rng.standard_normal((4, 8, 3, 3)).astype(np.float32)
    tensors = {
        "w0": np.concatenate([half, odd, half]),
        "w1": np.concatenate([weight, small, -weight], axis=1),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], "conv0"),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], "conv1"),
        helper.make_node("GlobalAveragePool", ["c1"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cancelling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def chaotic() -> bytes:
    """The logistic map y → 4·y·(1 − y), fifty times: each time a difference about doubles."""
    model = onnx.load_from_string(cancelling())
    del model.graph.node[2:], model.graph.initializer[1]
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((2 * PAIRS + 8, 4)).astype(np.float32)
    tensors = {"w1": weight, "one": np.float32(1), "four": np.float32(4)}
    nodes = [
        helper.make_node("GlobalAveragePool", ["r0"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w1"], ["sum"], "classify"),
        helper.make_node("Sigmoid", ["sum"], ["y0"]),
    ]
    for i in range(STEPS):
        nodes += [
            helper.make_node("Sub", ["one", f"y{i}"], [f"n{i}"]),
            helper.make_node("Mul", [f"y{i}", f"n{i}"], [f"p{i}"]),
            helper.make_node("Mul", [f"p{i}", "four"], [f"y{i + 1}"]),
        ]
    nodes.append(helper.make_node("Identity", [f"y{STEPS}"], ["logits"]))
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in tensors.items())
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def bundle() -> bytes:
    rng = np.random.default_rng(2)
    stream = io.BytesIO()
    images = rng.standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.savez(stream, image=images, labels=rng.integers(0, 4, 8))
    return stream.getvalue()


def test_rounding_does_not_count_as_an_error_of_the_surgery() -> None:
    proof = prune(cancelling(), bundle(), OPTIONS).report["proof"]
    assert proof["compared"] == "outputs"
    assert proof["precision"] == "float64"
    assert proof["float32_rel_diff"] > 1e-4
    assert proof["max_rel_diff"] <= proof["tolerance"] == 1e-6
    assert proof["samples"] == 1


def test_where_rounding_in_float64_carries_as_far_every_node_is_compared() -> None:
    proof = prune(chaotic(), bundle(), OPTIONS).report["proof"]
    assert proof["compared"] == "nodes"
    assert proof["float32_rel_diff"] > 1e-4
    assert proof["float64_rel_diff"] > 1e-6
    assert 0 < proof["max_rel_diff"] < 1e-12


@pytest.mark.parametrize("name", ["w0", "w1", "four"])
def test_a_node_that_does_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write = graph_ops.result.model_bytes

    def write_wrongly(*arguments: Any) -> bytes:
        model = onnx.load_from_string(write(*arguments))
        weight = next(t for t in model.graph.initializer if t.name == name)
        array = numpy_helper.to_array(weight).copy()
        array.reshape(-1)[0] *= 1.001
        weight.raw_data = array.tobytes()
        return model.SerializeToString()

    monkeypatch.setattr(graph_ops.result, "model_bytes", write_wrongly)
    with pytest.raises(ProofError, match="nodes") as caught:
        prune(chaotic(), bundle(), OPTIONS)
    assert caught.value.details["compared"] == "nodes"
