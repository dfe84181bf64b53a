"""Resize, Upsample, DepthToSpace and SpaceToDepth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channels import Channels, Labels
from graph_ops.edits import SpellCount
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import (
    constant_array,
    constant_ints,
    input_at,
    int_list_of,
    int_of,
    node_label,
    normalized_axis,
    string_of,
)
from graph_ops.rules.axis_maps import apply_transpose, dims_for_reshape, static_length
from graph_ops.rules.interpolation import interpolation_matrix
from graph_ops.rules.registry import coupling, gradient


@coupling("Resize", "Upsample")
def couple_resize(node: ir.Node, channels: Channels) -> None:
    """Channels pass where the scale is 1; `sizes` spells their count."""
    x = node.inputs[0]
    assert x is not None
    axes = channels.axes(x)
    dims, out_dims = channels.dims(x), channels.dims(node.outputs[0])
    sizes_index = 3 if node.op_type == "Resize" else -1
    sizes = input_at(node, sizes_index) if sizes_index >= 0 else None
    resized = int_list_of(node, "axes", range(len(axes)))
    passed: list[Labels | None] = []
    for axis, labels in enumerate(axes):
        is_kept = dims is not None and out_dims is not None and dims[axis] == out_dims[axis]
        if labels is not None and not is_kept:
            channels.freeze(labels, f"{node.op_type} {node_label(node)!r} resizes it")
            passed.append(None)
            continue
        passed.append(labels)
        if labels is None or sizes is None or axis not in resized:
            continue
        if constant_ints(sizes) is not None:
            channels.edit(SpellCount(node, sizes_index, resized.index(axis), labels))
    if sizes is not None and constant_ints(sizes) is None:
        described = [passed[normalized_axis(a, len(axes))] for a in resized] if axes else []
        channels.follow_lengths(
            node, sizes_index, described, f"{node.op_type} {node_label(node)!r}"
        )
    if string_of(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        roi = constant_array(input_at(node, 1))
        if roi is None or not _covers_all(roi, len(axes), passed):
            channels.freeze_value(x, f"Resize {node_label(node)!r} crops")
    channels.set_axes(node.outputs[0], passed)


def _covers_all(roi: np.ndarray, rank: int, passed: list[np.ndarray | None]) -> bool:
    """Whether the region of interest is the whole of every labelled axis."""
    if roi.size != 2 * rank:
        return False
    return all(
        labels is None or (roi[axis] == 0 and roi[rank + axis] == 1)
        for axis, labels in enumerate(passed)
    )


@coupling("DepthToSpace")
def couple_depth_to_space(node: ir.Node, channels: Channels) -> None:
    """Output channel c is woven from b² input channels, which go together.

    Input channel of (row r, column s, c): DCR (r·b + s)·C' + c; CRD c·b² + r·b + s.
    """
    labels = channels.axis(node.inputs[0], 1)
    if labels is None:
        channels.set_axes(node.outputs[0], [None] * 4)
        return
    block = int_of(node, "blocksize", 1) ** 2
    if string_of(node, "mode", "DCR") == "CRD":
        table = labels.reshape(-1, block).T
    else:
        table = labels.reshape(block, -1)
    for row in table[1:]:
        channels.couple(table[0], row, f"{node_label(node)!r} weaves channels")
    channels.set_axes(node.outputs[0], [None, np.ascontiguousarray(table[0]), None, None])


@coupling("SpaceToDepth")
def couple_space_to_depth(node: ir.Node, channels: Channels) -> None:
    """Input channel c becomes b² output channels (r·b + s)·C + c."""
    labels = channels.axis(node.inputs[0], 1)
    block = int_of(node, "blocksize", 1) ** 2
    tiled = None if labels is None else np.tile(labels, block)
    channels.set_axes(node.outputs[0], [None, tiled, None, None])


@gradient("Resize", "Upsample")
def resize_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The transpose of each axis' interpolation, one axis after the other."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    if string_of(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise tape.refuse(node, "its keep_aspect_ratio_policy is not stretch")
    dims, out_dims = dims_for_reshape(tape, x), dims_for_reshape(tape, node.outputs[0])
    scales = scales_of(node, tape, dims, out_dims)
    matrices: dict[int, NDArray[np.float32]] = {}
    for axis, scale in scales.items():
        if scale == 1 and dims[axis] == out_dims[axis]:
            continue
        length = static_length(node, tape, dims, axis)
        matrices[axis] = interpolation_matrix(node, tape, length, out_dims[axis], scale)
    factors = _repetitions(matrices, len(dims))
    if factors is not None:
        return [_sum_blocks(tape, g, factors, like=x)]
    present = list(out_dims)
    for axis, matrix in matrices.items():
        g = apply_transpose(tape, g, present, axis, matrix, like=x)
        present[axis] = dims[axis]
    return [g]


def scales_of(
    node: ir.Node, tape: BackwardTape, dims: Sequence[int], out_dims: Sequence[int]
) -> dict[int, np.float32]:
    """Scale of each resized axis, as ONNX Runtime has it: given, or the quotient of the sizes.

    Sizes name the batch too, which they cannot change.
    """
    rank = len(dims)
    axes = [normalized_axis(a, rank) for a in int_list_of(node, "axes", range(rank))]
    given = input_at(node, 2 if node.op_type == "Resize" else 1)
    scales = constant_array(given)
    if scales is not None and scales.size:
        return {a: np.float32(s) for a, s in zip(axes, scales.reshape(-1), strict=True)}
    if input_at(node, 3) is None:
        raise tape.refuse(node, "its scales are computed at run time")
    return {a: np.float32(out_dims[a]) / np.float32(dims[a]) for a in axes if dims[a] > 0}


def _repetitions(matrices: dict[int, NDArray[np.float32]], rank: int) -> list[int] | None:
    """Per spatial axis, how often each element is repeated, where that is all that happens."""
    factors = [1] * (rank - 2)
    for axis, matrix in matrices.items():
        outputs, inputs = matrix.shape
        factor = outputs // inputs
        if axis < 2 or outputs % inputs:
            return None
        if not np.array_equal(matrix, np.repeat(np.eye(inputs), factor, axis=0)):
            return None
        factors[axis - 2] = factor
    return factors if 1 <= len(factors) <= 3 else None


def _sum_blocks(
    tape: BackwardTape, gradient: ir.Value, factors: Sequence[int], like: ir.Value
) -> ir.Value:
    """Sum over the copies of each element: an average over tiles, times their size."""
    average = tape.op("AveragePool", gradient, kernel_shape=list(factors), strides=list(factors))
    return tape.op("Mul", average, tape.scalar(math.prod(factors), like=like))


@gradient("DepthToSpace")
def depth_to_space_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Its inverse: SpaceToDepth for DCR, and the same with the axes in another order for CRD."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    block = int_of(node, "blocksize", 1)
    if string_of(node, "mode", "DCR") != "CRD":
        return [tape.op("SpaceToDepth", g, blocksize=block)]
    channels, height, width = tape.spatial(x, 1)
    parted = tape.op(
        "Reshape", g, tape.ints([-1, channels // block**2, height, block, width, block])
    )
    moved = tape.op("Transpose", parted, perm=[0, 1, 3, 5, 2, 4])
    return [tape.op("Reshape", moved, tape.ints([-1, channels, height, width]))]


@gradient("SpaceToDepth")
def space_to_depth_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Its inverse, DepthToSpace."""
    g = gradients[0]
    if g is None:
        return []
    return [tape.op("DepthToSpace", g, blocksize=int_of(node, "blocksize", 1), mode="DCR")]
