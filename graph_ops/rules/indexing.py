"""GatherND and ScatterND: reading and writing slices at positions given by index tuples.

An index tuple of length q names a position on the first q axes; the axes behind them are carried
whole. Exporters write assignments to slices (`x[:, :n] = y`) this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graph_ops.channels import Channels, Labels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import int_of, node_label, string_of
from graph_ops.rules.registry import coupling, gradient

Gradients = Sequence[ir.Value | None]


@coupling("GatherND")
def couple_gather_nd(node: ir.Node, channels: Channels) -> None:
    """Output: the batch axes, the indices' other axes but the last, the data's axes behind q."""
    data, indices = node.inputs[0], node.inputs[1]
    carried = _carried(node, channels, data, indices)
    index_dims = () if indices is None else channels.dims(indices) or ()
    batch = int_of(node, "batch_dims", 0)
    lead = [*channels.axes(data)[:batch], *[None] * (len(index_dims) - 1 - batch)]
    channels.set_axes(node.outputs[0], [*lead, *carried])


@coupling("ScatterND")
def couple_scatter_nd(node: ir.Node, channels: Channels) -> None:
    """The slices written have the channels of the slices they replace."""
    data, indices, updates = node.inputs[:3]
    carried = _carried(node, channels, data, indices)
    update_axes = channels.axes(updates)
    behind = update_axes[len(update_axes) - len(carried) :]
    for labels in update_axes[: len(update_axes) - len(carried)]:
        channels.freeze(labels, f"ScatterND {node_label(node)!r} writes it by index")
    for old, new in zip(carried, behind, strict=True):
        reason = f"ScatterND {node_label(node)!r} writes into a tensor whose channels cannot go"
        channels.couple(old, new, reason)
    axes = channels.axes(data)
    channels.set_axes(node.outputs[0], [*[None] * (len(axes) - len(carried)), *carried])


def _carried(
    node: ir.Node, channels: Channels, data: ir.Value | None, indices: ir.Value | None
) -> list[Labels | None]:
    """Labels of the data's axes behind the indexed ones, which are frozen."""
    axes = channels.axes(data)
    index_dims = None if indices is None else channels.dims(indices)
    depth = index_dims[-1] if index_dims else None
    if depth is None:
        channels.freeze_value(data, f"the indices of {node_label(node)!r} have no known form")
        return [None] * len(axes)
    first = int_of(node, "batch_dims", 0)
    for labels in axes[first : first + depth]:
        channels.freeze(labels, f"{node.op_type} {node_label(node)!r} picks it by index")
    return axes[first + depth :]


@gradient("GatherND")
def gather_nd_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """What each position was picked for, added up."""
    if int_of(node, "batch_dims", 0):
        raise tape.refuse(node, "it has batch axes of its own")
    x, indices = node.inputs[:2]
    zeros = tape.op("Mul", x, tape.scalar(0.0, like=x))
    return [tape.op("ScatterND", zeros, indices, gradients[0], reduction="add")]


@gradient("ScatterND")
def scatter_nd_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Zero where the data was overwritten; the updates get what lies at their positions."""
    data, indices, updates = node.inputs[:3]
    g = gradients[0]
    if string_of(node, "reduction", "none") != "none":
        raise tape.refuse(node, "it combines what it writes with what is there")
    parts: list[ir.Value | None] = [None, None, None]
    if tape.needs(data):
        zeros = tape.op("Mul", updates, tape.scalar(0.0, like=updates))
        parts[0] = tape.op("ScatterND", g, indices, zeros)
    if tape.needs(updates):
        parts[2] = tape.op("GatherND", g, indices)
    return parts
