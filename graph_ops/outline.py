"""A model's graph as a person wants to see it: layers, and the joins between them.

Kept are convolutions, Gemm and MatMul, inputs and outputs, and every operator at which branches
meet (a residual Add, a Concat, the Mul of a squeeze-and-excite block). What lies between two of
them is left out: an edge says that values flow from one to the other with no third in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.cost import COUNTED
from graph_ops.graph import captured_values, graph_inputs, node_label


@dataclass(frozen=True)
class OutlineNode:
    """A layer, a join, or an end of the graph.

    Attributes:
        name: What a person calls it; of an input or output its own name.
        op_type: Its operator; `input` or `output` at the ends.
    """

    name: str
    op_type: str


@dataclass(frozen=True)
class Outline:
    """The reduced graph.

    Attributes:
        nodes: In the order of the graph.
        edges: (from, to) positions in `nodes`, each once, in the order of `to`.
    """

    nodes: tuple[OutlineNode, ...]
    edges: tuple[tuple[int, int], ...]


def outline(model: ir.Model) -> Outline:
    """The reduced graph of a model whose nodes are in topological order."""
    graph = model.graph
    nodes: list[OutlineNode] = []
    edges: list[tuple[int, int]] = []
    origins: dict[ir.Value, tuple[int, ...]] = {}

    def origins_of(values: Iterable[ir.Value | None]) -> tuple[int, ...]:
        found = {o for v in values if v is not None for o in origins.get(v, ())}
        return tuple(sorted(found))

    def keep(name: str, op_type: str, sources: tuple[int, ...]) -> tuple[int, ...]:
        nodes.append(OutlineNode(name, op_type))
        edges.extend((source, len(nodes) - 1) for source in sources)
        return (len(nodes) - 1,)

    for value in graph_inputs(graph):
        origins[value] = keep(str(value.name), "input", ())
    for node in graph:
        sources = origins_of((*node.inputs, *captured_values(node)))
        is_layer = node.op_type in COUNTED and bool(sources)
        if is_layer or len(sources) > 1:
            sources = keep(node_label(node), node.op_type, sources)
        for output in node.outputs:
            origins[output] = sources
    for value in graph.outputs:
        keep(str(value.name), "output", origins_of([value]))
    return Outline(tuple(nodes), tuple(edges))
