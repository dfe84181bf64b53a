"""Conv and ConvTranspose.

ONNX layouts: Conv weight (M, C / group, *kernel), ConvTranspose weight (C, M / group, *kernel),
input (N, C, *spatial), output (N, M, *spatial).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, Convolution, CostItem, Labels
from graph_ops.edits import NarrowGroups, SpellCount
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import (
    data_uses,
    input_at,
    int_list_of,
    int_of,
    is_root_constant,
    node_label,
)
from graph_ops.grouped import GroupedConvolution
from graph_ops.rules.kernels import kernel_gradient
from graph_ops.rules.registry import coupling, gradient
from graph_ops.rules.windows import (
    Windows,
    crop_or_pad,
    read_windows,
    spread_windows,
    transposed_windows,
)


@coupling("Conv")
def couple_conv(node: ir.Node, channels: Channels) -> None:
    """The weight's axis 0 makes the output channels; its axis 1 is the input's channels."""
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    group = int_of(node, "group", 1)
    name = node_label(node)
    x_labels = channels.axis(x, 1)
    filters, taps = channels.axis(weight, 0), channels.axis(weight, 1)
    weight_dims = channels.dims(weight)
    filter_count = int(weight_dims[0] or 0) if weight_dims else 0
    is_depthwise = group > 1 and weight_dims is not None and weight_dims[1] == 1
    if group == 1:
        channels.couple(x_labels, taps, f"the input of convolution {name!r} cannot be narrowed")
        channels.contract(node, 0, 1)
    elif is_depthwise:
        _couple_depthwise(node, channels, x_labels, filters, group, name)
    else:
        _balance_groups(node, channels, x_labels, filters)
        channels.contract(node, 0, 1)
    bias = input_at(node, 2)
    if bias is not None:
        channels.couple(channels.axis(bias, 0), filters, f"the bias of {name!r} is not per filter")
    channels.set_axes(node.outputs[0], [None, filters, *_passed_positions(node, channels)])
    channels.convolutions.append(
        Convolution(node, filters, filter_count, is_producer=not is_depthwise)
    )
    _count_macs(node, channels, weight, node.outputs[0])


@coupling("ConvTranspose")
def couple_conv_transpose(node: ir.Node, channels: Channels) -> None:
    """The weight's axis 0 is the input's channels; axis 1 makes each group's output channels."""
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    group = int_of(node, "group", 1)
    name = node_label(node)
    x_labels = channels.axis(x, 1)
    inputs, outputs = channels.axis(weight, 0), channels.axis(weight, 1)
    weight_dims = channels.dims(weight)
    per_group = int(weight_dims[1] or 0) if weight_dims else 0
    reason = f"the input of transposed convolution {name!r} cannot be narrowed"
    channels.couple(x_labels, inputs, reason)
    is_depthwise = group > 1 and weight_dims is not None and weight_dims[0] == group
    filters: Labels | None
    if group == 1:
        filters = outputs
        channels.contract(node, 0, 1)
    elif is_depthwise:
        channels.freeze(outputs, f"depthwise multiplier of {name!r}")
        filters = None if inputs is None else np.repeat(inputs, per_group)
        if x_labels is not None:
            channels.edit(SpellCount(node, "group", None, x_labels))
    else:
        _tie_groups(channels, inputs, group)
        filters = None if outputs is None else np.tile(outputs, group)
        channels.contract(node, 0, 1)
    bias = input_at(node, 2)
    if bias is not None:
        channels.couple(channels.axis(bias, 0), filters, f"the bias of {name!r} is not per filter")
    channels.set_axes(node.outputs[0], [None, filters, *_passed_positions(node, channels)])
    channels.convolutions.append(
        Convolution(node, filters, per_group * group, is_producer=not is_depthwise)
    )
    _count_macs(node, channels, weight, x)


def _passed_positions(node: ir.Node, channels: Channels) -> list[Labels | None]:
    """Labels of the spatial axes: channels that stand there stay, unless a tap of 1 runs along."""
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None
    assert weight is not None
    dims, out_dims, kernel = (channels.dims(v) for v in (x, node.outputs[0], weight))
    passed: list[Labels | None] = []
    for axis, labels in enumerate(channels.axes(x)[2:], 2):
        is_kept = (
            dims is not None
            and out_dims is not None
            and kernel is not None
            and (kernel[axis], out_dims[axis]) == (1, dims[axis])
            and not any(int_list_of(node, "pads", []))
        )
        if not is_kept:
            channels.freeze(labels, f"convolution {node_label(node)!r} runs along it")
        passed.append(labels if is_kept else None)
    return passed


def _couple_depthwise(
    node: ir.Node,
    channels: Channels,
    x_labels: Labels | None,
    filters: Labels | None,
    group: int,
    name: str,
) -> None:
    """Output channels j·m … j·m + m − 1 belong to input channel j; `group` counts the inputs."""
    repeated = None
    if x_labels is not None and filters is not None and filters.size % group == 0:
        repeated = np.repeat(x_labels, filters.size // group)
        channels.edit(SpellCount(node, "group", None, x_labels))
    channels.couple(
        repeated, filters, f"depthwise convolution {name!r} reads channels that cannot be removed"
    )


def _balance_groups(
    node: ir.Node, channels: Channels, x_labels: Labels | None, filters: Labels | None
) -> None:
    """Every group keeps equally many input channels and filters; which ones is free.

    The weight's blocks of rows, one per group, lose columns of their own. A weight that several
    nodes share (or that is computed) cannot lose different ones for each of them.
    """
    weight, group = node.inputs[1], int_of(node, "group", 1)
    assert weight is not None
    reason = f"the input of grouped convolution {node_label(node)!r} cannot be narrowed"
    if not is_root_constant(weight) or len(data_uses(weight)) > 1:
        channels.freeze(x_labels, f"{reason}: its weight is shared or computed")
        channels.freeze(filters, f"{reason}: its weight is shared or computed")
        return
    channels.set_axes(weight, [filters, *[None] * (channels.rank(weight) - 1)])
    made = None if filters is None else channels.balance(filters, group)
    if x_labels is None:
        return
    if x_labels.size % group:
        channels.freeze(x_labels, reason)
        return
    read = channels.balance(x_labels, group)
    channels.edit(NarrowGroups(node, x_labels, group))
    channels.narrowed[weight] = (x_labels, group)
    if made is not None:
        channels.grouped.append(GroupedConvolution(node, read, made))


def _tie_groups(channels: Channels, labels: Labels | None, group: int) -> None:
    """Groups stay equally wide: position j goes in all of them or in none."""
    if labels is None:
        return
    rows = labels.reshape(group, -1)
    for row in rows[1:]:
        channels.couple(rows[0], row, "groups stay equally wide")


def _count_macs(node: ir.Node, channels: Channels, weight: ir.Value, value: ir.Value) -> None:
    """Every weight is used once at every position of a value: Conv's output, the other's input."""
    dims, positions = channels.dims(weight), channels.dims(value)
    spatial = None if positions is None else positions[2:]
    if dims is None or spatial is None or any(d is None for d in (*dims, *spatial)):
        channels.unknown_cost.append(node)
        return
    axes, divisor = channels.weight_axes(weight)
    axes = (*axes, *(a for a in channels.axes(value)[2:] if a is not None))
    size = math.prod(int(d or 0) for d in dims) * divisor
    total = size * math.prod(int(s or 0) for s in spatial)
    factor = total // max(1, math.prod(a.size for a in axes))
    channels.costs.append(CostItem(node, factor, axes, divisor))


@gradient("Conv")
def conv_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Input: the transposed convolution of the output's gradient with the same weight."""
    x, weight, g = node.inputs[0], node.inputs[1], gradients[0]
    if g is None or weight is None or x is None:
        return []
    parts: list[ir.Value | None] = [None, None, _bias_gradient(node, g, tape)]
    if not tape.needs(x) and not tape.needs(weight):
        return parts
    kernel, group = tape.spatial(weight), int_of(node, "group", 1)
    windows = read_windows(node, kernel, tape.spatial(x), tape.spatial(node.outputs[0]))
    if tape.needs(x):
        parts[0] = spread_windows(tape, g, weight, windows, group)
    if tape.needs(weight):
        parts[1] = kernel_gradient(tape, x, g, windows, group)
    return parts


@gradient("ConvTranspose")
def conv_transpose_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Input: the convolution of the output's gradient with the same weight, as (M, C / group)."""
    x, weight, g = node.inputs[0], node.inputs[1], gradients[0]
    if g is None or weight is None or x is None:
        return []
    parts: list[ir.Value | None] = [None, None, _bias_gradient(node, g, tape)]
    if not tape.needs(x) and not tape.needs(weight):
        return parts
    group = int_of(node, "group", 1)
    windows = transposed_windows(
        node, tape.spatial(weight), tape.spatial(x), tape.spatial(node.outputs[0])
    )
    if tape.needs(x):
        parts[0] = _gather_windows(tape, g, weight, windows, group)
    if tape.needs(weight):
        parts[1] = kernel_gradient(tape, g, x, windows, group)
    return parts


def _gather_windows(
    tape: BackwardTape, gradient: ir.Value, weight: ir.Value, w: Windows, group: int
) -> ir.Value:
    """Conv over the windows; what lies behind the last window is cut off where it would count."""
    ends, cuts = [], []
    for axis, length in enumerate(w.inputs):
        end = w.spans[axis] - w.begins[axis] - length
        ends.append(max(end, 0))
        cuts.append(end if -end >= w.strides[axis] else 0)
    return tape.op(
        "Conv",
        crop_or_pad(tape, gradient, w.inputs, [0] * len(cuts), cuts),
        weight,
        kernel_shape=list(w.kernel),
        strides=list(w.strides),
        dilations=list(w.dilations),
        pads=[*w.begins, *ends],
        group=group,
    )


def _bias_gradient(node: ir.Node, gradient: ir.Value, tape: BackwardTape) -> ir.Value | None:
    """Sum over the batch and every position: (M,)."""
    if not tape.needs(input_at(node, 2)):
        return None
    axes = [0, *range(2, len(tape.dims(node.outputs[0])))]
    return tape.sum_over(gradient, axes)
