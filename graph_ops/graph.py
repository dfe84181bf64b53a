"""Small readers over `onnx_ir` graphs: constants, attributes and the opset-dependent axes input.

ONNX moved several attributes to inputs over time (Squeeze's axes at opset 13, Slice's at 10, ...).
The readers here look at whichever form the node has, so that a rule is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

_CONSTANT_ATTRIBUTES = ("value_int", "value_ints", "value_float", "value_floats")


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """The node's input at a position, or None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def output_at(node: ir.Node, index: int) -> ir.Value | None:
    """The node's output at a position, or None where it is left out or unnamed."""
    if index >= len(node.outputs) or node.outputs[index].name == "":
        return None
    return node.outputs[index]


def node_label(node: ir.Node) -> str:
    """What a person calls the node: its name, or its first output's where it has none."""
    if node.name:
        return node.name
    return next((o.name for o in node.outputs if o.name), node.op_type)


def is_root_constant(value: ir.Value) -> bool:
    """Whether the value is stored in the model: an initializer or a Constant node's output.

    A ConstantOfShape of a stored shape counts: old exporters write weights that way.
    """
    producer = value.producer()
    if producer is None:
        return value.is_initializer() and value.const_value is not None
    if producer.domain not in ("", "ai.onnx"):
        return False
    if producer.op_type == "Constant":
        return "value" in producer.attributes or any(
            name in producer.attributes for name in _CONSTANT_ATTRIBUTES
        )
    if producer.op_type == "ConstantOfShape":
        shape = producer.inputs[0]
        return shape is not None and is_root_constant(shape)
    return False


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The stored array of a root constant, or None for anything computed at run time."""
    if value is None or not is_root_constant(value):
        return None
    producer = value.producer()
    if producer is None:
        assert value.const_value is not None
        return value.const_value.numpy()
    attributes = producer.attributes
    if producer.op_type == "ConstantOfShape":
        shape = constant_array(producer.inputs[0])
        assert shape is not None
        fill = (
            attributes["value"].as_tensor().numpy().reshape(())
            if "value" in attributes
            else np.float32(0)
        )
        return np.broadcast_to(fill, tuple(int(d) for d in shape))
    if "value" in attributes:
        return attributes["value"].as_tensor().numpy()
    name = next(n for n in _CONSTANT_ATTRIBUTES if n in attributes)
    dtype = np.int64 if "int" in name else np.float32
    return np.asarray(attributes[name].value, dtype=dtype)


def stored_value(name: str, array: NDArray[Any]) -> ir.Value:
    """A stored tensor that belongs to no graph yet."""
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(np.shape(array)), name=name)
    return ir.Value(
        name=name,
        shape=ir.Shape(np.shape(array)),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )


def data_uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Who reads a value's elements: everyone but those that ask for its shape."""
    return [(u.node, u.idx) for u in value.uses() if u.node.op_type not in ("Shape", "Size")]


def constant_dims(value: ir.Value) -> tuple[int, ...] | None:
    """Shape of a root constant without loading its data."""
    if not is_root_constant(value):
        return None
    if value.producer() is None:
        assert value.const_value is not None
        return tuple(int(d) for d in value.const_value.shape.numpy())
    array = constant_array(value)
    return None if array is None else tuple(array.shape)


def constant_ints(value: ir.Value | None) -> list[int] | None:
    """A root constant of integers as a flat list, or None when it is computed or absent."""
    array = constant_array(value)
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(v) for v in array.reshape(-1)]


def ints_of(node: ir.Node, attribute: str, input_index: int) -> list[int] | None:
    """Integers given as an attribute (old opsets) or as a stored input (new ones).

    Returns None when they are given in neither way, or computed at run time.
    """
    if attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    return constant_ints(input_at(node, input_index))


def is_computed(node: ir.Node, attribute: str, input_index: int) -> bool:
    """Whether integers are given as an input whose values are only known at run time."""
    value = input_at(node, input_index)
    return attribute not in node.attributes and value is not None and not is_root_constant(value)


def int_of(node: ir.Node, attribute: str, default: int) -> int:
    """An integer attribute or its default."""
    return node.attributes[attribute].as_int() if attribute in node.attributes else default


def float_of(node: ir.Node, attribute: str, default: float) -> float:
    """A float attribute or its default."""
    return node.attributes[attribute].as_float() if attribute in node.attributes else default


def string_of(node: ir.Node, attribute: str, default: str) -> str:
    """A string attribute or its default."""
    return node.attributes[attribute].as_string() if attribute in node.attributes else default


def int_list_of(node: ir.Node, attribute: str, default: Sequence[int]) -> list[int]:
    """A list-of-integers attribute or its default."""
    if attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    return list(default)


def normalized_axis(axis: int, rank: int) -> int:
    """A non-negative axis."""
    return axis + rank if axis < 0 else axis


def graph_inputs(graph: ir.Graph) -> list[ir.Value]:
    """Inputs a caller has to feed: those that have no stored default."""
    return [v for v in graph.inputs if not v.is_initializer()]


def captured_values(node: ir.Node) -> Iterator[ir.Value]:
    """Values of the outer graph that a node's subgraphs (If, Loop, Scan) read."""
    for attribute in node.attributes.values():
        graphs: Iterable[ir.Graph]
        if attribute.type == ir.AttributeType.GRAPH:
            graphs = (attribute.as_graph(),)
        elif attribute.type == ir.AttributeType.GRAPHS:
            graphs = attribute.as_graphs()
        else:
            continue
        for graph in graphs:
            inner = list(graph.all_nodes())
            owned = {id(o) for n in inner for o in n.outputs} | {id(v) for v in graph.inputs}
            owned |= {id(v) for v in graph.initializers.values()}
            for inner_node in inner:
                yield from (v for v in inner_node.inputs if v is not None and id(v) not in owned)
            yield from (v for v in graph.outputs if id(v) not in owned)


def take_place(new: ir.Value, old: ir.Value) -> None:
    """Give a value the name, shape, type and readers of another, whose node can then be removed."""
    name = old.name
    new.shape, new.type = old.shape, old.type
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = f"{name}/replaced"
    new.name = name
