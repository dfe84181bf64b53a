"""Sharing is not coupling: stored vectors that several nodes read get a copy for each use.

Exporters store equal tensors once (all-zero biases, identical BatchNormalization statistics), also
through Identity nodes. Cutting such a vector for one user would cut it for all. Before the channels
are analysed every use gets its own copy; after the cut, uses whose copies are still equal go back
to the one they shared.
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
        original: Name of the value the node read before (a stored tensor, or an Identity of one).
        copy: Name of the node's own copy.
    """

    original: str
    copy: str


def unshare(model: ir.Model) -> list[SharedUse]:
    """Give each use of a shared stored vector its own copy, in place.

    Vectors are tensors with at most one axis longer than 1. Matrices and kernels stay shared: there
    one weight really serves several layers, whose channels belong together.

    Returns:
        What was parted, for `reshare`.
    """
    graph = model.graph
    uses: list[SharedUse] = []
    names = set(graph.initializers) | {o.name for n in graph for o in n.outputs}
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
            name = f"{value.name}__use{len(uses)}"
            while name in names:
                name += "_"
            names.add(name)
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
    for use in uses:
        copy = by_name[use.copy]
        original = by_name.get(use.original)
        root = None if original is None else stored_root(original)
        ours = constant_array(copy)
        theirs = None if root is None else constant_array(root)
        if original is None or ours is None or theirs is None:
            continue
        if not np.array_equal(ours, theirs):
            continue
        for node, index in copy.uses():
            node.replace_input_with(index, original)
        del graph.initializers[use.copy]
        if copy.is_graph_input():
            graph.inputs.remove(copy)


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
