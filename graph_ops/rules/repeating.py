"""Operators that repeat what they read: Expand, Tile, ConstantOfShape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, Labels
from graph_ops.edits import SpellCount
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_ints, is_root_constant, node_label
from graph_ops.rules.axis_maps import dims_for_reshape, static_length
from graph_ops.rules.registry import coupling, gradient
from graph_ops.rules.unary import Unary, unary
from graph_ops.shape_arithmetic import AxisLength, Element, StoredElement


@coupling("Expand")
def couple_expand(node: ir.Node, channels: Channels) -> None:
    """Channels pass where the axis is not repeated; a repeated single channel makes copies."""
    x, shape = node.inputs[0], node.inputs[1]
    assert x is not None
    assert shape is not None
    axes, dims = channels.axes(x), channels.dims(x)
    out_dims, elements = channels.dims(node.outputs[0]), channels.elements(node, 1)
    name = f"Expand {node_label(node)!r}"
    if dims is None or out_dims is None or elements is None:
        channels.freeze_value(x, f"the shape of {name} is not known")
        return
    out: list[Labels | None] = [None] * len(out_dims)
    for axis in range(len(out_dims)):
        source = axis - len(out_dims) + len(dims)
        element = axis - len(out_dims) + len(elements)
        out[axis] = axes[source] if source >= 0 else None
        if out[axis] is None and element >= 0 and (source < 0 or dims[source] == 1):
            out[axis] = _repeated(elements[element], channels)
    # A 1 leaves an axis as it is: nothing to follow.
    described = [
        None if e is not None and isinstance(e, StoredElement) and e.number == 1 else labels
        for e, labels in zip(elements[::-1], out[::-1], strict=False)
    ]
    channels.follow_lengths(node, 1, described[::-1], name)
    channels.set_axes(node.outputs[0], out)


def _repeated(element: Element, channels: Channels) -> Labels | None:
    """Labels of an axis that holds copies of one channel: as many as a length, or as told."""
    if isinstance(element, AxisLength):
        return channels.axis(element.value, element.axis)
    if isinstance(element, StoredElement) and element.number > 1:
        return channels.copies(element.number)
    return None


@unary("Expand")
def expand_gradient(u: Unary) -> ir.Value:
    """Copies add up."""
    return u.tape.unbroadcast(u.g, u.x, u.y)


@coupling("Tile")
def couple_tile(node: ir.Node, channels: Channels) -> None:
    """Copies side by side: the channels of an axis come again, in the same order."""
    x = node.inputs[0]
    axes, dims = channels.axes(x), () if x is None else channels.dims(x) or ()
    elements = channels.elements(node, 1)
    name = f"Tile {node_label(node)!r}"
    out: list[Labels | None] = []
    for axis, labels in enumerate(axes):
        element = elements[axis] if elements is not None and axis < len(elements) else None
        count = element.number if isinstance(element, StoredElement) else None
        if labels is not None and count is None:
            channels.freeze(labels, f"the repeats of {name} are computed at run time")
            out.append(None)
        elif labels is not None:
            out.append(np.tile(labels, count or 0))
        else:
            out.append(_repeated(element, channels) if dims[axis] == 1 else None)
    described = [o if a is None else None for a, o in zip(axes, out, strict=True)]
    for element, labels in zip(elements or (), described, strict=False):
        if labels is not None and isinstance(element, StoredElement):
            channels.store(element.node, element.source, labels)
            slot = (element.node, element.source, element.element)
            channels.edit(SpellCount(*slot, labels))
    channels.set_axes(node.outputs[0], out)


@gradient("Tile")
def tile_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Copies add up: each repeated axis is parted into (copies, length) and summed."""
    x, g = node.inputs[0], gradients[0]
    repeats = constant_ints(node.inputs[1])
    if repeats is None or x is None or g is None:
        raise tape.refuse(node, "its repeats are computed at run time")
    dims = dims_for_reshape(tape, x)
    shape: list[int] = []
    copies: list[int] = []
    for length, count in zip(dims, repeats, strict=True):
        if count != 1:
            static_length(node, tape, [length], 0)
            copies.append(len(shape))
            shape.append(count)
        shape.append(length)
    if not copies:
        return [g]
    return [tape.sum_over(tape.op("Reshape", g, tape.ints(shape)), copies)]


@coupling("ConstantOfShape")
def couple_constant_of_shape(node: ir.Node, channels: Channels) -> None:
    """One number everywhere: every axis is as long as its users need it."""
    elements = channels.elements(node, 0)
    if is_root_constant(node.outputs[0]) or elements is None:
        return
    out = [_repeated(element, channels) for element in elements]
    channels.follow_lengths(node, 0, out, f"ConstantOfShape {node_label(node)!r}")
    channels.set_axes(node.outputs[0], out)
