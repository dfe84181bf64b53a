"""Operators whose gradient is zero, listed on purpose: so "zero" and "unknown" differ.

Their outputs are piecewise constant in their inputs (roundings, comparisons, positions), or depend
on nothing but a shape. An operator that is in no table stops the backward pass instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graph_ops.engines.tape import BackwardTape
from graph_ops.rules.registry import gradient

PIECEWISE_CONSTANT = (
    "And",
    "ArgMax",
    "ArgMin",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Ceil",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Hardmax",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonZero",
    "Not",
    "OneHot",
    "Or",
    "Round",
    "Sign",
    "Xor",
)

SHAPE_ONLY = (
    "ConstantOfShape",
    "EyeLike",
    "RandomNormalLike",
    "RandomUniformLike",
    "Shape",
    "Size",
)


def zero_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Nothing flows back."""
    return [None] * len(node.inputs)


gradient(*PIECEWISE_CONSTANT, *SHAPE_ONLY)(zero_gradient)
