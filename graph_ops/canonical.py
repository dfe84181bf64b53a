"""The scoring copy of a model: one form per operator, static shapes but for the batch.

Gradient rules are written for one opset and for known shapes. The user's graph is never touched:
here a copy is raised to a recent opset by ONNX's own version converter, Constant nodes become
initializers, the inputs take the shapes of the data at hand, and shapes are inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import version_converter

from graph_ops.channels import Dims
from graph_ops.collector import without_collector
from graph_ops.errors import ModelRunError
from graph_ops.float_shadow import compute_in_float32
from graph_ops.graph import (
    constant_array,
    constant_ints,
    graph_inputs,
    input_at,
    int_of,
    is_root_constant,
    node_label,
    normalized_axis,
    stored_value,
    take_place,
)
from graph_ops.model import infer_shapes, lift_constants
from graph_ops.runtime import EXTERNAL_BYTES
from graph_ops.shape_evaluation import Refined, refine

SCORING_OPSET = 18
"""Lowest opset of a scoring copy; a model that is already newer stays as it is."""
SCORING_IR_VERSION = 9


class BoundShapes(dict[str, Dims]):
    """Shapes by name, None for what depends on the batch, and numbers that are known.

    Attributes:
        numbers: Computed tensors (shape arithmetic) that depend on nothing but the model and the
            shape of a sample, by name.
        in_order: What a Gather takes from a list, all of it, as it stands there.
    """

    def __init__(
        self,
        dims: Mapping[str, Dims],
        numbers: Mapping[str, NDArray[Any]],
        in_order: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(dims)
        self.numbers = dict(numbers)
        self.in_order = in_order


@dataclass(frozen=True)
class ScoringCopy:
    """A canonical copy of a model.

    Attributes:
        model: The copy; free to be changed.
        shapes: Shape of every value by name, None for the batch axis.
    """

    model: ir.Model
    shapes: dict[str, Dims]


def static_shapes(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Per-sample shapes of inputs whose axes are all fixed (but the first)."""
    shapes = {}
    for value in graph_inputs(model.graph):
        axes = [] if value.shape is None else value.shape.dims[1:]
        fixed = tuple(d for d in axes if isinstance(d, int))
        if value.shape is not None and len(fixed) == len(axes):
            shapes[str(value.name)] = fixed
    return shapes


@without_collector
def bind_shapes(model: ir.Model, sample_shapes: Mapping[str, tuple[int, ...]]) -> BoundShapes:
    """Shapes of every value when each input has the given per-sample shape.

    The model itself is not changed. Axis 0 of the inputs stays as it is.

    Args:
        model: Any model.
        sample_shapes: Shape without the batch axis, by input name; other inputs keep theirs.
    """
    bound = model.clone()
    _set_input_shapes(bound, sample_shapes)
    infer_shapes(bound)
    refined = refine(bound, collect_shapes(bound))
    return BoundShapes(refined.dims, refined.numbers, refined.in_order)


def collect_shapes(model: ir.Model) -> dict[str, Dims]:
    """Known shape of every value of the main graph by name, None for symbolic dimensions."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    values += [o for node in model.graph for o in node.outputs]
    return {
        str(v.name): tuple(d if isinstance(d, int) else None for d in v.shape)
        for v in values
        if v.shape is not None
    }


def scoring_copy(model: ir.Model, sample_shapes: Mapping[str, tuple[int, ...]]) -> ScoringCopy:
    """A canonical copy with static shapes.

    Args:
        model: The (perhaps already pruned) model.
        sample_shapes: Shape without the batch axis, by input name.

    Raises:
        ModelRunError: the version converter does not know one of the operators.
    """
    copy = _raise_opset(model)
    lift_constants(copy)
    compute_in_float32(copy)
    _set_input_shapes(copy, sample_shapes)
    _clear_inferred_shapes(copy)
    infer_shapes(copy)
    refined = refine(copy, collect_shapes(copy))
    for node in copy.graph:
        for output in node.outputs:
            if output.dtype is None and str(output.name) in refined.types:
                output.type = ir.TensorType(ir.DataType(refined.types[str(output.name)]))
            if output.shape is None and str(output.name) in refined.dims:
                output.shape = ir.Shape(refined.dims[str(output.name)])
    _store_numbers(copy.graph, refined.numbers)
    _reshape_plainly(copy.graph, refined)
    _split_plainly(copy.graph, refined.dims)
    return ScoringCopy(copy, refined.dims)


def _raise_opset(model: ir.Model) -> ir.Model:
    opset = model.graph.opset_imports.get("", SCORING_OPSET)
    copy = model.clone()
    if opset < SCORING_OPSET:
        weights = _detach_weights(copy)
        try:
            converted = version_converter.convert_version(ir.to_proto(copy), SCORING_OPSET)
        except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
            raise ModelRunError(
                f"The model cannot be raised from opset {opset} to {SCORING_OPSET} for scoring: "
                f"{str(error).splitlines()[0]}",
                opset=opset,
            ) from None
        copy = ir.from_proto(converted)
        _attach_weights(copy, weights)
    copy.ir_version = max(copy.ir_version, SCORING_IR_VERSION)
    stored = [v for v in copy.graph.inputs if v.is_initializer()]
    for value in stored:
        copy.graph.inputs.remove(value)
    return copy


def _detach_weights(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Turn large stored tensors into plain inputs, so that they pass no protobuf."""
    graph, weights = model.graph, {}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < EXTERNAL_BYTES:
            continue
        weights[name] = tensor
        value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        del graph.initializers[name]
        value.const_value = None
        if not value.is_graph_input():
            graph.inputs.append(value)
    return weights


def _attach_weights(model: ir.Model, weights: Mapping[str, ir.TensorProtocol]) -> None:
    for value in [v for v in model.graph.inputs if v.name in weights]:
        value.const_value = weights[str(value.name)]
        model.graph.initializers.add(value)


def _store_numbers(graph: ir.Graph, numbers: Mapping[str, NDArray[Any]]) -> None:
    """Store what is computed from shapes alone where it is read by anything else."""
    for node in list(graph):
        for output in node.outputs:
            array = numbers.get(str(output.name))
            readers = [
                use
                for use in output.uses()
                if use.node.graph is graph
                and any(str(o.name) not in numbers for o in use.node.outputs if o.name)
            ]
            if array is None or not readers or is_root_constant(output):
                continue
            dtype = array.dtype if output.dtype is None else output.dtype.numpy()
            value = stored_value(f"{output.name}/known", array.astype(dtype))
            graph.initializers.add(value)
            for use in readers:
                use.node.replace_input_with(use.idx, value)


def _reshape_plainly(graph: ir.Graph, refined: Refined) -> None:
    """Write Reshape for a Gather that reads a list in its order.

    PyTorch exports `as_strided` that way, which its pooling does to tensors with channels last.
    """
    for node in list(graph):
        output = node.outputs[0]
        dims = refined.dims.get(str(output.name))
        if output.name not in refined.in_order or dims is None or dims.count(None) > 1:
            continue
        name = f"{node_label(node)}/reshape"
        shape = np.asarray([-1 if d is None else d for d in dims], dtype=np.int64)
        sizes = stored_value(f"{name}/shape", shape)
        graph.initializers.add(sizes)
        reshape = ir.node("Reshape", [node.inputs[0], sizes], name=name)
        graph.insert_before(node, reshape)
        take_place(reshape.outputs[0], output)
        graph.remove(node, safe=True)


def _split_plainly(graph: ir.Graph, dims: dict[str, Dims]) -> None:
    """Write Split for SplitToSequence where every part is taken out by its position."""
    for node in list(graph):
        if node.op_type != "SplitToSequence" or not int_of(node, "keepdims", 1):
            continue
        x, sequence = node.inputs[0], node.outputs[0]
        readers = [use.node for use in sequence.uses()]
        positions = [constant_ints(r.inputs[1]) for r in readers if r.op_type == "SequenceAt"]
        x_dims = None if x is None else dims.get(str(x.name))
        sizes = constant_ints(input_at(node, 1))
        if len(positions) != len(readers) or None in positions or x_dims is None or not sizes:
            continue
        length = x_dims[normalized_axis(int_of(node, "axis", 0), len(x_dims))]
        if length is None:
            continue
        array = constant_array(node.inputs[1])
        if array is not None and array.ndim == 0:
            sizes = [min(sizes[0], length - i) for i in range(0, length, max(sizes[0], 1))]
        split_sizes = stored_value(f"{sequence.name}/sizes", np.asarray(sizes, dtype=np.int64))
        graph.initializers.add(split_sizes)
        split = ir.node(
            "Split",
            [x, split_sizes],
            attributes={"axis": int_of(node, "axis", 0)},
            num_outputs=len(sizes),
            name=f"{node_label(node)}/split",
        )
        graph.insert_before(node, split)
        for index, output in enumerate(split.outputs):
            output.name = f"{sequence.name}/part_{index}"
            dims_of_part = list(x_dims)
            dims_of_part[normalized_axis(int_of(node, "axis", 0), len(x_dims))] = sizes[index]
            dims[output.name] = tuple(dims_of_part)
        for reader, position in zip(readers, positions, strict=True):
            assert position is not None
            graph_output = reader.outputs[0]
            graph_output.replace_all_uses_with(split.outputs[position[0]])
            graph.remove(reader, safe=True)
        graph.remove(node, safe=True)


def _set_input_shapes(model: ir.Model, sample_shapes: Mapping[str, tuple[int, ...]]) -> None:
    for value in graph_inputs(model.graph):
        shape = sample_shapes.get(str(value.name))
        if shape is not None and value.shape is not None and len(value.shape) == len(shape) + 1:
            value.shape = ir.Shape([value.shape[0], *shape])


def _clear_inferred_shapes(model: ir.Model) -> None:
    """Forget what was known of computed values.

    The converter leaves old types, and shapes may be symbolic where the data is not.
    """
    for node in model.graph:
        for output in node.outputs:
            output.shape = None
            if not output.is_graph_output():
                output.type = None
