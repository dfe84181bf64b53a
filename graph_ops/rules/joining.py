"""Operators that join, part or pad an axis: Concat, Split, Slice, Gather, Pad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, Labels
from graph_ops.edits import RenumberIndices, SpellCount, SpellRange, SpellSplit
from graph_ops.graph import (
    constant_array,
    constant_ints,
    input_at,
    int_of,
    ints_of,
    is_computed,
    node_label,
    normalized_axis,
)
from graph_ops.rules.registry import coupling


@coupling("Concat")
def couple_concat(node: ir.Node, channels: Channels) -> None:
    """Labels are joined along the axis; on the others they are the same channels."""
    values = [v for v in node.inputs if v is not None]
    name = f"Concat {node_label(node)!r}"
    rank = channels.rank(node.outputs[0])
    shapes = [channels.dims(v) for v in values]
    axis = normalized_axis(int_of(node, "axis", 1), rank)
    if rank == 0 or any(s is None or len(s) != rank for s in shapes):
        for value in values:
            channels.freeze_value(value, f"the shape of an input of {name} is not known")
        return
    out: list[Labels | None] = []
    for position in range(rank):
        columns = [channels.axis(v, position) for v in values]
        if position == axis:
            sizes = [s[axis] if s is not None else None for s in shapes]
            out.append(_join(channels, columns, sizes, name))
            continue
        for column in columns[1:]:
            channels.couple(columns[0], column, f"{name} joins it with other channels")
        out.append(columns[0])
    channels.set_axes(node.outputs[0], out)


def _join(
    channels: Channels,
    columns: Sequence[Labels | None],
    sizes: Sequence[int | None],
    name: str,
) -> Labels | None:
    if all(c is None for c in columns):
        return None
    if any(s is None for s in sizes):
        for column in columns:
            channels.freeze(column, f"{name} joins it with an axis of unknown length")
        return None
    parts = [
        c if c is not None else channels.opaque(int(s or 0), f"{name} joins fixed channels")
        for c, s in zip(columns, sizes, strict=True)
    ]
    return np.concatenate(parts)


@coupling("Split")
def couple_split(node: ir.Node, channels: Channels) -> None:
    """Labels are parted along the axis; the sizes follow them."""
    x = node.inputs[0]
    axes = channels.axes(x)
    axis = normalized_axis(int_of(node, "axis", 0), len(axes))
    labels = channels.axis(x, axis)
    as_attribute = channels.opset < 13
    sizes = ints_of(node, "split", 1)
    if labels is not None and sizes is None:
        if is_computed(node, "split", 1):
            channels.freeze(labels, f"the sizes of Split {node_label(node)!r} are computed")
        part = -(-labels.size // len(node.outputs))
        sizes = [min(part, labels.size - i * part) for i in range(len(node.outputs))]
    if labels is None or sizes is None or sum(sizes) != labels.size:
        channels.freeze(labels, f"the sizes of Split {node_label(node)!r} do not add up")
        for output in node.outputs:
            channels.set_axes(output, [a if i != axis else None for i, a in enumerate(axes)])
        return
    parts = np.split(labels, np.cumsum(sizes)[:-1])
    channels.edit(SpellSplit(node, tuple(parts), as_attribute))
    for output, part_labels in zip(node.outputs, parts, strict=True):
        channels.set_axes(
            output, [a if i != axis else part_labels for i, a in enumerate(axes)]
        )


@coupling("Slice")
def couple_slice(node: ir.Node, channels: Channels) -> None:
    """Labels are sliced along each axis named; starts and ends follow them."""
    x = node.inputs[0]
    axes = list(channels.axes(x))
    name = f"Slice {node_label(node)!r}"
    starts, ends = ints_of(node, "starts", 1), ints_of(node, "ends", 2)
    sliced = ints_of(node, "axes", 3)
    steps = ints_of(node, "steps", 4)
    computed = any(is_computed(node, n, i) for i, n in enumerate(("axes", "steps"), 3))
    if sliced is None:
        sliced = list(range(len(starts or ends or ())))
    if computed:
        channels.freeze_value(x, f"the axes of {name} are computed at run time")
        return
    for element, axis in enumerate(normalized_axis(a, len(axes)) for a in sliced):
        labels = axes[axis]
        if labels is None:
            continue
        step = 1 if steps is None else steps[element]
        if starts is None or ends is None or step != 1:
            channels.freeze(labels, f"{name} takes a part of it that is not a plain range")
            axes[axis] = None
            continue
        start, end, _ = slice(starts[element], ends[element]).indices(labels.size)
        end = max(start, end)
        channels.edit(SpellRange(node, element, start, end, labels))
        axes[axis] = labels[start:end]
    channels.set_axes(node.outputs[0], axes)


@coupling("Gather")
def couple_gather(node: ir.Node, channels: Channels) -> None:
    """Labels are picked by stored indices, which lose those of dropped channels."""
    x, indices = node.inputs[0], node.inputs[1]
    assert x is not None and indices is not None
    axes = channels.axes(x)
    axis = normalized_axis(int_of(node, "axis", 0), len(axes)) if axes else 0
    labels = channels.axis(x, axis)
    index_dims = channels.dims(indices)
    picked: list[Labels | None] = [None] * len(index_dims or ())
    if labels is not None:
        array = constant_array(indices)
        if array is None:
            channels.freeze(labels, f"the indices of Gather {node_label(node)!r} are computed")
        else:
            channels.edit(RenumberIndices(node, 1, labels))
            chosen = labels[array.astype(np.int64)]
            if array.ndim == 1 and array.size > 1:
                channels.couple(chosen, channels.axis(indices, 0), "picked channels")
                picked = [chosen]
            else:
                channels.freeze(
                    chosen.reshape(-1), f"Gather {node_label(node)!r} picks single channels"
                )
    channels.set_axes(node.outputs[0], [*axes[:axis], *picked, *axes[axis + 1 :]])


@coupling("Pad")
def couple_pad(node: ir.Node, channels: Channels) -> None:
    """Padding along a labelled axis makes new channels of a constant value."""
    x = node.inputs[0]
    axes = list(channels.axes(x))
    rank = len(axes)
    name = f"Pad {node_label(node)!r}"
    pads = ints_of(node, "pads", 1)
    padded = constant_ints(input_at(node, 3)) or list(range(rank))
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    if pads is None or (input_at(node, 3) is not None and constant_ints(input_at(node, 3)) is None):
        channels.freeze_value(x, f"the pads of {name} are computed at run time")
        channels.set_axes(node.outputs[0], [None] * rank)
        return
    source: int | str = "pads" if "pads" in node.attributes else 1
    for position, axis in enumerate(normalized_axis(a, rank) for a in padded):
        labels = axes[axis]
        before, after = pads[position], pads[position + len(padded)]
        if labels is None or (before == 0 and after == 0):
            continue
        if mode != "constant" or before < 0 or after < 0:
            channels.freeze(labels, f"{name} pads it other than with a constant")
            axes[axis] = None
            continue
        first, last = channels.fresh(before), channels.fresh(after)
        channels.edit(SpellCount(node, source, position, first))
        channels.edit(SpellCount(node, source, position + len(padded), last))
        axes[axis] = np.concatenate([first, labels, last])
    channels.set_axes(node.outputs[0], axes)
