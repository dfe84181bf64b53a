"""Gemm and MatMul: the last axis of the left operand is summed against the right operand's rows.

Their own outputs are not filters: nothing is dropped there on its own account, but channels that
pass through a broadcast or a residual sum are followed.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from graph_ops.channels import Channels, CostItem, Labels
from graph_ops.graph import input_at, int_of, node_label
from graph_ops.rules.elementwise import broadcast_axes
from graph_ops.rules.registry import coupling


@coupling("Gemm")
def couple_gemm(node: ir.Node, channels: Channels) -> None:
    """A (N, K) · B (K, M) + C, either transposed by its attribute."""
    a, b = node.inputs[0], node.inputs[1]
    assert a is not None and b is not None
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
    assert a is not None and b is not None
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
