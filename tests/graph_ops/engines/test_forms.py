"""Forms that the forward part takes so that differentiating it costs less."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork
from graph_ops.channels import Dims
from graph_ops.engines.gates import spread_gates
from graph_ops.engines.reduction import values_by_name
from graph_ops.engines.standard import StandardEngine
from graph_ops.engines.swish import expand_swish, fuse_swish
from graph_ops.loss import TARGET_INPUT
from graph_ops.runtime import Session

CHANNELS = 16
EXCITED = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[N, 3, 9, 9] x) => (float[N, 5] y)
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  s = Sigmoid (a)
  b = Mul (%s)
  c = Conv <group = 16, strides = [2, 2], pads = [1, 1, 1, 1]> (b, w2)
  p = GlobalAveragePool (c)
  e = Conv (p, w3)
  f = Sigmoid (e)
  g = Mul (%s)
  h = Conv (g, w4)
  i = GlobalAveragePool (h)
  y = Flatten (i)
}
"""


def excited(swish: str = "a, s", gate: str = "f, c") -> bytes:
    """Convolution, swish, strided depthwise convolution, squeeze-and-excitation, convolution."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(EXCITED % (swish, gate))
    c = CHANNELS
    shapes = {"w1": (c, 3, 3, 3), "w2": (c, 1, 3, 3), "w3": (c, c, 1, 1), "w4": (5, c, 1, 1)}
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((6, 3, 9, 9)).astype(np.float32)
    return {"x": images, "labels": rng.integers(0, 5, 6)}


@pytest.mark.parametrize("swish", ["a, s", "s, a", "s, s"])
@pytest.mark.parametrize("gate", ["f, c", "c, f"])
@pytest.mark.parametrize("engine", ["standard", "ort-training"])
def test_scores_are_those_of_plain_activations_and_gradients(
    engine: str, swish: str, gate: str
) -> None:
    networks = [TaylorPrunableNetwork(excited(swish, gate), {"engine": engine}) for _ in range(2)]
    summed, plain = networks
    summed.update_score(batch())
    plain.update_score(*plain.forward_backward(batch()))
    found, expected = summed.scores(), plain.scores()
    for network in networks:
        network.close()
    assert np.nanmax(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.nanmax(expected))


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_swish_is_one_operator_only_while_it_is_differentiated() -> None:
    model = ir.from_proto(onnx.load_model_from_string(excited()))
    before = operators(model)
    fused = fuse_swish(model)
    assert operators(model) == [*before[:1], "Swish", *before[3:]]
    expand_swish(model, fused)
    assert operators(model) == before
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_the_slope_of_a_swish_is_computed_forward(tmp_path: Path) -> None:
    """Before the layers behind it are run, and not where backward asks for it."""
    network = TaylorPrunableNetwork(excited())
    network.update_score(batch())
    graph = network.scorer.graph
    assert graph is not None
    model = StandardEngine().build(graph).model
    (added,) = (u.node for u in values_by_name(model)["a"].uses() if u.node.op_type == "Add")
    (slope,) = (use.node for use in added.outputs[0].uses())
    assert str(slope.name).startswith("grad/Mul")
    session = Session(model, profile=tmp_path / "profile")
    session.run({"x": batch()["x"], TARGET_INPUT: batch()["labels"]})
    events = json.loads(session.end_profile().read_text())
    ran = [e["name"].removesuffix("_kernel_time") for e in events if e.get("cat") == "Node"]
    pooled = next(i for i, name in enumerate(ran) if "GlobalAveragePool" in name)
    assert ran.index(str(slope.name)) < pooled


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3])
def test_scores_at_a_swish_hold_for_small_and_large_activations(scale: float) -> None:
    feeds = {**batch(), "x": batch()["x"] * np.float32(scale)}
    summed, plain = (TaylorPrunableNetwork(excited(), {"engine": "standard"}) for _ in range(2))
    summed.update_score(feeds)
    plain.update_score(*plain.forward_backward(feeds))
    expected = plain.scores()
    np.testing.assert_allclose(
        summed.scores(), expected, rtol=1e-4, atol=1e-5 * np.nanmax(expected)
    )


def test_a_sigmoid_that_others_read_is_no_part_of_swish() -> None:
    model = ir.from_proto(onnx.load_model_from_string(excited(gate="s, s")))
    assert fuse_swish(model) == []


def test_a_factor_of_one_number_a_channel_is_written_out_in_the_layout() -> None:
    model = ir.from_proto(onnx.load_model_from_string(excited()))
    shapes: dict[str, Dims] = {"c": (None, CHANNELS, 5, 5), "f": (None, CHANNELS, 1, 1)}
    for value in (o for node in model.graph for o in node.outputs):
        value.type = ir.TensorType(ir.DataType.FLOAT)
    spread_gates(model, shapes)
    product = next(node for node in model.graph if node.outputs[0].name == "g")
    spread = product.inputs[0]
    assert spread is not None
    producer = spread.producer()
    assert producer is not None
    assert producer.op_type == "Resize"
    assert shapes[str(spread.name)] == shapes["c"]


def test_the_backward_graph_stays_in_the_layout() -> None:
    network = TaylorPrunableNetwork(excited())
    network.update_score(batch())
    graph = network.scorer.graph
    assert graph is not None
    written = set(operators(StandardEngine().build(graph).model))
    assert "Swish" not in written
    assert "ConvTranspose" not in written


@pytest.mark.parametrize(
    "factors",
    [
        ((), (None, CHANNELS, 4, 4)),
        ((None, 1, 4, 4), (None, CHANNELS, 4, 4)),
        ((None, 5), (None, 5)),
        ((None, CHANNELS, 1), (None, CHANNELS, 8)),
        ((None, CHANNELS, 1, 1), (None, CHANNELS, 4, None)),
        ((None, 5, 1, 1), (None, 5, 4, 4)),
        ((2, CHANNELS, 1, 1), (2, CHANNELS, 4, 4)),
        (None, (None, CHANNELS, 4, 4)),
    ],
)
def test_products_of_other_shapes_stay(factors: tuple[Dims | None, Dims | None]) -> None:
    head = '<ir_version: 9, opset_import: ["" : 17]> agraph (float a, float b) => (float y)'
    model = ir.from_proto(onnx.parser.parse_model(head + "{y = Mul (a, b)}"))
    shapes = {name: dims for name, dims in zip("ab", factors, strict=True) if dims is not None}
    before = dict(shapes)
    spread_gates(model, shapes)
    assert [node.op_type for node in model.graph] == ["Mul"]
    assert shapes == before
