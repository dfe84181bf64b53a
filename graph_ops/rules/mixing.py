"""Axes that the readers of a value mix, so that nothing can be removed from them.

A Reshape that parts channels into (groups, channels of a group) may carry them on either axis. What
comes next decides: an InstanceNormalization or a variance over the channels of a group freezes
those, while whole groups can still go. The rules here say which axes of its first input a node
mixes; the coupling rules freeze the same axes.
"""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.rules.elementwise import UNARY
from graph_ops.rules.registry import MIXINGS


def mixed_axes(value: ir.Value, channels: Channels) -> set[int]:
    """Axes of a value that one of its readers mixes, also behind operators that keep the axes."""
    found: set[int] = set()
    waiting, seen = [value], {value}
    while waiting:
        for node, index in waiting.pop().uses():
            rule = MIXINGS.find(node.domain, node.op_type, channels.opset)
            if index == 0 and rule is not None:
                found |= set(rule(node, channels))
            if index == 0 and node.op_type in UNARY and node.outputs[0] not in seen:
                waiting.append(node.outputs[0])
                seen.add(node.outputs[0])
    return found
