"""Checks a gradient rule against central finite differences along a random direction.

A spec is a few nodes in ONNX text. The harness makes the model's scoring copy, appends a loss that
is a fixed random combination of the outputs of each sample, lets `append_backward` write the
gradients, runs everything in ONNX Runtime and compares <g, d> of every sample with
(loss(x + h·d) − loss(x − h·d)) / 2h. Samples are independent, so a rule that mixes them fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from graph_ops.canonical import scoring_copy
from graph_ops.channels import Dims
from graph_ops.engines.backward import append_backward
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import GradientError
from graph_ops.rules import GRADIENTS

LOSS = "harness_loss"
FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


@dataclass(frozen=True)
class GradientSpec:
    """One gradient to check.

    Attributes:
        name: Name of the case.
        nodes: Body of the graph in ONNX text, such as "y = Relu(x)".
        inputs: Full shape of each float32 input (axis 0 is the batch); each is differentiated.
        weights: Stored tensors, as arrays (kept as they are) or as shapes (drawn at random from
            `weight_range`, float32).
        outputs: Outputs that enter the loss; axis 0 of each is the batch.
        opset: Opset the text is written in; older than 18 goes through the version converter.
        input_range: Every input is drawn from here, so that kinks and poles can be kept away.
        ranges: Range of single inputs by name, where they differ.
        is_distinct: Inputs take evenly spaced values of the range in random order, each at most
            once: no ties within a distance of (high − low) / size.
        reference: "float64" evaluates the forward pass in double precision with ONNX's reference
            implementation, "ort" in float32 with ONNX Runtime (for operators the reference gets
            wrong; exact for piecewise linear ones at any step).
        step: Length h of the step along a direction with entries in [-1, 1]; None takes 1e-5 for
            "float64" and 0.25 times the least distance of distinct values, or 0.5, for "ort".
        tolerance: Largest difference relative to Σ|g·d| of the sample.
        wanted: Values whose gradient is checked; every input when empty.
        expected_operators: Operators the backward pass must contain.
        expects_zero: Whether every gradient is known to vanish; otherwise all-zero is a failure.
    """

    name: str
    nodes: str
    inputs: Mapping[str, Sequence[int]]
    weights: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    opset: int = 18
    input_range: tuple[float, float] = (-1.0, 1.0)
    weight_range: tuple[float, float] = (-1.0, 1.0)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    is_distinct: bool = False
    reference: Literal["float64", "ort"] = "float64"
    step: float | None = None
    tolerance: float = 1e-4
    wanted: Sequence[str] = ()
    expected_operators: Sequence[str] = ()
    expects_zero: bool = False

    def __str__(self) -> str:
        return self.name


def check_gradient(spec: GradientSpec) -> None:
    """Assert that the backward graph of a spec agrees with finite differences."""
    random = np.random.default_rng(abs(hash_name(spec.name)))
    model = build_model(spec, random)
    forward, backward = with_loss_and_gradients(spec, model, random)
    feeds = {name: draw(spec, name, shape, random) for name, shape in spec.inputs.items()}
    wanted = list(spec.wanted or spec.inputs)
    session = open_session(backward)
    loss, *gradients = session.run([LOSS, *(gradient_name(w) for w in wanted)], feeds)
    evaluate = _evaluator(spec, forward)
    np.testing.assert_allclose(
        evaluate(feeds), loss, rtol=1e-3, atol=1e-3, err_msg="the reference disagrees about x"
    )
    step = spec.step if spec.step is not None else _default_step(spec)
    for name, gradient in zip(wanted, gradients, strict=True):
        assert gradient.shape == tuple(spec.inputs[name]), f"shape of the gradient of {name}"
        assert np.isfinite(gradient).all(), f"the gradient of {name} is not finite"
        assert gradient.any() != spec.expects_zero, f"the gradient of {name} is all zero, or is not"
        for _ in range(2):
            direction = random.uniform(-1, 1, gradient.shape)
            ahead = evaluate({**feeds, name: feeds[name] + step * direction})
            behind = evaluate({**feeds, name: feeds[name] - step * direction})
            measured = (ahead - behind) / (2 * step)
            products = (gradient.astype(np.float64) * direction).reshape(len(loss), -1)
            scale = np.abs(products).sum(axis=1) + 1e-6
            error = np.abs(products.sum(axis=1) - measured) / scale
            assert (error < spec.tolerance).all(), (
                f"{spec.name}: gradient of {name} is off by {error.max():.2e}: "
                f"{products.sum(axis=1)} instead of {measured}"
            )


def check_refusal(spec: GradientSpec) -> None:
    """Assert that the rule of a spec's only node says that it does not apply."""
    copy = scoring_copy(build_model(spec), {n: tuple(s[1:]) for n, s in spec.inputs.items()})
    node = next(iter(copy.model.graph))
    opset = copy.model.graph.opset_imports[""]
    wanted: list[ir.Value] = [*copy.model.graph.inputs, *node.outputs]
    tape = BackwardTape(copy.model.graph, copy.shapes, frozenset(wanted), opset)
    rule = GRADIENTS.find(node.domain, node.op_type, opset)
    assert rule is not None
    with pytest.raises(GradientError) as caught:
        rule(node, [node.outputs[0]], tape)
    assert caught.value.details["op_type"] == node.op_type


def hash_name(name: str) -> int:
    """A number that is the same in every process."""
    return int.from_bytes(name.encode()[-8:].rjust(8, b"\0"), "big")


def build_model(spec: GradientSpec, random: np.random.Generator | None = None) -> ir.Model:
    """The forward model of a spec, at the spec's opset and with a symbolic batch axis."""
    random = random or np.random.default_rng(0)
    inputs = ", ".join(
        f"float[{', '.join(['N', *(str(d) for d in shape[1:])])}] {name}"
        for name, shape in spec.inputs.items()
    )
    outputs = ", ".join(f"float {name}" for name in spec.outputs)
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {spec.opset}]>\n'
        f"spec ({inputs}) => ({outputs}) {{ {spec.nodes} }}"
    )
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, weight in spec.weights.items():
        array = weight
        if not isinstance(weight, np.ndarray):
            array = random.uniform(*spec.weight_range, tuple(weight)).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return ir.from_proto(proto)


def with_loss_and_gradients(
    spec: GradientSpec, model: ir.Model, random: np.random.Generator
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The scoring copy with a loss [N], without and with its backward graph."""
    copy = scoring_copy(model, {n: tuple(s[1:]) for n, s in spec.inputs.items()})
    graph = copy.model.graph
    loss = append_harness_loss(graph, copy.shapes, random)
    forward = ir.to_proto(copy.model)
    by_name = {str(v.name): v for v in graph.inputs}
    by_name |= {str(o.name): o for node in graph for o in node.outputs}
    wanted = [by_name[name] for name in spec.wanted or spec.inputs]
    before = len(graph)
    _, gradients = append_backward(copy.model, copy.shapes, loss, wanted)
    written = {node.op_type for node in list(graph)[before:]}
    assert written >= set(spec.expected_operators), f"backward operators are {sorted(written)}"
    for value in wanted:
        assert value in gradients, f"no gradient for {value.name}"
        named = _append(graph, "Identity", gradients[value], dtype=value.dtype)
        named.name = gradient_name(str(value.name))
        named.shape = value.shape
        graph.outputs.append(named)
    backward = ir.to_proto(copy.model)
    onnx.checker.check_model(backward, full_check=True)
    return forward, backward


def append_harness_loss(
    graph: ir.Graph, shapes: dict[str, Dims], random: np.random.Generator
) -> ir.Value:
    """Append the loss `LOSS` [N]: a fixed random combination of the outputs of each sample."""
    losses = [_append_loss(graph, shapes, output, random) for output in list(graph.outputs)]
    loss = losses[0]
    for other in losses[1:]:
        loss = _append(graph, "Add", loss, other)
    loss.name = LOSS
    loss.shape = ir.Shape(["N"])
    graph.outputs.append(loss)
    shapes[LOSS] = (None,)
    return loss


def _append_loss(
    graph: ir.Graph, shapes: dict[str, Dims], output: ir.Value, random: np.random.Generator
) -> ir.Value:
    dims = shapes.get(str(output.name))
    assert dims is not None, f"the shape of {output.name} is not known"
    shape = (1, *(d for d in dims[1:] if d is not None))
    assert len(shape) == len(dims), f"the shape of {output.name} is {dims}"
    weights = random.uniform(0.5, 1.5, shape) * random.choice([-1, 1], shape)
    factor = _store(graph, f"harness_weights_{output.name}", weights.astype(np.float32))
    product = _append(graph, "Mul", output, factor)
    shapes[str(product.name)] = dims
    if len(dims) == 1:
        return product
    axes = _store(graph, f"harness_axes_{output.name}", np.arange(1, len(dims), dtype=np.int64))
    loss = _append(graph, "ReduceSum", product, axes, keepdims=0)
    shapes[str(loss.name)] = (None,)
    return loss


def _append(
    graph: ir.Graph,
    op_type: str,
    *inputs: ir.Value,
    dtype: ir.DataType | None = ir.DataType.FLOAT,
    **attributes: Any,
) -> ir.Value:
    node = ir.node(op_type, list(inputs), attributes=attributes or None)
    node.outputs[0].name = f"harness_{op_type}_{len(graph)}"
    node.outputs[0].type = ir.TensorType(dtype or ir.DataType.FLOAT)
    graph.append(node)
    return node.outputs[0]


def _store(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.initializers.add(value)
    return value


def gradient_name(name: str) -> str:
    """Output that holds the gradient of a value."""
    return f"harness_gradient_of_{name}"


def draw(
    spec: GradientSpec, name: str, shape: Sequence[int], random: np.random.Generator
) -> NDArray[np.float32]:
    """What a spec's input is fed with."""
    low, high = spec.ranges.get(name, spec.input_range)
    if not spec.is_distinct:
        return random.uniform(low, high, tuple(shape)).astype(np.float32)
    size = int(np.prod(shape))
    return random.permutation(np.linspace(low, high, size)).reshape(shape).astype(np.float32)


def _default_step(spec: GradientSpec) -> float:
    if spec.reference == "float64":
        return 1e-5
    if not spec.is_distinct:
        return 0.5
    low, high = spec.input_range
    return 0.25 * (high - low) / max(int(np.prod(s)) for s in spec.inputs.values())


def _evaluator(spec: GradientSpec, forward: onnx.ModelProto) -> Any:
    """A function from feeds to the loss of each sample, in float64."""
    if spec.reference == "float64":
        reference = ReferenceEvaluator(as_double(forward))

        def evaluate(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            doubles = {n: np.asarray(a, dtype=np.float64) for n, a in feeds.items()}
            (loss,) = reference.run([LOSS], doubles)
            return np.asarray(loss, dtype=np.float64)
    else:
        session = open_session(forward)

        def evaluate(feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
            floats = {n: np.asarray(a, dtype=np.float32) for n, a in feeds.items()}
            return np.asarray(session.run([LOSS], floats)[0], dtype=np.float64)

    return evaluate


def as_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 tensor, input, output and cast made float64."""
    double = onnx.ModelProto()
    double.CopyFrom(model)
    graph = double.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _double_tensor(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == FLOAT:
                attribute.i = DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR:
                _double_tensor(attribute.t)
    return double


def _double_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A single-threaded ONNX Runtime session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
