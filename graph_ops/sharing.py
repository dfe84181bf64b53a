"""Sharing is not coupling: vectors that several nodes read get a copy for each use.

Exporters store equal tensors once (all-zero biases, identical BatchNormalization statistics), also
through Identity nodes, and write equal shapes once, put together by a Concat that every Reshape or
Expand of the network reads. Cutting such a vector for one user would cut it for all. Before the
channels are analysed every use gets its own copy; after the cut, uses whose copies are still equal
go back to the one they shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.graph import constant_array, constant_dims, is_root_constant, stored_value


@dataclass(frozen=True)
class SharedUse:
    """One use of a shared vector.

    Attributes:
        original: Name of the value the node read before (a stored tensor, an Identity of one, or
            what a Concat puts together).
        copy: Name of the node's own copy.
    """

    original: str
    copy: str


def unshare(model: ir.Model) -> list[SharedUse]:
    """Give each use of a shared vector its own copy, in place.

    Vectors are stored tensors with at most one axis longer than 1, and shapes that a Concat puts
    together of stored numbers and others. Matrices and kernels stay shared: there one weight really
    serves several layers, whose channels belong together.

    Returns:
        What was parted, for `reshare`.
    """
    graph = model.graph
    names = set(graph.initializers) | {str(o.name) for n in graph for o in n.outputs}
    uses = _part_shapes(graph, names)
    for value in [*graph.initializers.values(), *(o for n in graph for o in n.outputs)]:
        root = stored_root(value)
        if root is None or len(_plain_uses(value)) + (root is not value) < 2:
            continue
        dims = constant_dims(root)
        if dims is None or sum(d > 1 for d in dims) != 1:
            continue
        array = constant_array(root)
        assert array is not None
        for node, index in _plain_uses(value)[root is value :]:
            name = _new_name(value, len(uses), names)
            copy = stored_value(name, array)
            graph.initializers.add(copy)
            if value.is_graph_input():
                graph.inputs.append(copy)
            node.replace_input_with(index, copy)
            uses.append(SharedUse(str(value.name), name))
    return uses


def reshare(model: ir.Model, uses: list[SharedUse]) -> None:
    """Undo `unshare` where the copies are still equal to what they were made from, in place."""
    graph = model.graph
    by_name: dict[str, ir.Value] = {str(v.name): v for v in graph.initializers.values()}
    by_name |= {str(o.name): o for n in graph for o in n.outputs}
    for use in reversed(uses):  # what a shape is put together of comes first
        copy, original = by_name.get(use.copy), by_name.get(use.original)
        if copy is None or original is None:
            continue
        if copy.is_initializer():
            _join_stored(graph, copy, original)
        else:
            _join_shapes(graph, copy, original)


def _join_stored(graph: ir.Graph, copy: ir.Value, original: ir.Value) -> None:
    root = stored_root(original)
    ours = constant_array(copy)
    theirs = None if root is None else constant_array(root)
    if ours is None or theirs is None or not np.array_equal(ours, theirs):
        return
    for node, index in copy.uses():
        node.replace_input_with(index, original)
    del graph.initializers[str(copy.name)]
    if copy.is_graph_input():
        graph.inputs.remove(copy)


def _part_shapes(graph: ir.Graph, names: set[str]) -> list[SharedUse]:
    """Give each use of a shape that a Concat puts together a Concat of its own."""
    uses: list[SharedUse] = []
    for node in list(graph):
        if node.op_type != "Concat" or node.domain not in ("", "ai.onnx"):
            continue
        if not any(_is_stored_number(value) for value in node.inputs):
            continue
        output = node.outputs[0]
        for reader, index in _plain_uses(output)[1:]:
            copy = ir.Node(node.domain, "Concat", node.inputs, node.attributes.values())
            copy.outputs[0].name = _new_name(output, len(uses), names)
            copy.outputs[0].type, copy.outputs[0].shape = output.type, output.shape
            graph.insert_before(reader, copy)
            reader.replace_input_with(index, copy.outputs[0])
            uses.append(SharedUse(str(output.name), str(copy.outputs[0].name)))
    return uses


def _join_shapes(graph: ir.Graph, copy: ir.Value, original: ir.Value) -> None:
    ours, theirs = copy.producer(), original.producer()
    if ours is None or theirs is None or list(ours.inputs) != list(theirs.inputs):
        return
    for node, index in copy.uses():
        node.replace_input_with(index, original)
    graph.remove(ours, safe=True)


def _is_stored_number(value: ir.Value | None) -> bool:
    """Whether it is one stored int64 and may say how many channels there are."""
    root = None if value is None else stored_root(value)
    array = None if root is None else constant_array(root)
    return array is not None and array.dtype == np.int64 and array.size == 1 and array.item() > 1


def _new_name(value: ir.Value, number: int, names: set[str]) -> str:
    name = f"{value.name}__use{number}"
    while name in names:
        name += "_"
    names.add(name)
    return name


def stored_root(value: ir.Value) -> ir.Value | None:
    """The stored tensor behind a value: itself, or what a chain of Identity nodes passes on."""
    while True:
        if is_root_constant(value):
            return value
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.inputs[0] is None:
            return None
        value = producer.inputs[0]


def _plain_uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Uses in the main graph, in node order; a value that leaves the graph keeps its identity."""
    if value.is_graph_output():
        return []
    return [(use.node, use.idx) for use in value.uses() if use.node.graph is value.graph]
