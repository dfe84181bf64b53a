"""Shapes and shape arithmetic by evaluation: what inference with a symbolic batch leaves open.

Exporters compute shapes at run time (Shape, Gather, Mul, Concat, Reshape), and a symbolic batch
merged with another axis has no name. So every open axis of the inputs is given a length, twice,
with different lengths. In each case the graph is walked once: ONNX's own rule infers a node's
output shape from numbers that are now known, and a node of which every input is a known small
tensor is evaluated by ONNX's reference implementation. What comes out the same both times depends
on no open axis: it is a fact of the model. Nothing but shapes and small numbers is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channels import Dims
from graph_ops.errors import ModelError
from graph_ops.graph import (
    constant_array,
    constant_dims,
    graph_inputs,
    int_of,
    is_root_constant,
    normalized_axis,
)
from graph_ops.model import infer_shapes

Numbers = NDArray[Any]

BATCH_LENGTHS = (2, 3)
OTHER_LENGTHS = (224, 256)
"""Two lengths for the open axes of the inputs; batches are small, images divide by 32."""
MAX_INTEGERS = 1 << 16
MAX_FLOATS = 64
"""Elements of the largest tensors that count as shape arithmetic (positions, scales)."""
_SHAPE_READERS = frozenset({"Shape", "Size"})
_KEEPS_SHAPE = frozenset({"GroupNormalization"})
"""Operators that ONNX infers no shape for, though their result has that of the first input."""
_NEVER_EVALUATED = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
)


@dataclass
class Evaluation:
    """What is known of a model whose inputs have static shapes.

    Attributes:
        dims: Shape of values by name.
        numbers: Small tensors that depend on nothing but shapes and stored numbers, by name.
        types: Element types by name.
    """

    dims: dict[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Refined:
    """What does not depend on the open axes of a model's inputs.

    Attributes:
        dims: Shape of values by name, None for what depends on an open axis.
        numbers: Computed numbers by name.
        types: Element types by name.
        in_order: What a Gather takes from a list, all of it, as it stands there.
    """

    dims: dict[str, Dims]
    numbers: dict[str, Numbers]
    types: dict[str, int]
    in_order: frozenset[str] = frozenset()


def refine(model: ir.Model, dims: Mapping[str, Dims]) -> Refined:
    """Shapes and numbers that do not depend on the open axes of the inputs.

    Args:
        model: A model whose shapes were inferred; it is not changed.
        dims: What inference found, None for symbolic dimensions.
    """
    if not _is_worth_it(model, dims):
        return Refined(dict(dims), {}, {})
    first, second = (evaluate(_closed(model, case)) for case in (0, 1))
    found: dict[str, Dims] = dict(dims)
    for name, a in first.dims.items():
        b = second.dims.get(name)
        if b is not None and len(a) == len(b):
            found[name] = tuple(x if x == y else None for x, y in zip(a, b, strict=True))
    numbers = {
        name: array
        for name, array in first.numbers.items()
        if (other := second.numbers.get(name)) is not None and np.array_equal(array, other)
    }
    in_order = _read_in_order(model, first) & _read_in_order(model, second)
    return Refined(found, numbers, first.types, frozenset(in_order))


def _read_in_order(model: ir.Model, found: Evaluation) -> set[str]:
    """Outputs of Gathers that give a list (of numbers not known) another shape and nothing more."""
    outputs = set()
    for node in model.graph:
        if node.op_type != "Gather" or node.domain not in ("", "ai.onnx"):
            continue
        data, indices = (str(v.name) for v in node.inputs if v is not None)
        order = found.numbers.get(indices)
        if order is None or found.dims.get(data) != (order.size,):
            continue
        if np.array_equal(order.reshape(-1), np.arange(order.size)):
            outputs.add(str(node.outputs[0].name))
    return outputs


def _is_worth_it(model: ir.Model, dims: Mapping[str, Dims]) -> bool:
    """Whether the model computes with shapes, or one of them is not known but for its batch."""
    if any(node.op_type in _SHAPE_READERS for node in model.graph):
        return True
    return any(
        o.name and (o.name not in dims or None in dims[o.name][1:])
        for node in model.graph
        for o in node.outputs
    )


def _closed(model: ir.Model, case: int) -> ir.Model:
    """A copy whose inputs have no open axis, shapes inferred as far as they go."""
    closed = model.clone()
    for node in closed.graph:
        for output in node.outputs:
            if output.shape is not None and not output.shape.is_static():
                output.shape = None
    for value in graph_inputs(closed.graph):
        if value.shape is not None:
            value.shape = ir.Shape(
                d if isinstance(d, int) else (OTHER_LENGTHS if axis else BATCH_LENGTHS)[case]
                for axis, d in enumerate(value.shape)
            )
    # A shape may fit one batch only; the walk finds what holds all the same.
    with suppress(ModelError):
        infer_shapes(closed)
    return closed


def evaluate(model: ir.Model) -> Evaluation:
    """Walk a model once, in order.

    Args:
        model: Its inputs have static shapes.
    """
    return _Walk(model).run()


class _Walk:
    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._found = Evaluation()
        self._types = self._found.types
        self._parts: dict[str, list[tuple[int, ...]]] = {}

    def run(self) -> Evaluation:
        graph = self._model.graph
        for value in [*graph.inputs, *graph.initializers.values()]:
            self._note(value)
        for node in graph:
            for output in node.outputs:
                self._note(output)
            if node.domain in ("", "ai.onnx"):
                self._visit(node)
        return self._found

    def _note(self, value: ir.Value) -> None:
        """What the model itself says about a value."""
        name = str(value.name)
        if value.dtype is not None:
            self._types[name] = int(value.dtype)
        dims = constant_dims(value) if is_root_constant(value) else None
        if dims is None and value.shape is not None and value.shape.is_static():
            dims = tuple(int(d) for d in value.shape.numpy())
        if dims is None:
            return
        self._found.dims[name] = dims
        if is_root_constant(value) and _is_small(dims, self._types.get(name)):
            array = constant_array(value)
            if array is not None:
                self._found.numbers[name] = array

    def _visit(self, node: ir.Node) -> None:
        names = [str(o.name) for o in node.outputs if o.name]
        if node.op_type == "SplitToSequence":
            self._part(node)
        elif node.op_type == "SequenceAt":
            self._take_part(node)
        if any(n not in self._found.dims or n not in self._types for n in names):
            self._infer(node)
        if all(n in self._found.numbers for n in names):
            return
        if node.op_type == "Shape":
            source = node.inputs[0]
            dims = None if source is None else self._found.dims.get(str(source.name))
            if dims is not None:
                self._keep(names[0], np.asarray(_sliced(node, dims), dtype=np.int64))
            return
        inputs = [str(v.name) for v in node.inputs if v is not None]
        has_graph = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        if has_graph or node.op_type in _NEVER_EVALUATED or not inputs:
            return
        if node.op_type == "Size":
            dims = self._found.dims.get(inputs[0])
            if dims is not None:
                self._keep(names[0], np.asarray(math.prod(dims), dtype=np.int64))
            return
        if node.op_type == "CastLike":  # of the second input the element type alone matters
            numbers, data_type = self._found.numbers.get(inputs[0]), self._types.get(inputs[1])
            if (
                numbers is not None
                and data_type is not None
                and _is_small(numbers.shape, data_type)
            ):
                self._keep(names[0], numbers.astype(ir.DataType(data_type).numpy()))
            return
        is_known = all(name in self._found.numbers for name in inputs)
        is_small = all(
            n in self._found.dims and _is_small(self._found.dims[n], self._types.get(n))
            for n in names
        )
        if is_known and is_small:
            self._compute(node, inputs)

    def _keep(self, name: str, numbers: Numbers) -> None:
        self._found.numbers[name] = numbers
        self._found.dims[name] = numbers.shape

    def _infer(self, node: ir.Node) -> None:
        """ONNX's inference for one node, with the numbers that are known."""
        opsets = self._model.graph.opset_imports
        version = opsets.get("", opsets.get("ai.onnx", 1))
        try:
            inferred = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, version, ""),
                ir.serde.serialize_node(node),
                {str(v.name): self._type_of(str(v.name)) for v in node.inputs if v is not None},
                {
                    str(v.name): ir.serde.serialize_tensor(ir.tensor(self._found.numbers[v.name]))
                    for v in node.inputs
                    if v is not None and v.name in self._found.numbers
                },
                opset_imports=[onnx.OperatorSetIdProto(domain="", version=version)],
                ir_version=self._model.ir_version,
            )
        except Exception:  # whatever an inference rule throws, the shape is then not known
            inferred = {}
        for name, found in inferred.items():
            tensor = found.tensor_type
            if tensor.elem_type:
                self._types[name] = tensor.elem_type
            if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
                self._found.dims[name] = tuple(d.dim_value for d in tensor.shape.dim)
        if node.op_type in _KEEPS_SHAPE and str(node.outputs[0].name) not in self._found.dims:
            self._copy_shape(node)

    def _part(self, node: ir.Node) -> None:
        """Shapes of the parts of a tensor: of a sequence ONNX infers one shape for all."""
        x, *sizes = (str(v.name) for v in node.inputs if v is not None)
        dims, lengths = self._found.dims.get(x), self._found.numbers.get("".join(sizes))
        axis = int_of(node, "axis", 0)
        if dims is None or lengths is None or not int_of(node, "keepdims", 1):
            return
        if not -len(dims) <= axis < len(dims):
            return
        axis = normalized_axis(axis, len(dims))
        if lengths.ndim == 0:
            step = max(int(lengths), 1)
            if dims[axis] > MAX_INTEGERS * step:
                return
            lengths = np.asarray([min(step, dims[axis] - i) for i in range(0, dims[axis], step)])
        parts = [(*dims[:axis], int(n), *dims[axis + 1 :]) for n in lengths.reshape(-1)]
        self._parts[str(node.outputs[0].name)] = parts
        self._types[str(node.outputs[0].name)] = self._types.get(x, 0)

    def _take_part(self, node: ir.Node) -> None:
        sequence, position = (str(v.name) for v in node.inputs if v is not None)
        parts, index = self._parts.get(sequence), self._found.numbers.get(position)
        if parts is None or index is None or index.size != 1:
            return
        if not -len(parts) <= index.item() < len(parts):
            return
        self._found.dims[str(node.outputs[0].name)] = parts[index.item()]
        self._types[str(node.outputs[0].name)] = self._types[sequence]

    def _copy_shape(self, node: ir.Node) -> None:
        source, target = (str(v.name) for v in (node.inputs[0], node.outputs[0]) if v is not None)
        if source in self._found.dims and source in self._types:
            self._found.dims[target] = self._found.dims[source]
            self._types[target] = self._types[source]

    def _type_of(self, name: str) -> onnx.TypeProto:
        found = onnx.TypeProto()
        found.tensor_type.elem_type = self._types.get(name, 0)
        dims = self._found.dims.get(name)
        if dims is not None:
            found.tensor_type.shape.SetInParent()
            for length in dims:
                found.tensor_type.shape.dim.add(dim_value=length)
        return found

    def _compute(self, node: ir.Node, inputs: Sequence[str]) -> None:
        """The reference implementation's result, where it has one."""
        from onnx.reference import ReferenceEvaluator

        graph = onnx.GraphProto(name="node")
        for name in dict.fromkeys(inputs):
            graph.input.add(name=name)
        for output in node.outputs:
            graph.output.add(name=output.name or "")
        graph.node.append(ir.serde.serialize_node(node))
        opsets = self._model.graph.opset_imports
        version = opsets.get("", opsets.get("ai.onnx", 1))
        try:
            feeds = {name: self._found.numbers[name] for name in inputs}
            results = ReferenceEvaluator(graph, opsets={"": version}).run(None, feeds)
        except Exception:  # an operator it lacks, or numbers it refuses: not known
            return
        for output, result in zip(node.outputs, results, strict=True):
            if output.name and isinstance(result, np.ndarray | np.generic):
                self._keep(str(output.name), np.asarray(result))


def _is_small(dims: Sequence[int], data_type: int | None) -> bool:
    is_integer = data_type is not None and not ir.DataType(data_type).is_floating_point()
    return math.prod(dims) <= (MAX_INTEGERS if is_integer else MAX_FLOATS)


def _sliced(node: ir.Node, dims: Sequence[int]) -> Sequence[int]:
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    return dims[
        slice(None if start is None else start.as_int(), None if end is None else end.as_int())
    ]
