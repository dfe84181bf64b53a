"""Channel analysis: walk a model once, apply every operator's coupling rule, form the classes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from graph_ops.channels import ChannelClasses, Channels, Dims
from graph_ops.collector import without_collector
from graph_ops.graph import captured_values, node_label
from graph_ops.rules import COUPLINGS
from graph_ops.shape_arithmetic import AxisLength


@without_collector
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
    for node in model.graph:
        if node.op_type == "Shape" and node.domain in ("", "ai.onnx"):
            _freeze_counts(node, channels)
    for output in model.graph.outputs:
        channels.freeze_value(output, f"its channels reach the graph output {output.name!r}")
    return channels.classes()


_PASSES_NUMBERS = frozenset(
    {"Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze"}
)
_READS_SHAPE = frozenset({("Reshape", 1), ("Expand", 1), ("Resize", 3)})
"""Operators (and their input) whose rules couple the lengths they read to the axes they make."""


def _freeze_counts(shape: ir.Node, channels: Channels) -> None:
    """Freeze channels whose count is read and then used other than as the length of an axis."""
    waiting, seen = [shape.outputs[0]], {shape.outputs[0]}
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            reason = f"its count reaches the graph output {value.name!r}"
            channels.freeze_value(shape.inputs[0], reason)
        for node, index in value.uses():
            if node.graph is shape.graph and (node.op_type, index) in _READS_SHAPE:
                continue
            passes = node.op_type in _PASSES_NUMBERS and (index == 0 or node.op_type == "Concat")
            if node.graph is shape.graph and passes:
                waiting += [o for o in node.outputs if o not in seen]
                seen |= set(node.outputs)
                continue
            _freeze_read_lengths(node, index, shape, channels)


def _freeze_read_lengths(node: ir.Node, index: int, shape: ir.Node, channels: Channels) -> None:
    """The lengths at a node's input, or all of the shape where they cannot be told apart."""
    reason = f"its count is used by {node.op_type} {node_label(node)!r}"
    elements = channels.elements(node, index) if node.graph is shape.graph else None
    if elements is None:
        channels.freeze_value(shape.inputs[0], reason)
        return
    for element in elements:
        if isinstance(element, AxisLength):
            channels.freeze(channels.axis(element.value, element.axis), reason)


def _freeze_unknown(node: ir.Node, channels: Channels) -> None:
    """An operator without a rule is never guessed: whatever it reads is frozen."""
    domain = f"{node.domain}." if node.domain else ""
    reason = f"operator {domain}{node.op_type} ({node_label(node)!r}) has no channel rule"
    for value in (*node.inputs, *captured_values(node)):
        channels.freeze_value(value, reason)
