"""Normalisations and operators that mix neighbouring channels."""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.graph import int_of, node_label, normalized_axis
from graph_ops.rules.registry import coupling


@coupling("BatchNormalization")
def couple_batch_normalization(node: ir.Node, channels: Channels) -> None:
    """Scale, bias, mean and variance are vectors over the channels (N, C, …)."""
    x = node.inputs[0]
    assert x is not None
    labels = channels.axis(x, 1)
    for vector in node.inputs[1:5]:
        channels.couple(
            labels,
            channels.axis(vector, 0),
            f"the statistics of {node_label(node)!r} are not one number per channel",
        )
    if len([o for o in node.outputs if o.name]) > 1:
        channels.freeze(labels, f"{node_label(node)!r} is in training mode")
    channels.set_axes(node.outputs[0], channels.axes(x))


@coupling("LRN")
def couple_lrn(node: ir.Node, channels: Channels) -> None:
    """Each channel is divided by its neighbours' energy: taking one out changes the others."""
    x = node.inputs[0]
    channels.freeze(channels.axis(x, 1), f"LRN {node_label(node)!r} mixes neighbouring channels")
    channels.set_axes(node.outputs[0], channels.axes(x))


@coupling("Softmax", "LogSoftmax", "Hardmax", since=13)
def couple_softmax(node: ir.Node, channels: Channels) -> None:
    """The entries along the axis share their sum."""
    x = node.inputs[0]
    assert x is not None
    axis = int_of(node, "axis", -1)
    reason = f"{node.op_type} {node_label(node)!r} normalises over it"
    channels.freeze(channels.axis(x, axis), reason)
    channels.set_axes(node.outputs[0], channels.axes(x))


@coupling("Softmax", "LogSoftmax", "Hardmax", until=12)
def couple_flat_softmax(node: ir.Node, channels: Channels) -> None:
    """Before opset 13 everything from `axis` on is one flattened row."""
    x = node.inputs[0]
    assert x is not None
    axis = normalized_axis(int_of(node, "axis", 1), channels.rank(x))
    reason = f"{node.op_type} {node_label(node)!r} normalises over it"
    for labels in channels.axes(x)[axis:]:
        channels.freeze(labels, reason)
    channels.set_axes(node.outputs[0], channels.axes(x))
