"""Reductions: the reduced axes vanish or become 1.

A sum is like a convolution's: a channel that is masked adds nothing, so dropping it is exact. A
mean counts the channels, a maximum or a product notices a zero: there they are frozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from graph_ops.channels import Channels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import int_of, ints_of, is_computed, node_label, normalized_axis
from graph_ops.rules.registry import coupling, gradient, mixing

Gradients = Sequence[ir.Value | None]


SUMS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare")
MIXING = ("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


@mixing(*MIXING)
def reduced_axes(node: ir.Node, channels: Channels) -> set[int]:
    """Axes are an attribute in old opsets and an input in new ones; none means all of them."""
    x = node.inputs[0]
    rank = 0 if x is None else channels.rank(x)
    given = channels.known_ints(node, "axes", 1)
    if not given:
        given = [] if int_of(node, "noop_with_empty_axes", 0) else list(range(rank))
    return {normalized_axis(axis, rank) for axis in given}


@coupling(*SUMS, *MIXING)
def couple_reduction(node: ir.Node, channels: Channels) -> None:
    """The reduced axes vanish or become 1; the others pass."""
    x = node.inputs[0]
    axes = channels.axes(x)
    name = f"{node.op_type} {node_label(node)!r}"
    if is_computed(node, "axes", 1) and channels.known_ints(node, "axes", 1) is None:
        channels.freeze_value(x, f"the axes of {name} are computed at run time")
        return
    reduced = reduced_axes(node, channels)
    for axis in sorted(reduced):
        if node.op_type in SUMS:
            channels.contract(node, 0, axis)
        else:
            channels.freeze(axes[axis], f"{name} reduces over it")
    keep_dims = int_of(node, "keepdims", 1)
    out = [
        None if axis in reduced else labels
        for axis, labels in enumerate(axes)
        if keep_dims or axis not in reduced
    ]
    channels.set_axes(node.outputs[0], out)


@coupling("ArgMax", "ArgMin")
def couple_arg_reduction(node: ir.Node, channels: Channels) -> None:
    """The result is a position along the axis."""
    axes = channels.axes(node.inputs[0])
    axis = normalized_axis(int_of(node, "axis", 0), len(axes))
    channels.freeze(
        channels.axis(node.inputs[0], axis), f"{node.op_type} {node_label(node)!r} numbers it"
    )
    keep_dims = int_of(node, "keepdims", 1)
    out = [None if i == axis else labels for i, labels in enumerate(axes) if keep_dims or i != axis]
    channels.set_axes(node.outputs[0], out)


@coupling("CumSum", "TopK")
def couple_ordered(node: ir.Node, channels: Channels) -> None:
    """Along the axis every result depends on other entries; the other axes pass."""
    axes = channels.axes(node.inputs[0])
    name = f"{node.op_type} {node_label(node)!r}"
    if node.op_type == "CumSum":
        given = channels.known_ints(node, "axis", 1)
        axis = None if given is None else given[0]
    else:
        axis = int_of(node, "axis", -1)
    if axis is None:
        channels.freeze_value(node.inputs[0], f"the axis of {name} is computed at run time")
        return
    channels.freeze(channels.axis(node.inputs[0], axis), f"{name} runs along it")
    axis = normalized_axis(axis, len(axes))
    out = [None if i == axis else labels for i, labels in enumerate(axes)]
    for output in node.outputs:
        channels.set_axes(output, out)


@gradient("CumSum")
def cum_sum_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """The sum in the other direction."""
    backwards = 1 - int_of(node, "reverse", 0)
    exclusive = int_of(node, "exclusive", 0)
    return [tape.op("CumSum", gradients[0], node.inputs[1], exclusive=exclusive, reverse=backwards)]


def _reduced_axes(node: ir.Node, tape: BackwardTape) -> list[int]:
    """The axes a node reduces.

    Raises:
        GradientError: they are computed at run time, or the batch is among them (the loss of one
            sample would depend on the others).
    """
    dims = tape.dims(node.inputs[0])
    if is_computed(node, "axes", 1):
        raise tape.refuse(node, "its axes are computed at run time")
    given = ints_of(node, "axes", 1)
    if not given:
        given = [] if int_of(node, "noop_with_empty_axes", 0) else list(range(len(dims)))
    axes = sorted({normalized_axis(axis, len(dims)) for axis in given})
    if any(dims[axis] is None for axis in axes):
        raise tape.refuse(node, "it reduces over the batch")
    return axes


def _with_axes(
    node: ir.Node, value: ir.Value | None, axes: Sequence[int], tape: BackwardTape
) -> ir.Value | None:
    """A value of the result's shape with the reduced axes back, of length 1."""
    if int_of(node, "keepdims", 1) or not axes:
        return value
    return tape.op("Unsqueeze", value, tape.ints(axes))


def _expanded(node: ir.Node, g: ir.Value | None, tape: BackwardTape) -> ir.Value:
    """Repeated along the reduced axes; Expand leaves the batch alone where the shape says 1."""
    dims = tape.dims(node.inputs[0])
    return tape.op("Expand", g, tape.ints([1 if d is None else d for d in dims]))


@gradient("ReduceSum")
def reduce_sum_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Every element gets the gradient of its sum."""
    axes = _reduced_axes(node, tape)
    return [_expanded(node, _with_axes(node, gradients[0], axes, tape), tape)]


@gradient("ReduceMean")
def reduce_mean_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Every element gets its share of the gradient of its mean."""
    axes = _reduced_axes(node, tape)
    x = node.inputs[0]
    count = math.prod(int(tape.dims(x)[axis] or 0) for axis in axes)
    share = tape.op("Mul", gradients[0], tape.scalar(1.0 / max(count, 1), like=x))
    return [_expanded(node, _with_axes(node, share, axes, tape), tape)]


@gradient("ReduceSumSquare")
def reduce_sum_square_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """2·x·g."""
    axes = _really_reduced_axes(node, tape)
    x = node.inputs[0]
    twice = tape.op("Mul", gradients[0], tape.scalar(2.0, like=x))
    return [tape.op("Mul", x, _with_axes(node, twice, axes, tape))]


@gradient("ReduceL2")
def reduce_l2_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """g·x/y, and 0 where the norm is 0."""
    axes = _really_reduced_axes(node, tape)
    y, zero = node.outputs[0], tape.scalar(0.0, like=node.inputs[0])
    ratio = tape.op("Where", tape.op("Equal", y, zero), zero, tape.op("Div", gradients[0], y))
    return [tape.op("Mul", node.inputs[0], _with_axes(node, ratio, axes, tape))]


@gradient("ReduceL1")
def reduce_l1_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """g·sign(x)."""
    axes = _really_reduced_axes(node, tape)
    g = _with_axes(node, gradients[0], axes, tape)
    return [tape.op("Mul", tape.op("Sign", node.inputs[0]), g)]


@gradient("ReduceLogSumExp")
def reduce_log_sum_exp_gradient(
    node: ir.Node, gradients: Gradients, tape: BackwardTape
) -> Gradients:
    """g·e^(x − y)."""
    axes = _really_reduced_axes(node, tape)
    y = _with_axes(node, node.outputs[0], axes, tape)
    share = tape.op("Exp", tape.op("Sub", node.inputs[0], y))
    return [tape.op("Mul", share, _with_axes(node, gradients[0], axes, tape))]


@gradient("ReduceMax", "ReduceMin")
def reduce_extremum_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """The elements equal to the result share the gradient."""
    axes = _reduced_axes(node, tape)
    x = node.inputs[0]
    y = _with_axes(node, node.outputs[0], axes, tape)
    dtype = ir.DataType.FLOAT if x is None or x.dtype is None else x.dtype
    mask = tape.op("Cast", tape.op("Equal", x, y), to=dtype.value)
    count = tape.sum_over(mask, axes, keep_dims=True)
    share = tape.op("Div", _with_axes(node, gradients[0], axes, tape), count)
    return [tape.op("Mul", mask, share)]


def _really_reduced_axes(node: ir.Node, tape: BackwardTape) -> list[int]:
    """As `_reduced_axes`, but at least one: runtimes disagree on what none means here."""
    axes = _reduced_axes(node, tape)
    if not axes and tape.dims(node.inputs[0]):
        raise tape.refuse(node, "it reduces no axis")
    return axes
