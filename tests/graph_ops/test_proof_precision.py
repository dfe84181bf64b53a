"""The proof of a network that carries rounding to its end, and what float64 makes of it."""

from __future__ import annotations

import io

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graph_ops.pruning import prune

PAIRS = 32
GAIN = 1e6


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


def test_rounding_does_not_count_as_an_error_of_the_surgery() -> None:
    rng = np.random.default_rng(2)
    stream = io.BytesIO()
    np.savez(
        stream,
        image=rng.standard_normal((8, 3, 8, 8)).astype(np.float32),
        labels=rng.integers(0, 4, 8),
    )
    options = {
        "target": {"filters": 8},
        "criterion": "magnitude_l2",
        "recovery": "none",
        "exclude": ["conv1"],
    }
    proof = prune(cancelling(), stream.getvalue(), options).report["proof"]
    assert proof["precision"] == "float64"
    assert proof["float32_rel_diff"] > 1e-4
    assert proof["max_rel_diff"] <= proof["tolerance"] == 1e-6
    assert proof["samples"] == 1
