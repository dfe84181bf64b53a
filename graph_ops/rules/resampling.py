"""Resize, Upsample, DepthToSpace and SpaceToDepth."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.edits import SpellCount
from graph_ops.graph import (
    constant_array,
    constant_ints,
    input_at,
    int_list_of,
    int_of,
    node_label,
    string_of,
)
from graph_ops.rules.registry import coupling


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
    passed = []
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
        elif not channels.follows(node, sizes_index, resized.index(axis), labels):
            channels.freeze(labels, f"the sizes of {node_label(node)!r} are computed at run time")
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
