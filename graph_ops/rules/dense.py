"""Gemm and MatMul: the last axis of the left operand is summed against the right operand's rows.

Their own outputs are not filters: nothing is dropped there on its own account, but channels that
pass through a broadcast or a residual sum are followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Channels, CostItem, Labels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_array, float_of, input_at, int_of, node_label
from graph_ops.rules.elementwise import broadcast_axes
from graph_ops.rules.registry import coupling, gradient


@coupling("Gemm")
def couple_gemm(node: ir.Node, channels: Channels) -> None:
    """A (N, K) · B (K, M) + C, either transposed by its attribute."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None
    assert b is not None
    a_axes, b_axes = channels.axes(a), channels.axes(b)
    if len(a_axes) != 2 or len(b_axes) != 2:
        channels.freeze_value(a, f"the shape of {node_label(node)!r} is not known")
        return
    k_of_a = 0 if int_of(node, "transA", 0) else 1
    k_of_b = 1 if int_of(node, "transB", 0) else 0
    reason = f"the input of {node_label(node)!r} cannot be narrowed"
    channels.couple(a_axes[k_of_a], b_axes[k_of_b], reason)
    channels.contract(node, 0, k_of_a)
    out: list[Labels | None] = [a_axes[1 - k_of_a], b_axes[1 - k_of_b]]
    bias = input_at(node, 2)
    if bias is not None:
        bias_axes = channels.axes(bias)
        bias_dims = channels.dims(bias) or ()
        for axis in (-1, -2):
            if len(bias_dims) >= -axis and bias_dims[axis] != 1:
                channels.couple(out[axis], bias_axes[axis], f"the bias of {node_label(node)!r}")
    channels.set_axes(node.outputs[0], out)
    b_dims = channels.dims(b)
    if b_dims is None or any(d is None for d in b_dims):
        channels.unknown_cost.append(node)
        return
    axes = tuple(x for x in b_axes if x is not None)
    size = math.prod(int(d or 0) for d in b_dims)
    channels.costs.append(CostItem(node, size // max(1, math.prod(x.size for x in axes)), axes))


@coupling("MatMul")
def couple_matmul(node: ir.Node, channels: Channels) -> None:
    """(…, n, k) · (…, k, m) with NumPy's broadcasting of the leading axes."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None
    assert b is not None
    a_dims, b_dims = channels.dims(a), channels.dims(b)
    name = node_label(node)
    if not a_dims or not b_dims:
        for value in (a, b):
            channels.freeze_value(value, f"the shape of {name!r} is not known")
        return
    a_axes, b_axes = channels.axes(a), channels.axes(b)
    k_of_b = -2 if len(b_dims) > 1 else -1
    channels.couple(a_axes[-1], b_axes[k_of_b], f"the input of {name!r} cannot be narrowed")
    channels.contract(node, 0, len(a_dims) - 1)
    lead = broadcast_axes(
        channels,
        [(a_dims[:-2], a_axes[:-2]), (b_dims[:-2], b_axes[:-2])],
        f"the leading axes of {name!r} do not match",
    )
    out = list(lead)
    if len(a_dims) > 1:
        out.append(a_axes[-2])
    if len(b_dims) > 1:
        out.append(b_axes[-1])
    channels.set_axes(node.outputs[0], out)
    _count_macs(node, channels, a, b)


def _count_macs(node: ir.Node, channels: Channels, a: ir.Value, b: ir.Value) -> None:
    """Rows of the output × k × columns; the batch axis does not count."""
    out_dims, a_dims = channels.dims(node.outputs[0]), channels.dims(a)
    out_axes, a_axes = channels.axes(node.outputs[0]), channels.axes(a)
    if out_dims is None or a_dims is None:
        channels.unknown_cost.append(node)
        return
    rows = list(zip(out_dims[1:], out_axes[1:], strict=False))
    rows.append((a_dims[-1], a_axes[-1]))
    if any(d is None for d, _ in rows):
        channels.unknown_cost.append(node)
        return
    axes = tuple(labels for _, labels in rows if labels is not None)
    total = math.prod(int(d or 0) for d, _ in rows)
    channels.costs.append(CostItem(node, total // max(1, math.prod(x.size for x in axes)), axes))


@gradient("Gemm")
def gemm_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Y = α·A'·B' + β·C: dA' = α·dY·B'ᵀ, dB' = α·A'ᵀ·dY, dC = β·dY summed where C was repeated."""
    a, b, c, g = node.inputs[0], node.inputs[1], input_at(node, 2), gradients[0]
    if g is None:
        return []
    alpha, beta = float_of(node, "alpha", 1.0), float_of(node, "beta", 1.0)
    flip_a, flip_b = int_of(node, "transA", 0), int_of(node, "transB", 0)
    parts: list[ir.Value | None] = [None, None, None]
    if tape.needs(a):
        parts[0] = (
            tape.op("Gemm", b, g, alpha=alpha, transA=flip_b, transB=1)
            if flip_a
            else tape.op("Gemm", g, b, alpha=alpha, transB=1 - flip_b)
        )
    if tape.needs(b):
        parts[1] = (
            tape.op("Gemm", g, a, alpha=alpha, transA=1, transB=flip_a)
            if flip_b
            else tape.op("Gemm", a, g, alpha=alpha, transA=1 - flip_a)
        )
    if c is not None and tape.needs(c):
        scaled = g if beta == 1.0 else tape.op("Mul", g, tape.scalar(beta, like=c))
        parts[2] = tape.unbroadcast(scaled, c, node.outputs[0])
    return parts


@gradient("MatMul")
def matmul_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Gradients dA = dY·Bᵀ and dB = Aᵀ·dY, summed over the leading axes that were repeated.

    A vector is a one-row matrix on the left and a one-column matrix on the right.
    """
    a, b, g = node.inputs[0], node.inputs[1], gradients[0]
    if g is None or a is None or b is None:
        return []
    a_dims, b_dims = tape.dims(a), tape.dims(b)
    g = _add_axes(tape, g, [-1] if len(b_dims) == 1 else [])
    g = _add_axes(tape, g, [-2] if len(a_dims) == 1 else [])
    lead = max(len(a_dims), len(b_dims), 2) - 2
    out_lead = tape.dims(node.outputs[0])[:lead]
    parts: list[ir.Value | None] = [None, None]
    if tape.needs(a):
        product = tape.op("MatMul", g, _transposed(tape, b, is_row=False))
        parts[0] = _sum_repeated(tape, product, a, out_lead, dropped=-2)
    if tape.needs(b):
        product = tape.op("MatMul", _transposed(tape, a, is_row=True), g)
        parts[1] = _sum_repeated(tape, product, b, out_lead, dropped=-1)
    return parts


def _transposed(tape: BackwardTape, value: ir.Value, is_row: bool) -> ir.Value:
    """The last two axes swapped; a vector (a row or a column) becomes a column or a row."""
    rank = len(tape.dims(value))
    if rank == 1:
        return _add_axes(tape, value, [1 if is_row else 0])
    array = constant_array(value)
    if array is not None:
        return tape.constant(np.swapaxes(array, -1, -2))
    return tape.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _add_axes(tape: BackwardTape, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    return tape.op("Unsqueeze", value, tape.ints(axes)) if axes else value


def _sum_repeated(
    tape: BackwardTape,
    product: ir.Value,
    operand: ir.Value,
    out_lead: Sequence[int | None],
    dropped: int,
) -> ir.Value:
    """Sum over the leading axes the operand was repeated on; `dropped` is a vector's extra axis."""
    dims = tape.dims(operand)
    extra = len(out_lead) - max(len(dims) - 2, 0)
    repeated = [
        extra + axis for axis, d in enumerate(dims[:-2]) if d == 1 and out_lead[extra + axis] != 1
    ]
    summed = tape.sum_over(product, repeated, keep_dims=True)
    summed = tape.sum_over(summed, list(range(extra)))
    if len(dims) == 1:
        summed = tape.op("Squeeze", summed, tape.ints([dropped]))
    return summed
