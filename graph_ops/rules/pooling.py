"""Pooling over spatial axes: every channel for itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import int_list_of, int_of, node_label
from graph_ops.rules.registry import coupling, gradient
from graph_ops.rules.windows import Windows, crop_or_pad, read_windows, spread_windows


@coupling("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def couple_pool(node: ir.Node, channels: Channels) -> None:
    """Channels pass; whatever is labelled on a spatial axis is mixed and so frozen."""
    axes = channels.axes(node.inputs[0])
    for labels in axes[2:]:
        channels.freeze(labels, f"{node.op_type} {node_label(node)!r} pools over it")
    passed = [*axes[:2], *[None] * len(axes[2:])]
    channels.set_axes(node.outputs[0], passed)
    for indices in node.outputs[1:]:
        channels.freeze(channels.axis(node.inputs[0], 1), "its flat indices count the channels")
        channels.set_axes(indices, [None] * len(passed))


@gradient("MaxPool")
def max_pool_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The gradient goes to the first largest element of each window; overlaps add up."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    kernel = int_list_of(node, "kernel_shape", [])
    windows = read_windows(node, kernel, tape.spatial(x), tape.spatial(node.outputs[0]))
    can_overlap = any(
        d != 1 or s < k
        for k, s, d in zip(windows.kernel, windows.strides, windows.dilations, strict=True)
    )
    attributes = _attributes_of(node)
    attributes.pop("storage_order", None)
    _, indices = tape.ops("MaxPool", x, outputs=2, **attributes)
    return [_scatter(tape, x, indices, g, can_overlap)]


@gradient("GlobalMaxPool")
def global_max_pool_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The gradient goes to the first largest element of each channel."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    _, indices = tape.ops("MaxPool", x, outputs=2, kernel_shape=tape.spatial(x))
    return [_scatter(tape, x, indices, g, can_overlap=False)]


def _scatter(
    tape: BackwardTape, x: ir.Value, indices: ir.Value, gradient: ir.Value, can_overlap: bool
) -> ir.Value:
    """The gradient at MaxPool's indices, which count all N·C·spatial elements of its input.

    Half precision is added up in float32: ONNX Runtime's CPU kernel knows no other way.
    """
    flat = tape.ints([-1])
    dtype = x.dtype or ir.DataType.FLOAT
    is_half = dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    if is_half:
        gradient = tape.op("Cast", gradient, to=int(ir.DataType.FLOAT))
    zeros = tape.op(
        "ConstantOfShape",
        tape.op("Reshape", tape.op("Size", x), flat),
        value=ir.tensor([0.0], dtype=ir.DataType.FLOAT if is_half else dtype),
    )
    scattered = tape.op(
        "ScatterElements",
        zeros,
        tape.op("Reshape", indices, flat),
        tape.op("Reshape", gradient, flat),
        axis=0,
        reduction="add" if can_overlap else "none",
    )
    if is_half:
        scattered = tape.op("Cast", scattered, to=int(dtype))
    return tape.reshape_like(scattered, x)


@gradient("GlobalAveragePool")
def global_average_pool_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The gradient over H·W, the same at every position."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    spatial = tape.spatial(x)
    scaled = tape.op("Mul", g, tape.scalar(1 / math.prod(spatial), like=x))
    if len(spatial) == 2 and x.dtype == ir.DataType.FLOAT:
        return [tape.repeat(tape.blocked(scaled, 4), spatial)]
    expanded = tape.op("Expand", scaled, tape.ints([1, 1, *spatial]))
    return [tape.blocked(expanded, 2 + len(spatial))]


@gradient("AveragePool")
def average_pool_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """The gradient over each window's divisor, sent to every element of the window."""
    x, g = node.inputs[0], gradients[0]
    if x is None or g is None:
        return []
    kernel = int_list_of(node, "kernel_shape", [])
    windows = read_windows(node, kernel, tape.spatial(x), tape.spatial(node.outputs[0]))
    shares = tape.op("Mul", g, _shares(node, tape, x, windows))
    if windows.are_tiles:
        return [tape.blocked(_repeat_tiles(tape, shares, windows), 2 + len(kernel))]
    channels = tape.spatial(x, 1)[0]
    dtype = (x.dtype or ir.DataType.FLOAT).numpy()
    if windows.are_dense:
        ones = tape.constant(np.ones((channels, 1, *kernel), dtype=dtype))
        return [spread_windows(tape, shares, ones, windows, channels)]
    single = tape.op("Reshape", shares, tape.ints([-1, 1, *windows.outputs]))
    ones = tape.constant(np.ones((1, 1, *kernel), dtype=dtype))
    spread = spread_windows(tape, single, ones, windows, 1)
    return [tape.reshape_like(spread, x)]


def _shares(node: ir.Node, tape: BackwardTape, x: ir.Value, windows: Windows) -> ir.Value:
    """One over each window's divisor, [1, 1, *outputs] or a scalar.

    Runtimes differ about padding that only `ceil_mode` adds, so there the operator itself tells:
    the average of ones is (taps inside) / divisor.
    """
    counts = np.maximum(windows.counts(), 1)
    full = math.prod(windows.kernel)
    is_pad_counted = int_of(node, "count_include_pad", 0) == 1
    if (counts == full).all() or (is_pad_counted and not int_of(node, "ceil_mode", 0)):
        return tape.scalar(1 / full, like=x)
    dtype = (x.dtype or ir.DataType.FLOAT).numpy()
    inverse = tape.constant((1 / counts[None, None]).astype(dtype))
    if not is_pad_counted:
        return inverse
    ones = tape.constant(np.ones((1, 1, *windows.inputs), dtype=dtype))
    return tape.op("Mul", tape.op("AveragePool", ones, **_attributes_of(node)), inverse)


def _repeat_tiles(tape: BackwardTape, shares: ir.Value, windows: Windows) -> ir.Value:
    """Every element repeated over its tile; a rest of the input belongs to no window."""
    repeated = tape.repeat(shares, windows.kernel)
    rest = [i - s for i, s in zip(windows.inputs, windows.spans, strict=True)]
    return crop_or_pad(tape, repeated, windows.spans, [0] * len(rest), rest)


def _attributes_of(node: ir.Node) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in node.attributes.items()}
