"""QuantizeLinear and DequantizeLinear: rounding to integers and back, channel by channel.

They have no gradient: scores are taken on the float shadow (`graph_ops.float_shadow`).
"""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.graph import int_of, node_label
from graph_ops.rules.registry import coupling


@coupling("QuantizeLinear", "DequantizeLinear")
def couple_quantisation(node: ir.Node, channels: Channels) -> None:
    """Scale and zero point are one number, or one for each index of `axis`."""
    axes = channels.axes(node.inputs[0])
    name = f"{node.op_type} {node_label(node)!r}"
    if int_of(node, "block_size", 0):
        channels.freeze_value(node.inputs[0], f"{name} shares a scale between its channels")
        channels.set_axes(node.outputs[0], [None] * len(axes))
        return
    for vector in node.inputs[1:]:
        if vector is None or (channels.dims(vector) or (1,)) in ((), (1,)):
            continue
        labels = channels.axis(node.inputs[0], int_of(node, "axis", 1))
        channels.couple(labels, channels.axis(vector, 0), f"the scales of {name} cannot follow")
    channels.set_axes(node.outputs[0], axes)
