"""Channel analysis: walk a model once, apply every operator's coupling rule, form the classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graph_ops.canonical import BoundShapes
from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Channels, Dims
from graph_ops.collector import without_collector
from graph_ops.graph import captured_values, is_root_constant, node_label
from graph_ops.rules import COUPLINGS
from graph_ops.shape_arithmetic import CALCULATING, PASSING, lengths_of


@without_collector
def analyse(model: ir.Model, shapes: Mapping[str, Dims] | BoundShapes) -> ChannelClasses:
    """Channel classes of a model.

    Args:
        model: The model, its nodes in topological order; it is not changed.
        shapes: Shape of every value by name, None for symbolic dimensions; with the computed
            numbers that are known, where they were looked for.
    """
    bound = shapes if isinstance(shapes, BoundShapes) else BoundShapes(shapes, {})
    channels = Channels(model, shapes, bound.numbers, bound.in_order)
    for node in model.graph:
        rule = COUPLINGS.find(node.domain, node.op_type, channels.opset)
        if rule is None:
            _freeze_unknown(node, channels)
        else:
            rule(node, channels)
    counts = _counts(channels)
    for node in model.graph:
        if node.op_type in _READS_LENGTHS and node.domain in ("", "ai.onnx"):
            _settle_counts(node, counts, channels)
    for output in model.graph.outputs:
        channels.freeze_value(output, f"its channels reach the graph output {output.name!r}")
    return channels.classes()


_ARITHMETIC = PASSING | CALCULATING
_READS_LENGTHS = frozenset({"Shape", "Size"})
_READS_SHAPE = frozenset({("Reshape", 1), ("Expand", 1), ("Resize", 3), ("ConstantOfShape", 0)})
"""Operators (and their input) whose rules couple the lengths they read to the axes they make."""


def _counts(channels: Channels) -> set[ir.Value]:
    """Values that are made of lengths and known numbers alone."""
    found: set[ir.Value] = set()
    for node in channels.model.graph:
        if node.domain not in ("", "ai.onnx"):
            continue
        is_arithmetic = node.op_type in _ARITHMETIC and any(v in found for v in node.inputs)
        if node.op_type in _READS_LENGTHS or (
            is_arithmetic
            and all(
                v is None or v in found or is_root_constant(v) or _is_known(v, channels)
                for v in node.inputs
            )
        ):
            found |= set(node.outputs)
    return found


def _settle_counts(shape: ir.Node, counts: set[ir.Value], channels: Channels) -> None:
    """Channels whose count is read and used other than as the length of an axis.

    A number that is known is stored where it leaves the arithmetic, should the count change; where
    the number is not known the channels are frozen.
    """
    labelled = [a for a in channels.axes(shape.inputs[0]) if a is not None]
    if not labelled:
        return
    labels = np.concatenate(labelled)
    waiting, seen = [shape.outputs[0]], {shape.outputs[0]}
    while waiting:
        value = waiting.pop()
        if any(axis is not None for axis in channels.axes(value)):
            continue  # a tensor of channels (a bias made by Expand): its own labels follow
        if value.is_graph_output():
            reason = f"its count reaches the graph output {value.name!r}"
            channels.freeze_value(shape.inputs[0], reason)
        is_known = _is_known(value, channels)
        for node, index in value.uses():
            if node.graph is not shape.graph:
                _freeze_read_lengths(node, index, shape, channels)
            elif is_known and not all(_is_known(o, channels) for o in node.outputs if o.name):
                channels.store(node, index, labels)
            elif is_known or node.outputs[0] in counts:
                waiting += [o for o in node.outputs if o not in seen]
                seen |= set(node.outputs)
            elif (node.op_type, index) not in _READS_SHAPE:
                _freeze_read_lengths(node, index, shape, channels)


def _is_known(value: ir.Value, channels: Channels) -> bool:
    return str(value.name) in channels.arithmetic.numbers


def _freeze_read_lengths(node: ir.Node, index: int, shape: ir.Node, channels: Channels) -> None:
    """The lengths at a node's input, or all of the shape where they cannot be told apart."""
    reason = f"its count is used by {node.op_type} {node_label(node)!r}"
    elements = channels.elements(node, index) if node.graph is shape.graph else None
    if elements is None:
        channels.freeze_value(shape.inputs[0], reason)
        return
    for length in lengths_of(elements):
        channels.freeze(channels.axis(length.value, length.axis), reason)


def _freeze_unknown(node: ir.Node, channels: Channels) -> None:
    """An operator without a rule is never guessed: whatever it reads is frozen."""
    domain = f"{node.domain}." if node.domain else ""
    reason = f"operator {domain}{node.op_type} ({node_label(node)!r}) has no channel rule"
    for value in (*node.inputs, *captured_values(node)):
        channels.freeze_value(value, reason)
