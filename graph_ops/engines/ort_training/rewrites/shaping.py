"""Reductions, products, and operators that pick, repeat and join elements."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from graph_ops.engines.ort_training.rewrites.registry import Outputs, rewrite
from graph_ops.engines.ort_training.rewrites.writer import Writer
from graph_ops.graph import (
    constant_ints,
    input_at,
    int_of,
    ints_of,
    is_computed,
    normalized_axis,
    string_of,
)


def _axes(node: ir.Node, write: Writer) -> list[int]:
    """The axes a node reduces, not negative; none of them for a node that does nothing."""
    rank = len(write.tape.dims(node.inputs[0]))
    if is_computed(node, "axes", 1):
        raise write.tape.refuse(node, "its axes are computed at run time")
    given = ints_of(node, "axes", 1)
    if not given:
        given = [] if int_of(node, "noop_with_empty_axes", 0) else list(range(rank))
    return sorted({normalized_axis(axis, rank) for axis in given})


def _summed(node: ir.Node, write: Writer, value: ir.Value) -> ir.Value:
    """The value summed over the axes that the node reduces."""
    axes = write.ints(_axes(node, write))
    return write.op("ReduceSum", value, axes, keepdims=int_of(node, "keepdims", 1))


@rewrite("ReduceSum")
def reduce_sum(node: ir.Node, write: Writer) -> Outputs:
    """No axes to reduce: the runtime fails where nothing is to be done."""
    return None if _axes(node, write) else [write.op("Identity", node.inputs[0])]


@rewrite("ReduceL1")
def reduce_l1(node: ir.Node, write: Writer) -> Outputs:
    """Σ |x|."""
    return [_summed(node, write, write.op("Abs", node.inputs[0]))]


@rewrite("ReduceSumSquare")
def reduce_sum_square(node: ir.Node, write: Writer) -> Outputs:
    """Σ x²."""
    x = node.inputs[0]
    return [_summed(node, write, write.op("Mul", x, write.op("Identity", x)))]


@rewrite("ReduceL2")
def reduce_l2(node: ir.Node, write: Writer) -> Outputs:
    """Tangent with the slope x/y, 0 where the norm is 0."""
    x = node.inputs[0]
    assert x is not None
    (value,) = write.stopped_outputs(node)
    wide = _with_axes(node, write, value)
    is_zero = write.op("Equal", wide, 0.0)
    inverse = write.op("Where", is_zero, 0.0, write.op("Reciprocal", wide))
    slope = write.op("Mul", write.stop(x), inverse)
    moved = write.op("Mul", write.op("Sub", x, write.stop(x)), slope)
    return [write.op("Add", value, _summed(node, write, moved))]


@rewrite("ReduceMax", "ReduceMin")
def reduce_extremum(node: ir.Node, write: Writer) -> Outputs:
    """Tangent: the elements equal to the result share in moving it."""
    x = node.inputs[0]
    assert x is not None
    (value,) = write.stopped_outputs(node)
    mask = write.as_number(write.op("Equal", write.stop(x), _with_axes(node, write, value)))
    axes = write.ints(_axes(node, write))
    share = write.op("Div", mask, write.op("ReduceSum", mask, axes, keepdims=1))
    moved = write.op("Mul", write.op("Sub", x, write.stop(x)), share)
    return [write.op("Add", value, _summed(node, write, moved))]


def _with_axes(node: ir.Node, write: Writer, value: ir.Value) -> ir.Value:
    """A result with its reduced axes back, of length 1."""
    if int_of(node, "keepdims", 1):
        return value
    return write.op("Unsqueeze", value, write.ints(_axes(node, write)))


@rewrite("MatMul")
def matrix_product(node: ir.Node, write: Writer) -> Outputs:
    """A vector becomes a matrix of one row or column, and its axis goes again afterwards."""
    first, second = node.inputs
    is_row, is_column = (len(write.tape.dims(v)) == 1 for v in (first, second))
    if not (is_row or is_column):
        return None
    left = write.op("Unsqueeze", first, write.ints([0])) if is_row else first
    right = write.op("Unsqueeze", second, write.ints([1])) if is_column else second
    product = write.op("MatMul", left, right)
    axes = [axis for axis, is_vector in ((-2, is_row), (-1, is_column)) if is_vector]
    return [write.op("Squeeze", product, write.ints(axes))]


@rewrite("Slice")
def strided_slice(node: ir.Node, write: Writer) -> Outputs:
    """Slices that run backwards pick by stored index."""
    steps = constant_ints(input_at(node, 4))
    if steps is None or all(step > 0 for step in steps):
        return None
    starts, ends = constant_ints(node.inputs[1]), constant_ints(node.inputs[2])
    if starts is None or ends is None or is_computed(node, "axes", 3):
        raise write.tape.refuse(node, "its ranges are computed at run time")
    dims = write.dims(node.inputs[0])
    axes = constant_ints(input_at(node, 3)) or list(range(len(starts)))
    result = node.inputs[0]
    assert result is not None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normalized_axis(axis, len(dims))
        if dims[axis] < 0:
            raise write.tape.refuse(node, "it works along the batch axis")
        result = write.pick(result, axis, range(*slice(start, end, step).indices(dims[axis])))
    return [result]


@rewrite("Split")
def split(node: ir.Node, write: Writer) -> Outputs:
    """One Slice for each part: the runtime loses the rows of a part that nobody uses."""
    x = node.inputs[0]
    rank = len(write.tape.dims(x))
    axis = normalized_axis(int_of(node, "axis", 0), rank)
    parts, start = [], 0
    for output in node.outputs:
        length = write.dims(output)[axis]
        bounds = (write.ints([start]), write.ints([start + length]), write.ints([axis]))
        parts.append(write.op("Slice", x, *bounds))
        start += length
    return parts


_NUMPY_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}


@rewrite("Pad")
def pad(node: ir.Node, write: Writer) -> Outputs:
    """Constants on all axes stay; repeated elements are picked by stored index."""
    mode = string_of(node, "mode", "constant")
    axes_input = input_at(node, 3)
    if mode == "constant" and axes_input is None:
        return None
    dims = write.dims(node.inputs[0])
    rank = len(dims)
    pads, axes = ints_of(node, "pads", 1), constant_ints(axes_input)
    if pads is None or (axes is None and axes_input is not None):
        raise write.tape.refuse(node, "its pads are computed at run time")
    axes = list(range(rank)) if axes is None else [normalized_axis(a, rank) for a in axes]
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = pads[position], pads[position + len(axes)]
    if mode == "constant":
        spelled = write.ints([*before, *after])
        return [write.op("Pad", node.inputs[0], spelled, input_at(node, 2), mode="constant")]
    result = node.inputs[0]
    assert result is not None
    for axis in range(rank):
        ends = (before[axis], after[axis])
        if ends == (0, 0):
            continue
        if dims[axis] < 0 or min(ends) < 0:
            raise write.tape.refuse(node, "it pads the batch, or cuts while it repeats")
        picked = np.pad(np.arange(dims[axis]), ends, mode=_NUMPY_MODES[mode])
        result = write.pick(result, axis, picked)
    return [write.op("Identity", result) if result is node.inputs[0] else result]
