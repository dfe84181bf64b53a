"""Normalisations and operators that mix neighbouring channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.edits import SpellCount
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_array, float_of, int_of, node_label, normalized_axis
from graph_ops.rules.registry import coupling, gradient, mixing
from graph_ops.rules.unary import Unary, unary

Gradients = Sequence[ir.Value | None]


@coupling("BatchNormalization")
def couple_batch_normalization(node: ir.Node, channels: Channels) -> None:
    """Scale, bias, mean and variance are vectors over the channels (N, C, …)."""
    x = node.inputs[0]
    assert x is not None
    labels = channels.axis(x, 1)
    for vector in node.inputs[1:5]:
        channels.couple(
            labels,
            channels.axis(vector, 0),
            f"the statistics of {node_label(node)!r} are not one number per channel",
        )
    if len([o for o in node.outputs if o.name]) > 1:
        channels.freeze(labels, f"{node_label(node)!r} is in training mode")
    channels.set_axes(node.outputs[0], channels.axes(x))


@gradient("BatchNormalization")
def batch_normalization_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """Input: a factor per channel, scale/√(variance + ε), as [C, 1, …]."""
    x, scale, bias, mean, variance = node.inputs[:5]
    if int_of(node, "training_mode", 0):
        raise tape.refuse(node, "it is in training mode")
    if tape.needs(mean) or tape.needs(variance):
        raise tape.refuse(node, "its statistics are computed from the activations")
    g, rank = gradients[0], len(tape.dims(x))
    assert g is not None
    others = [a for a in range(rank) if a != 1]
    parts: list[ir.Value | None] = [None, None, None]
    if tape.needs(x):
        parts[0] = tape.op("Mul", g, _batch_norm_factor(node, tape, rank))
    if tape.needs(scale):
        shape = tape.ints([-1, *[1] * (rank - 2)])
        centred = tape.op("Sub", x, tape.op("Reshape", mean, shape))
        summed = tape.sum_over(tape.op("Mul", g, centred), others)
        parts[1] = tape.op("Div", summed, _deviation(node, tape))
    if tape.needs(bias):
        parts[2] = tape.sum_over(g, others)
    return parts


def _batch_norm_factor(node: ir.Node, tape: BackwardTape, rank: int) -> ir.Value:
    scale, variance = node.inputs[1], node.inputs[4]
    shape = [-1, *[1] * (rank - 2)]
    stored_scale, stored_variance = constant_array(scale), constant_array(variance)
    if stored_scale is None or stored_variance is None:
        factor = tape.op("Div", scale, _deviation(node, tape))
        return tape.op("Reshape", factor, tape.ints(shape))
    epsilon = float_of(node, "epsilon", 1e-5)
    deviation = np.sqrt(stored_variance.astype(np.float64) + epsilon)
    array = (stored_scale.astype(np.float64) / deviation).astype(stored_scale.dtype)
    return tape.constant(array.reshape(shape))


def _deviation(node: ir.Node, tape: BackwardTape) -> ir.Value:
    variance = node.inputs[4]
    epsilon = tape.scalar(float_of(node, "epsilon", 1e-5), like=variance)
    return tape.op("Sqrt", tape.op("Add", variance, epsilon))


def _require_stored_parameters(node: ir.Node, tape: BackwardTape) -> None:
    """Parameters computed from the activations would need gradients of their own."""
    if any(tape.needs(v) for v in node.inputs[1:]):
        raise tape.refuse(node, "its scale or bias is computed from the activations")


@mixing("InstanceNormalization", "GroupNormalization")
def mixed_positions(node: ir.Node, channels: Channels) -> range:
    """Everything behind (N, C) shares its moments."""
    x = node.inputs[0]
    return range(2, 0 if x is None else channels.rank(x))


@coupling("InstanceNormalization")
def couple_instance_normalization(node: ir.Node, channels: Channels) -> None:
    """Scale and bias are vectors over the channels (N, C, …); positions share their moments."""
    x = node.inputs[0]
    axes = channels.axes(x)
    labels = channels.axis(x, 1)
    name = f"InstanceNormalization {node_label(node)!r}"
    for vector in node.inputs[1:3]:
        reason = f"the parameters of {name} are not one number per channel"
        channels.couple(labels, channels.axis(vector, 0), reason)
    for axis in mixed_positions(node, channels):
        channels.freeze(axes[axis], f"{name} normalises over it")
    channels.set_axes(node.outputs[0], axes)


@gradient("InstanceNormalization")
def instance_normalization_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """Moments over the positions of each channel."""
    _require_stored_parameters(node, tape)
    x, scale = node.inputs[:2]
    rank = len(tape.dims(x))
    per_channel = tape.op("Reshape", scale, tape.ints([-1, *[1] * (rank - 2)]))
    scaled = tape.op("Mul", gradients[0], per_channel)
    epsilon = float_of(node, "epsilon", 1e-5)
    return [_standardized_gradient(tape, x, scaled, range(2, rank), epsilon)]


@mixing("LayerNormalization")
def mixed_rows(node: ir.Node, channels: Channels) -> range:
    """Everything from `axis` on."""
    x = node.inputs[0]
    rank = 0 if x is None else channels.rank(x)
    return range(max(normalized_axis(int_of(node, "axis", -1), rank), 0), rank)


@coupling("LayerNormalization")
def couple_layer_normalization(node: ir.Node, channels: Channels) -> None:
    """Everything from `axis` on shares its moments."""
    x = node.inputs[0]
    assert x is not None
    axes = channels.axes(x)
    mixed = mixed_rows(node, channels)
    for axis in mixed:
        channels.freeze(axes[axis], f"LayerNormalization {node_label(node)!r} normalises over it")
    channels.set_axes(node.outputs[0], axes)
    for moments in node.outputs[1:]:
        channels.set_axes(moments, [None if i in mixed else a for i, a in enumerate(axes)])


@gradient("LayerNormalization")
def layer_normalization_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """Moments over the axes from `axis` on."""
    _require_stored_parameters(node, tape)
    if any(g is not None for g in gradients[1:]):
        raise tape.refuse(node, "its mean or deviation is used as an output")
    x, scale = node.inputs[:2]
    rank = len(tape.dims(x))
    axes = range(normalized_axis(int_of(node, "axis", -1), rank), rank)
    scaled = tape.op("Mul", gradients[0], scale)
    return [_standardized_gradient(tape, x, scaled, axes, float_of(node, "epsilon", 1e-5))]


@coupling("GroupNormalization", since=21)
def couple_group_normalization(node: ir.Node, channels: Channels) -> None:
    """The channels of a group share their moments: they go together, and a group with them."""
    x = node.inputs[0]
    labels = channels.axis(x, 1)
    groups = int_of(node, "num_groups", 1)
    axes = channels.axes(x)
    name = f"GroupNormalization {node_label(node)!r}"
    channels.set_axes(node.outputs[0], axes)
    for axis in mixed_positions(node, channels):
        channels.freeze(axes[axis], f"{name} normalises over it")
    if labels is None or labels.size % groups or groups == 1:
        channels.freeze(labels, f"{name} normalises over it")
        return
    table = labels.reshape(groups, -1)
    for column in table.T[1:]:
        channels.couple(table[:, 0], column, f"{name} normalises them together")
    channels.edit(SpellCount(node, "num_groups", None, np.ascontiguousarray(table[:, 0])))
    for vector in node.inputs[1:3]:
        channels.couple(labels, channels.axis(vector, 0), f"the parameters of {name}")


@gradient("GroupNormalization", since=21)
def group_normalization_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """Moments over the channels and positions of each group."""
    _require_stored_parameters(node, tape)
    x, scale = node.inputs[:2]
    groups, rank = int_of(node, "num_groups", 1), len(tape.dims(x))
    array = constant_array(scale)
    if array is None:
        raise tape.refuse(node, "its scale is computed at run time")
    channel_count = tape.spatial(x, start=1)[0]
    per_channel = np.repeat(array, channel_count // array.size).reshape(-1, *[1] * (rank - 2))
    scaled = tape.op("Mul", gradients[0], tape.constant(per_channel))
    rows = tape.ints([0, groups, -1])
    grouped = tape.op("Reshape", x, rows)
    epsilon = float_of(node, "epsilon", 1e-5)
    result = _standardized_gradient(tape, grouped, tape.op("Reshape", scaled, rows), [2], epsilon)
    assert x is not None
    return [tape.reshape_like(result, x)]


def _standardized_gradient(
    tape: BackwardTape, x: ir.Value | None, g: ir.Value, axes: Sequence[int], epsilon: float
) -> ir.Value:
    """Gradient of x̂ = (x − mean)/√(variance + ε): (g − mean(g) − x̂·mean(g·x̂))/√(variance + ε)."""
    over = tape.ints(list(axes))

    def mean(value: ir.Value | None) -> ir.Value:
        return tape.op("ReduceMean", value, over, keepdims=1)

    centred = tape.op("Sub", x, mean(x))
    variance = mean(tape.op("Mul", centred, centred))
    deviation = tape.op("Sqrt", tape.op("Add", variance, tape.scalar(epsilon, like=x)))
    standardized = tape.op("Div", centred, deviation)
    along = tape.op("Mul", standardized, mean(tape.op("Mul", g, standardized)))
    rest = tape.op("Sub", tape.op("Sub", g, mean(g)), along)
    return tape.op("Div", rest, deviation)


@coupling("LRN")
def couple_lrn(node: ir.Node, channels: Channels) -> None:
    """Each channel is divided by its neighbours' energy: taking one out changes the others."""
    x = node.inputs[0]
    channels.freeze(channels.axis(x, 1), f"LRN {node_label(node)!r} mixes neighbouring channels")
    channels.set_axes(node.outputs[0], channels.axes(x))


@unary("LRN")
def lrn_gradient(u: Unary) -> ir.Value:
    """With s = bias + α/size·W·x², y = x·s^(−β): g·s^(−β) − 2βα/size·x·Wᵀ(g·y/s).

    W[j, i] = 1 where channel i is in the window of channel j: ⌊(size−1)/2⌋ before it and
    ⌈(size−1)/2⌉ after it, clipped at the borders. W is applied by a 1×1 convolution.
    """
    rank = len(u.tape.dims(u.x))
    channel_count = u.tape.spatial(u.x, start=1)[0]
    size = int_of(u.node, "size", 1)
    alpha, beta = float_of(u.node, "alpha", 1e-4), float_of(u.node, "beta", 0.75)
    bias = float_of(u.node, "bias", 1.0)
    dtype = u.x.dtype.numpy() if u.x.dtype is not None else np.dtype(np.float32)
    ahead = np.arange(channel_count) - np.arange(channel_count)[:, None]
    window = (ahead >= -((size - 1) // 2)) & (ahead <= size // 2)
    matrix = (window * (alpha / size)).reshape(channel_count, channel_count, *[1] * (rank - 2))
    biases = u.tape.constant(np.full(channel_count, bias, dtype))
    squares = u.op("Mul", u.x, u.x)
    energy = u.op("Conv", squares, u.tape.constant(matrix.astype(dtype)), biases)
    direct = u.times(u.op("Pow", energy, -beta))
    backward = u.tape.constant((2.0 * beta * np.swapaxes(matrix, 0, 1)).astype(dtype))
    cross = u.op("Conv", u.op("Div", u.times(u.y), energy), backward)
    return u.op("Sub", direct, u.op("Mul", u.x, cross))


@mixing("Softmax", "LogSoftmax", "Hardmax", since=13)
def mixed_entries(node: ir.Node, channels: Channels) -> set[int]:
    """The entries along the axis."""
    x = node.inputs[0]
    return set() if x is None else {normalized_axis(int_of(node, "axis", -1), channels.rank(x))}


@coupling("Softmax", "LogSoftmax", "Hardmax", since=13)
def couple_softmax(node: ir.Node, channels: Channels) -> None:
    """The entries along the axis share their sum."""
    x = node.inputs[0]
    assert x is not None
    axis = int_of(node, "axis", -1)
    reason = f"{node.op_type} {node_label(node)!r} normalises over it"
    channels.freeze(channels.axis(x, axis), reason)
    channels.set_axes(node.outputs[0], channels.axes(x))


@coupling("Softmax", "LogSoftmax", "Hardmax", until=12)
def couple_flat_softmax(node: ir.Node, channels: Channels) -> None:
    """Before opset 13 everything from `axis` on is one flattened row."""
    x = node.inputs[0]
    assert x is not None
    axis = normalized_axis(int_of(node, "axis", 1), channels.rank(x))
    reason = f"{node.op_type} {node_label(node)!r} normalises over it"
    for labels in channels.axes(x)[axis:]:
        channels.freeze(labels, reason)
    channels.set_axes(node.outputs[0], channels.axes(x))


@gradient("Softmax", since=13)
def softmax_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """y·(g − Σ g·y), the sum along the axis."""
    y = node.outputs[0]
    axis = int_of(node, "axis", -1)
    total = tape.sum_over(tape.op("Mul", gradients[0], y), [axis], keep_dims=True)
    return [tape.op("Mul", y, tape.op("Sub", gradients[0], total))]


@gradient("LogSoftmax", since=13)
def log_softmax_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Of log-probabilities y: g − eʸ·Σ g, the sum along the axis."""
    g = gradients[0]
    assert g is not None
    total = tape.sum_over(g, [int_of(node, "axis", -1)], keep_dims=True)
    return [tape.op("Sub", g, tape.op("Mul", tape.op("Exp", node.outputs[0]), total))]
