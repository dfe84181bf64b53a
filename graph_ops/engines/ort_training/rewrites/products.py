"""Einsum, Tile, CumSum, GroupNormalization and CastLike in terms of simpler operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graph_ops.engines.ort_training.rewrites.registry import Outputs, rewrite
from graph_ops.engines.ort_training.rewrites.writer import Writer
from graph_ops.graph import constant_array, constant_ints, float_of, int_of, string_of
from graph_ops.rules.contraction import parse_equation


@rewrite("CastLike")
def cast_like(node: ir.Node, write: Writer) -> Outputs:
    """Cast to the element type of the second input."""
    like = node.inputs[1]
    if like is None or like.dtype is None:
        raise write.tape.refuse(node, "its element type is not known")
    return [write.op("Cast", node.inputs[0], to=like.dtype.value)]


@rewrite("Einsum")
def einsum(node: ir.Node, write: Writer) -> Outputs:
    """Every operand spread over all letters, multiplied, and summed over those that go."""
    shapes = [write.tape.dims(v) for v in node.inputs]
    parsed = parse_equation(string_of(node, "equation", ""), [len(s) for s in shapes])
    if parsed is None:
        raise write.tape.refuse(node, "an operand repeats a letter")
    terms, result = parsed
    letters = list(dict.fromkeys(result + "".join(terms)))
    product: ir.Value | None = None
    for value, term in zip(node.inputs, terms, strict=True):
        held = [letter for letter in letters if letter in term]
        spread = write.op("Transpose", value, perm=[term.index(letter) for letter in held])
        missing = [i for i, letter in enumerate(letters) if letter not in term]
        if missing:
            spread = write.op("Unsqueeze", spread, write.ints(missing))
        product = spread if product is None else write.op("Mul", product, spread)
    assert product is not None
    summed = list(range(len(result), len(letters)))
    if not summed:
        return [product]
    return [write.op("ReduceSum", product, write.ints(summed), keepdims=0)]


@rewrite("Tile")
def tile(node: ir.Node, write: Writer) -> Outputs:
    """Each repeated axis of length d: (1, d) → (copies, d) → copies · d."""
    repeats = constant_ints(node.inputs[1])
    if repeats is None:
        raise write.tape.refuse(node, "its repeats are computed at run time")
    dims = write.dims(node.inputs[0])
    parted: list[int] = []
    copies: list[int] = []
    for length, count in zip(dims, repeats, strict=True):
        if count != 1:
            parted.append(1)
            copies.append(count)
        parted.append(length)
        copies.append(1)
    value = write.op("Reshape", node.inputs[0], write.ints(parted))
    value = write.op("Expand", value, write.ints(copies))
    joined = [d if d < 0 else d * c for d, c in zip(dims, repeats, strict=True)]
    return [write.op("Reshape", value, write.ints(joined))]


@rewrite("CumSum")
def cum_sum(node: ir.Node, write: Writer) -> Outputs:
    """A triangular matrix along the axis."""
    dims = write.dims(node.inputs[0])
    given = constant_ints(node.inputs[1])
    if given is None or dims[given[0]] < 0:
        raise write.tape.refuse(node, "its axis is computed at run time, or is the batch")
    axis = given[0] % len(dims)
    first = -1 if int_of(node, "exclusive", 0) else 0
    matrix = np.tril(np.ones((dims[axis], dims[axis])), first)
    if int_of(node, "reverse", 0):
        matrix = matrix.T
    return [write.map_axis(write.op("Identity", node.inputs[0]), dims, axis, matrix)]


@rewrite("GroupNormalization", since=21)
def group_normalization(node: ir.Node, write: Writer) -> Outputs:
    """Standardised over each group's channels and positions, then scaled and shifted."""
    x, scale, bias = (v for v in node.inputs[:3])
    dims = write.dims(x)
    arrays = [constant_array(v) for v in (scale, bias)]
    if any(a is None for a in arrays):
        raise write.tape.refuse(node, "its scale or bias is computed at run time")
    rows = write.op("Reshape", x, write.ints([0, int_of(node, "num_groups", 1), -1]))
    over = write.ints([2])
    centred = write.op("Sub", rows, write.op("ReduceMean", rows, over, keepdims=1))
    square = write.op("Mul", centred, write.op("Identity", centred))
    variance = write.op("ReduceMean", square, over, keepdims=1)
    epsilon = float_of(node, "epsilon", 1e-5)
    deviation = write.op("Sqrt", write.op("Add", variance, epsilon))
    value = write.op("Reshape", write.op("Div", centred, deviation), write.ints(dims))
    per_channel = [
        write.constant(np.repeat(a, dims[1] // a.size).reshape(-1, *[1] * (len(dims) - 2)))
        for a in arrays
        if a is not None
    ]
    return [write.op("Add", write.op("Mul", value, per_channel[0]), per_channel[1])]
