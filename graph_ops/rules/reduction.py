"""Reductions: the reduced axes vanish or become 1; channels on them are mixed and so frozen."""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.graph import int_of, ints_of, is_computed, node_label, normalized_axis
from graph_ops.rules.registry import coupling


@coupling(
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
def couple_reduction(node: ir.Node, channels: Channels) -> None:
    """Axes are an attribute in old opsets and an input in new ones; none means all of them."""
    x = node.inputs[0]
    axes = channels.axes(x)
    name = f"{node.op_type} {node_label(node)!r}"
    if is_computed(node, "axes", 1):
        channels.freeze_value(x, f"the axes of {name} are computed at run time")
        return
    given = ints_of(node, "axes", 1)
    if not given:
        given = [] if int_of(node, "noop_with_empty_axes", 0) else list(range(len(axes)))
    reduced = {normalized_axis(axis, len(axes)) for axis in given}
    for axis in sorted(reduced):
        channels.freeze(axes[axis], f"{name} reduces over it")
    keep_dims = int_of(node, "keepdims", 1)
    out = [
        None if axis in reduced else labels
        for axis, labels in enumerate(axes)
        if keep_dims or axis not in reduced
    ]
    channels.set_axes(node.outputs[0], out)


@coupling("ArgMax", "ArgMin")
def couple_arg_reduction(node: ir.Node, channels: Channels) -> None:
    """The result is a position along the axis."""
    axes = channels.axes(node.inputs[0])
    axis = normalized_axis(int_of(node, "axis", 0), len(axes))
    channels.freeze(
        channels.axis(node.inputs[0], axis), f"{node.op_type} {node_label(node)!r} numbers it"
    )
    keep_dims = int_of(node, "keepdims", 1)
    out = [
        None if i == axis else labels for i, labels in enumerate(axes) if keep_dims or i != axis
    ]
    channels.set_axes(node.outputs[0], out)
