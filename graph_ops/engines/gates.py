"""One number a channel, written out at every position before it is multiplied.

Squeeze-and-excitation multiplies (N, C, H, W) by (N, C, 1, 1). ONNX Runtime's blocked layout of
convolutions has products of equal shapes only, so that the large tensor would be brought out of it
and back again, forward and backward. A nearest Resize does have the blocked layout, and so has its
gradient, a pooling.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.tape import BLOCK
from graph_ops.graph import is_root_constant, stored_value

MODE = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}


def spread_gates(model: ir.Model, shapes: dict[str, Dims]) -> None:
    """Write out the smaller factor of every such product, in place.

    Args:
        model: A forward graph.
        shapes: Shape of every value by name, None for the batch axis; what is new is added.
    """
    graph = model.graph
    for node, index, dims in list(_gated(graph, shapes)):
        gate = node.inputs[index]
        assert gate is not None
        height, width = dims[2:]
        name = f"{node.outputs[0].name}/spread"
        scales = stored_value(f"{name}/scales", np.asarray([1, 1, height, width], np.float32))
        graph.initializers.add(scales)
        spread = ir.node("Resize", [gate, None, scales], attributes=MODE, name=name)
        spread.outputs[0].name = name
        spread.outputs[0].type = gate.type
        graph.insert_before(node, spread)
        node.replace_input_with(index, spread.outputs[0])
        shapes[name] = dims


def _gated(graph: ir.Graph, shapes: dict[str, Dims]) -> Iterator[tuple[ir.Node, int, Dims]]:
    """Products of (N, C, H, W) and (N, C, 1, 1) in float32: the node, the gate's place, N … W."""
    for node in graph:
        if node.op_type != "Mul" or node.domain not in ("", "ai.onnx"):
            continue
        for index, gate in enumerate(node.inputs):
            other = node.inputs[1 - index]
            if gate is None or other is None or is_root_constant(gate):
                continue
            dims, gate_dims = shapes.get(str(other.name)), shapes.get(str(gate.name))
            if dims is None or gate_dims is None or gate.dtype != ir.DataType.FLOAT:
                continue
            if len(dims) != 4 or dims[0] is not None or None in dims[1:]:
                continue
            if int(dims[1] or 0) % BLOCK:
                continue
            if gate_dims == (*dims[:2], 1, 1) and dims[2:] != (1, 1):
                yield node, index, dims
