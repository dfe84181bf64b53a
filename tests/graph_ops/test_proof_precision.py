"""The proof of a network that carries rounding to its end, and what float64 makes of it."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph_ops.analysis import analyse
from graph_ops.canonical import bind_shapes
from graph_ops.equivalence import TOLERANCE, Proof, prove
from graph_ops.errors import ProofError
from graph_ops.graph import stored_value
from graph_ops.model import load_model
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


DOUBLINGS = 35


def chaotic() -> bytes:
    """The logistic map y → 4·y·(1 − y) doubles differences, here so often that float64 shows it."""
    rng = np.random.default_rng(0)
    tensors = {
        "w0": rng.standard_normal((70, 3, 3, 3)).astype(np.float32),
        "axes": np.asarray([1, 2, 3]),
        "share": np.asarray(0.05, np.float32),
        "one": np.asarray(1, np.float32),
        "four": np.asarray(4, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["c0"], "conv0"),
        helper.make_node("ReduceSum", ["c0", "axes"], ["sum"]),
        helper.make_node("Mul", ["sum", "share"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["y0"]),
    ]
    for n in range(DOUBLINGS):
        nodes += [
            helper.make_node("Sub", ["one", f"y{n}"], [f"rest{n}"]),
            helper.make_node("Mul", [f"y{n}", f"rest{n}"], [f"part{n}"]),
            helper.make_node("Mul", ["four", f"part{n}"], [f"y{n + 1}"]),
        ]
    graph = helper.make_graph(
        nodes,
        "chaotic",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 3, 3])],
        [helper.make_tensor_value_info(f"y{DOUBLINGS}", TensorProto.FLOAT, ["batch", 1, 1, 1])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def proof_of(change: Callable[[np.ndarray], np.ndarray]) -> Proof:
    """The proof of the same network with other filters in its convolution."""
    model = load_model(chaotic()).model
    classes = analyse(model, bind_shapes(model, {"image": (3, 3, 3)}))
    other = model.clone()
    array = numpy_helper.to_array(onnx.load_model_from_string(chaotic()).graph.initializer[0])
    changed = stored_value("changed", np.ascontiguousarray(change(array)))
    other.graph.initializers.add(changed)
    next(iter(other.graph)).replace_input_with(1, changed)
    images = np.random.default_rng(3).standard_normal((1, 3, 3, 3)).astype(np.float32)
    nothing = np.zeros(classes.count, dtype=np.bool_)
    return prove(classes, nothing, other, [({"image": images}, 1)])


def test_rounding_that_float64_carries_too_far_is_measured_on_the_original() -> None:
    order = np.random.default_rng(0).permutation(70)
    proof = proof_of(lambda filters: filters[order])  # the same sum in another order
    assert proof.precision == "float64"
    assert 1e-6 < proof.max_rel_diff <= proof.tolerance <= TOLERANCE


def test_an_error_is_none_of_that_rounding() -> None:
    with pytest.raises(ProofError, match="float64"):
        proof_of(lambda filters: filters * np.float32(1 + 2**-20))
