"""The float shadow: a copy of a model that computes in float32 what the model rounds.

Scores are derivatives, and rounding has none. QuantizeLinear followed by DequantizeLinear is taken
for the identity (the straight-through estimate that quantisation-aware training uses), a stored
quantised tensor for the numbers it stands for, and half precision for float32.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import constant_array, input_at, int_of, is_root_constant, stored_value

# A type is replaced, never changed: copies of a model share it.
HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_TYPE_ATTRIBUTES = ("to", "dtype")


def is_half(model: ir.Model) -> bool:
    """Whether a stored tensor or an input of the model is in half precision."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    return any(value.dtype in HALVES for value in values)


def compute_in_float32(model: ir.Model) -> None:
    """Turn a working copy into its float shadow, in place.

    Inputs keep their element type, and are cast. Constants have to be initializers, not nodes.
    """
    remove_quantisation(model.graph)
    widen_halves(model)


def remove_quantisation(graph: ir.Graph) -> None:
    """Store dequantised constants, and join what QuantizeLinear and DequantizeLinear part."""
    for node in list(graph):
        if node.op_type != "DequantizeLinear" or node.domain not in ("", "ai.onnx"):
            continue
        x, y = node.inputs[0], node.outputs[0]
        producer = None if x is None else x.producer()
        if x is not None and producer is not None and producer.op_type == "QuantizeLinear":
            source = producer.inputs[0]
            assert source is not None
            y.replace_all_uses_with(source, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            if not x.uses() and not x.is_graph_output():
                graph.remove(producer, safe=True)
        elif x is not None and is_root_constant(x):
            array = dequantised(node)
            if array is not None and not y.is_graph_output():
                value = stored_value(f"{y.name}/dequantised", array)
                graph.initializers.add(value)
                y.replace_all_uses_with(value)
                graph.remove(node, safe=True)


def dequantised(node: ir.Node) -> NDArray[Any] | None:
    """(x − zero point) · scale of a DequantizeLinear whose inputs are stored, else None.

    Scale and zero point are one number, or one for each index of `axis`.
    """
    x, scale = constant_array(node.inputs[0]), constant_array(node.inputs[1])
    zero = constant_array(input_at(node, 2))
    has_zero = input_at(node, 2) is not None
    if x is None or scale is None or (has_zero and zero is None) or int_of(node, "block_size", 0):
        return None
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[int_of(node, "axis", 1)] = scale.size
    offset = np.float32(0) if zero is None else zero.astype(np.float32).reshape(shape)
    numbers = (x.astype(np.float32) - offset) * scale.astype(np.float32).reshape(shape)
    return np.asarray(numbers.astype(scale.dtype))


def stored_weight(value: ir.Value | None) -> NDArray[Any] | None:
    """A stored tensor, or the numbers that a stored quantised one stands for; None if computed."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type == "DequantizeLinear":
        return dequantised(producer)
    return constant_array(value)


def widen_halves(model: ir.Model) -> None:
    """Store and compute in float32 what is in half precision."""
    if is_half(model):
        widen(model, HALVES, ir.DataType.FLOAT)


def widen(model: ir.Model, narrow: Set[ir.DataType], wide: ir.DataType) -> None:
    """Store and compute in a wider type, in place; inputs keep their element type, and are cast.

    Constants have to be initializers, not nodes.

    Args:
        model: A working copy.
        narrow: Element types that are replaced.
        wide: What by: FLOAT or DOUBLE.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.dtype in narrow and value.const_value is not None:
                array = value.const_value.numpy().astype(wide.numpy())
                value.const_value = ir.tensor(array, name=value.name)
                value.type = ir.TensorType(wide)
        for node in graph:
            _widen_node(node, narrow, wide)
    graph = model.graph
    for value in [v for v in graph.inputs if v.dtype in narrow and not v.is_initializer()]:
        uses = list(value.uses())
        cast = ir.node("Cast", [value], attributes={"to": wide.value})
        cast.name = cast.outputs[0].name = f"{value.name}/{wide.name.lower()}"
        cast.outputs[0].type = ir.TensorType(wide)
        cast.outputs[0].shape = value.shape
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])
        first = next(iter(graph), None)
        if first is None:
            graph.append(cast)
        else:
            graph.insert_before(first, cast)


def _widen_node(node: ir.Node, narrow: Set[ir.DataType], wide: ir.DataType) -> None:
    for name in _TYPE_ATTRIBUTES:
        attribute = node.attributes.get(name)
        is_type = attribute is not None and attribute.type == ir.AttributeType.INT
        if attribute is not None and is_type and ir.DataType(attribute.as_int()) in narrow:
            node.attributes[name] = ir.AttrInt64(name, wide.value)
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in narrow:
            array = attribute.as_tensor().numpy().astype(wide.numpy())
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(array))
    for output in node.outputs:
        if output.dtype in narrow:
            output.type = ir.TensorType(wide)
