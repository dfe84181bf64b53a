"""Operators that change the shape, not the numbers: Reshape and its relatives, Transpose.

A reshape is read as groups of adjacent axes with equal products. Within a group that holds one
labelled axis, the labels are spread over the group's elements; an output axis can carry them when
each of its indices stands for a set of channels that go together. Splitting C into (a, b) so
couples index j across all a, and merging (C, h, w) into one axis repeats each label h·w times.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, Dims, Labels
from graph_ops.edits import SpellAxes, SpellCount
from graph_ops.graph import (
    constant_ints,
    int_list_of,
    int_of,
    node_label,
    normalized_axis,
)
from graph_ops.rules.lists import is_read_in_order
from graph_ops.rules.mixing import mixed_axes
from graph_ops.rules.registry import coupling
from graph_ops.rules.unary import Unary, unary
from graph_ops.shape_arithmetic import AxisLength


@coupling("Flatten")
def couple_flatten(node: ir.Node, channels: Channels) -> None:
    """(d0 … d_axis−1, d_axis … d_n): each side is one row-major axis."""
    _reshape(node, channels)


@coupling("Reshape", since=5)
def couple_reshape(node: ir.Node, channels: Channels) -> None:
    """The stored shape spells channel counts, which follow the channels."""
    if is_read_in_order(node, channels):
        return
    out = _reshape(node, channels)
    numbers = constant_ints(node.inputs[1])
    if numbers is None:
        channels.follow_lengths(node, 1, out, f"Reshape {node_label(node)!r}")
        return
    x_axes = channels.axes(node.inputs[0])
    for axis, labels in enumerate(out):
        if labels is None:
            continue
        copies = numbers[axis] == 0 and not int_of(node, "allowzero", 0)
        is_same = axis < len(x_axes) and x_axes[axis] is labels
        if numbers[axis] > 0 or (copies and not is_same):
            channels.edit(SpellCount(node, 1, axis, labels))


def _reshape(node: ir.Node, channels: Channels) -> list[Labels | None]:
    x = node.inputs[0]
    assert x is not None
    dims, out_dims = channels.dims(x), channels.dims(node.outputs[0])
    if dims is not None and out_dims is not None:
        out_dims = _complete(node, channels, dims, out_dims)
    axes = channels.axes(x)
    reason = f"{node.op_type} {node_label(node)!r} regroups it in a way that cannot be followed"
    if dims is None or out_dims is None:
        channels.freeze_value(x, f"the shape of {node.op_type} {node_label(node)!r} is not known")
        return []
    out: list[Labels | None] = [None] * len(out_dims)
    mixed = mixed_axes(node.outputs[0], channels)
    for sources, results in match_groups(dims, out_dims):
        labelled = [a for a in sources if axes[a] is not None]
        if len(labelled) > 1:
            for a in [a for a in labelled if channels.gives_way(axes[a])]:
                channels.freeze(axes[a], reason)
                labelled.remove(a)
        if not labelled:
            continue
        moved = _moved_to_batch(dims, sources, out_dims, results)
        if len(labelled) > 1 or moved is None:
            for a in labelled:
                channels.freeze(axes[a], reason)
            continue
        into, out_of = moved
        prefers_first = len(dims) == 2 and len(out_dims) > 2
        sizes = [(a, d) for a in results if (d := out_dims[a]) is not None]
        axis, labels = _carry(
            channels,
            np.tile(_spread(dims, sources, labelled[0], axes[labelled[0]]), out_of),
            [(_BATCH, into), *sizes] if into > 1 else sizes,
            mixed,
            prefers_first,
        )
        if axis is None or axis == _BATCH:
            channels.freeze(axes[labelled[0]], reason)
            continue
        if len(sources) == len(results) == 1:
            labels = axes[labelled[0]]
        out[axis] = labels
    channels.set_axes(node.outputs[0], out)
    return channels.axes(node.outputs[0])


def _complete(node: ir.Node, channels: Channels, dims: Dims, out_dims: Dims) -> Dims:
    """Work out the −1 of a shape that begins with the input's own batch, read at run time."""
    unknown = [axis for axis, d in enumerate(out_dims) if d is None]
    if not dims or dims[0] is not None or None in dims[1:] or len(unknown) != 2 or unknown[0] != 0:
        return out_dims
    elements = channels.elements(node, 1) if node.op_type == "Reshape" else None
    x = node.inputs[0]
    if x is None or not elements or elements[0] != AxisLength(x, 0):
        return out_dims
    known = math.prod(d for d in out_dims if d is not None)
    missing = math.prod(d for d in dims if d is not None) // max(1, known)
    return tuple(missing if axis == unknown[1] else d for axis, d in enumerate(out_dims))


CHANNELS_LAST = [0, 2, 3, 1]
"""How a Transpose puts the channels of images (N, C, H, W) last."""
_BATCH = -1
"""Stands for a part of the batch where axes are numbered."""


def _moved_to_batch(
    dims: Dims, sources: Sequence[int], out_dims: Dims, results: Sequence[int]
) -> tuple[int, int] | None:
    """How many parts of a group of axes go into the batch before it, and come out of it.

    (N, h·d) → (N·h, d) and back is how heads of attention are told apart. What an index stands for
    within a row does not depend on the batch. None where open axes leave that unknown.
    """
    shapes = [dims[a] for a in sources], [out_dims[a] for a in results]
    if all(d is not None for d in (*shapes[0], *shapes[1])):
        return 1, 1
    if any(not s or s[0] is not None or None in s[1:] for s in shapes):
        return None
    before, after = (math.prod(int(d or 0) for d in s[1:]) for s in shapes)
    if before % max(after, 1) == 0:
        return before // max(after, 1), 1
    return (1, after // before) if before and after % before == 0 else None


def _spread(dims: Dims, sources: Sequence[int], labelled: int, labels: Labels | None) -> Labels:
    """Label of every element of a group, row-major; of one row where the batch is in the group."""
    assert labels is not None
    inner = [a for a in sources if dims[a] is not None]
    sizes = [int(dims[a] or 0) for a in inner]
    shape = [1] * len(inner)
    shape[inner.index(labelled)] = -1
    return np.broadcast_to(labels.reshape(shape), sizes).reshape(-1)


def _carry(
    channels: Channels,
    elements: Labels,
    results: Sequence[tuple[int, int]],
    mixed: Collection[int],
    prefers_first: bool,
) -> tuple[int | None, Labels | None]:
    """The output axis that carries the labels, and its labels.

    Of the axes, the one that keeps most channels apart is taken, after what is coupled already
    (the groups of a convolution before a shuffle); among equals the last (channels of a group), or
    the first when rows are unfolded into (C, h, w). One that a reader mixes (the moments of groups)
    is taken only where there is no other.
    """
    shape = [size for _, size in results]
    best: tuple[int, int] | None = None
    apart = [p for p in range(len(results)) if _independent(elements, shape, p) > 1]
    apart = [p for p in apart if results[p][0] not in mixed] or apart
    is_choice = len(apart) > 1
    for position in apart if prefers_first else reversed(apart):
        count = _independent(elements, shape, position)
        if is_choice:
            rows = np.moveaxis(elements.reshape(shape), position, 0).reshape(shape[position], -1)
            count = max(2, channels.classes_among(rows[:, 0]))
        if best is None or (count > best[0] and not prefers_first):
            best = (count, position)
    if best is None:
        return None, None
    rows = np.moveaxis(elements.reshape(shape), best[1], 0).reshape(shape[best[1]], -1)
    for column in rows.T[1:]:
        if not np.array_equal(column, rows[:, 0]):
            channels.couple(rows[:, 0], column, "indices of one axis go together")
    return results[best[1]][0], np.ascontiguousarray(rows[:, 0])


def _independent(elements: Labels, shape: Sequence[int], position: int) -> int:
    """Upper bound on the channels an axis keeps apart: its length, or its distinct labels."""
    if shape[position] == 1:
        return 0
    rows = np.moveaxis(elements.reshape(shape), position, 0).reshape(shape[position], -1)
    return int(np.unique(rows.min(axis=1)).size)


def match_groups(dims: Dims, out_dims: Dims) -> list[tuple[list[int], list[int]]]:
    """Groups of adjacent axes of input and output that hold the same elements.

    Axes are matched from the right by their products; axes whose length is symbolic (the batch)
    are matched with each other when everything to their right is. Axes of length 1 join no group.
    """
    groups: list[tuple[list[int], list[int]]] = []
    left = [a for a, d in enumerate(dims) if d != 1]
    right = [a for a, d in enumerate(out_dims) if d != 1]
    while left or right:
        sources: list[int] = []
        results: list[int] = []
        if left and right and dims[left[-1]] is None and out_dims[right[-1]] is None:
            groups.append(([left.pop()], [right.pop()]))
            continue
        while True:
            is_static = all(dims[a] is not None for a in sources) and all(
                out_dims[a] is not None for a in results
            )
            a_size = math.prod(int(dims[a] or 1) for a in sources)
            b_size = math.prod(int(out_dims[a] or 1) for a in results)
            if sources and results and a_size == b_size and is_static:
                break
            takes_left = bool(left) and (
                not sources or not right or not is_static or a_size < b_size
            )
            if takes_left:
                sources.insert(0, left.pop())
            elif right:
                results.insert(0, right.pop())
            else:
                break
        groups.append((sources, results))
    return groups[::-1]


@coupling("Squeeze")
def couple_squeeze(node: ir.Node, channels: Channels) -> None:
    """Axes of length 1 go."""
    x = node.inputs[0]
    assert x is not None
    axes, dims = channels.axes(x), channels.dims(x) or ()
    given = channels.known_ints(node, "axes", 1)
    if given is None:
        gone = {a for a, d in enumerate(dims) if d == 1}
        for labels in axes:
            if labels is not None:
                channels.edit(SpellAxes(node, tuple(sorted(gone)), labels, channels.opset < 13))
    else:
        gone = {normalized_axis(a, len(axes)) for a in given}
    channels.set_axes(node.outputs[0], [a for i, a in enumerate(axes) if i not in gone])


@coupling("Unsqueeze")
def couple_unsqueeze(node: ir.Node, channels: Channels) -> None:
    """Axes of length 1 come in."""
    axes = list(channels.axes(node.inputs[0]))
    given = channels.known_ints(node, "axes", 1)
    if given is None:
        channels.freeze_value(node.inputs[0], f"the axes of {node_label(node)!r} are computed")
        return
    rank = len(axes) + len(given)
    for axis in sorted(normalized_axis(a, rank) for a in given):
        axes.insert(axis, None)
    channels.set_axes(node.outputs[0], axes)


@unary("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape_gradient(u: Unary) -> ir.Value:
    """The numbers stay in order: back to the input's shape."""
    return u.tape.reshape_like(u.g, u.x)


@coupling("Transpose")
def couple_transpose(node: ir.Node, channels: Channels) -> None:
    """Axes are permuted (reversed when `perm` is not given)."""
    axes = channels.axes(node.inputs[0])
    perm = int_list_of(node, "perm", range(len(axes) - 1, -1, -1))
    channels.set_axes(node.outputs[0], [axes[p] for p in perm] if axes else [])


@unary("Transpose")
def transpose_gradient(u: Unary) -> ir.Value:
    """The inverse permutation; to where channels stand second, into the blocked layout."""
    rank = len(u.tape.dims(u.x))
    perm = int_list_of(u.node, "perm", range(rank - 1, -1, -1))
    back = u.tape.op("Transpose", u.g, perm=[perm.index(axis) for axis in range(rank)])
    is_image = perm == CHANNELS_LAST and u.tape.may_be_blocked(u.x)
    return u.tape.blocked(back, rank) if is_image else back


@coupling("Shape", "Size")
def couple_shape(node: ir.Node, channels: Channels) -> None:
    """A count read at run time follows the channels by itself (see `analysis` for its uses)."""


@coupling("EyeLike")
def couple_eye_like(node: ir.Node, channels: Channels) -> None:
    """The result depends on the number of channels."""
    channels.freeze_value(
        node.inputs[0], f"{node.op_type} {node_label(node)!r} depends on its count"
    )


@coupling("Constant", "Range")
def couple_constant(node: ir.Node, channels: Channels) -> None:
    """Stored or generated tensors; their own uses label them."""
