"""Channel analysis: walk a model once, apply every operator's coupling rule, form the classes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graph_ops.channels import ChannelClasses, Channels, Dims
from graph_ops.graph import captured_values, node_label
from graph_ops.rules import COUPLINGS


def analyse(model: ir.Model, shapes: Mapping[str, Dims]) -> ChannelClasses:
    """Channel classes of a model.

    Args:
        model: The model, its nodes in topological order; it is not changed.
        shapes: Shape of every value by name, None for symbolic dimensions.
    """
    channels = Channels(model, shapes)
    for node in model.graph:
        rule = COUPLINGS.find(node.domain, node.op_type, channels.opset)
        if rule is None:
            _freeze_unknown(node, channels)
        else:
            rule(node, channels)
    for output in model.graph.outputs:
        channels.freeze_value(output, f"its channels reach the graph output {output.name!r}")
    return channels.classes()


def _freeze_unknown(node: ir.Node, channels: Channels) -> None:
    """An operator without a rule is never guessed: whatever it reads is frozen."""
    domain = f"{node.domain}." if node.domain else ""
    reason = f"operator {domain}{node.op_type} ({node_label(node)!r}) has no channel rule"
    for value in (*node.inputs, *captured_values(node)):
        channels.freeze_value(value, reason)
