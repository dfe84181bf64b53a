"""Pooling over spatial axes: every channel for itself."""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.graph import node_label
from graph_ops.rules.registry import coupling


@coupling(
    "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"
)
def couple_pool(node: ir.Node, channels: Channels) -> None:
    """Channels pass; whatever is labelled on a spatial axis is mixed and so frozen."""
    axes = channels.axes(node.inputs[0])
    for labels in axes[2:]:
        channels.freeze(labels, f"{node.op_type} {node_label(node)!r} pools over it")
    passed = [*axes[:2], *[None] * len(axes[2:])]
    channels.set_axes(node.outputs[0], passed)
    for indices in node.outputs[1:]:
        channels.freeze(channels.axis(node.inputs[0], 1), "its flat indices count the channels")
        channels.set_axes(indices, [None] * len(passed))
