"""Operators that join, part or pad an axis: Concat, Split, Slice, Gather, Pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, Labels
from graph_ops.edits import PassOn, RenumberIndices, SpellCount, SpellRange, SpellSplit
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import (
    constant_array,
    constant_ints,
    input_at,
    int_of,
    ints_of,
    is_computed,
    node_label,
    normalized_axis,
    string_of,
)
from graph_ops.rules.axis_maps import dims_for_reshape, static_length, unpick
from graph_ops.rules.lists import tensor_read_in_order
from graph_ops.rules.registry import coupling, gradient
from graph_ops.rules.windows import crop_or_pad


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
    sizes = channels.known_ints(node, "split", 1)
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
    channels.store(node, 1, labels)
    channels.edit(SpellSplit(node, tuple(parts), as_attribute))
    for output, part_labels in zip(node.outputs, parts, strict=True):
        channels.set_axes(output, [a if i != axis else part_labels for i, a in enumerate(axes)])


@coupling("SplitToSequence")
def couple_split_to_sequence(node: ir.Node, channels: Channels) -> None:
    """As Split, into a sequence; SequenceAt takes the parts out."""
    labels, parts = _sequence_parts(node, channels)
    readers = [use.node for output in node.outputs for use in output.uses()]
    if labels is None:
        return
    if parts is None or any(reader.op_type != "SequenceAt" for reader in readers):
        channels.freeze(labels, f"the parts of {node.op_type} {node_label(node)!r} are not known")
        return
    channels.store(node, 1, labels)
    channels.edit(SpellSplit(node, tuple(parts), as_attribute=False))


@coupling("SequenceAt")
def couple_sequence_at(node: ir.Node, channels: Channels) -> None:
    """One part of a split tensor."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    position = channels.known_ints(node, "position", 1)
    if source is None or source.op_type != "SplitToSequence" or position is None:
        return
    labels, parts = _sequence_parts(source, channels)
    axes = list(channels.axes(source.inputs[0]))
    if labels is not None:
        axis = normalized_axis(int_of(source, "axis", 0), len(axes))
        axes[axis] = None if parts is None else parts[position[0]]
    channels.set_axes(node.outputs[0], axes)


def _sequence_parts(node: ir.Node, channels: Channels) -> tuple[Labels | None, list[Labels] | None]:
    """Labels of the axis that SplitToSequence parts, and of each part (None when not known)."""
    axes = channels.axes(node.inputs[0])
    axis = normalized_axis(int_of(node, "axis", 0), len(axes))
    labels = channels.axis(node.inputs[0], axis)
    sizes = channels.known_ints(node, "split", 1)
    if labels is None or not sizes or not int_of(node, "keepdims", 1):
        return labels, None
    if len(sizes) == 1:
        sizes = [sizes[0]] * (labels.size // max(sizes[0], 1))
        sizes += [labels.size - sum(sizes)] * (sum(sizes) < labels.size)
    if sum(sizes) != labels.size:
        return labels, None
    return labels, np.split(labels, np.cumsum(sizes)[:-1])


@coupling("Slice")
def couple_slice(node: ir.Node, channels: Channels) -> None:
    """Labels are sliced along each axis named; starts and ends follow them."""
    x = node.inputs[0]
    axes = list(channels.axes(x))
    name = f"Slice {node_label(node)!r}"
    starts, ends, sliced, steps = (
        channels.known_ints(node, n, i)
        for i, n in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    computed = any(
        is_computed(node, n, i) and numbers is None
        for n, i, numbers in (("axes", 3, sliced), ("steps", 4, steps))
    )
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
        for index in (1, 2):
            channels.store(node, index, labels)
        channels.edit(SpellRange(node, element, start, end, labels))
        axes[axis] = labels[start:end]
    channels.set_axes(node.outputs[0], axes)


@coupling("Gather")
def couple_gather(node: ir.Node, channels: Channels) -> None:
    """Labels are picked by stored indices, which lose those of dropped channels."""
    x, indices = node.inputs[0], node.inputs[1]
    assert x is not None
    assert indices is not None
    restored = tensor_read_in_order(node, channels)
    if restored is not None:
        counted = [a for a in channels.axes(restored) if a is not None]
        if counted:
            channels.edit(PassOn(node, np.concatenate(counted)))
        channels.set_axes(node.outputs[0], channels.axes(restored))
        return
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
    pads = channels.known_ints(node, "pads", 1)
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
        if source == 1:
            channels.store(node, 1, np.concatenate([first, last]))
        channels.edit(SpellCount(node, source, position, first))
        channels.edit(SpellCount(node, source, position + len(padded), last))
        axes[axis] = np.concatenate([first, labels, last])
    channels.set_axes(node.outputs[0], axes)


@gradient("Concat")
def concat_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The gradient's part of each input."""
    g = gradients[0]
    if g is None:
        return []
    dims = [dims_for_reshape(tape, v) for v in node.inputs]
    axis = normalized_axis(int_of(node, "axis", 1), len(dims[0]))
    sizes = [static_length(node, tape, d, axis) for d in dims]
    if len(sizes) == 1:
        return [g]
    parts = tape.ops("Split", g, tape.ints(sizes), outputs=len(sizes), axis=axis)
    return [p if tape.needs(v) else None for v, p in zip(node.inputs, parts, strict=True)]


@gradient("Split")
def split_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The parts' gradients joined, zeros where a part has none."""
    x = node.inputs[0]
    dims = dims_for_reshape(tape, x)
    axis = normalized_axis(int_of(node, "axis", 0), len(dims))
    length = static_length(node, tape, dims, axis)
    count = len(node.outputs)
    sizes = ints_of(node, "split", 1)
    if sizes is None:
        if is_computed(node, "split", 1):
            raise tape.refuse(node, "its sizes are computed at run time")
        part = -(-length // int_of(node, "num_outputs", count))
        sizes = [min(part, length - i * part) for i in range(count)]
    parts = []
    for size, part_gradient in zip(sizes, gradients, strict=True):
        if part_gradient is None:
            part_gradient = _zeros(tape, x, [*dims[:axis], size, *dims[axis + 1 :]])
        parts.append(part_gradient)
    return [tape.op("Concat", *parts, axis=axis) if count > 1 else parts[0]]


def _zeros(tape: BackwardTape, like: ir.Value | None, dims: Sequence[int]) -> ir.Value:
    """Zeros of a shape whose −1 is the batch of `like`."""
    assert like is not None
    shape = tape.ints(dims)
    if -1 in dims:
        axis = dims.index(-1)
        batch = tape.op("Shape", like, start=axis, end=axis + 1)
        parts = [tape.ints(part) for part in (dims[:axis], dims[axis + 1 :]) if part]
        shape = tape.op("Concat", *parts[: axis > 0], batch, *parts[axis > 0 :], axis=0)
    return tape.op("Expand", tape.scalar(0.0, like=like), shape)


@gradient("Slice")
def slice_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Zeros around and between what was taken."""
    g = gradients[0]
    if g is None:
        return []
    x_dims, dims = dims_for_reshape(tape, node.inputs[0]), dims_for_reshape(tape, node.outputs[0])
    rank = len(dims)
    starts, ends = ints_of(node, "starts", 1), ints_of(node, "ends", 2)
    axes, steps = ints_of(node, "axes", 3), ints_of(node, "steps", 4)
    if starts is None or ends is None or any(is_computed(node, *a) for a in _SLICE_OPTIONS):
        raise tape.refuse(node, "its ranges are computed at run time")
    before, after = [0] * rank, [0] * rank
    for start, end, axis, step in zip(
        starts,
        ends,
        axes if axes is not None else range(len(starts)),
        steps if steps is not None else [1] * len(starts),
        strict=True,
    ):
        axis = normalized_axis(axis, rank)
        if x_dims[axis] < 0 and (start, step) == (0, 1) and end >= _NO_END:
            continue
        length = static_length(node, tape, x_dims, axis)
        taken = np.arange(*slice(start, end, step).indices(length), dtype=np.int64)
        if step == 1:
            before[axis] = int(taken[0]) if taken.size else length
            after[axis] = length - taken.size - before[axis]
        else:
            g = unpick(node, tape, g, dims, axis, taken, length)
    return [crop_or_pad(tape, g, dims, before, after, first_axis=0)]


_SLICE_OPTIONS = (("axes", 3), ("steps", 4))
_NO_END = 2**31 - 1
"""Smallest end that exporters write for "to the end"."""


@gradient("Gather")
def gather_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """What each position was picked for, added up."""
    g, indices = gradients[0], constant_array(node.inputs[1])
    if g is None:
        return []
    if indices is None:
        raise tape.refuse(node, "its indices are computed at run time")
    dims = dims_for_reshape(tape, node.inputs[0])
    axis = normalized_axis(int_of(node, "axis", 0), len(dims))
    length = static_length(node, tape, dims, axis)
    picked = indices.astype(np.int64).reshape(-1) % length
    flat = [*dims[:axis], picked.size, *dims[axis + 1 :]]
    if indices.ndim != 1:
        g = tape.op("Reshape", g, tape.ints(flat))
    return [unpick(node, tape, g, flat, axis, picked, length)]


@gradient("Pad")
def pad_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The padding is cut off; where it repeats elements, it is added to them."""
    x, g = node.inputs[0], gradients[0]
    if g is None:
        return []
    x_dims, dims = dims_for_reshape(tape, x), dims_for_reshape(tape, node.outputs[0])
    rank = len(dims)
    pads, axes = ints_of(node, "pads", 1), constant_ints(input_at(node, 3))
    if pads is None or (axes is None and input_at(node, 3) is not None):
        raise tape.refuse(node, "its pads are computed at run time")
    axes = [normalized_axis(a, rank) for a in axes] if axes is not None else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = pads[position], pads[position + len(axes)]
    padded = [a for a in range(rank) if before[a] or after[a]]
    for axis in padded:
        static_length(node, tape, x_dims, axis)
    mode = string_of(node, "mode", "constant")
    if mode == "constant":
        return [crop_or_pad(tape, g, dims, [-b for b in before], [-a for a in after], 0)]
    for axis in padded:
        if before[axis] < 0 or after[axis] < 0:
            raise tape.refuse(node, f"it cuts in mode {mode}")
        positions = np.pad(
            np.arange(x_dims[axis]), (before[axis], after[axis]), mode=_NUMPY_MODES[mode]
        )
        g = unpick(node, tape, g, dims, axis, positions, x_dims[axis])
        dims[axis] = x_dims[axis]
    return [g]


_NUMPY_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}
