"""The table of rewrites: what the training runtime cannot differentiate, in terms of what it can.

A rewrite is exact: the same function of the same inputs, and the same derivative, which a row of
the gradient spec table checks on both engines. A rule is registered for an operator and a range of
opsets; it returns the values that stand for the node's outputs, or None where the node can stay as
it is (perhaps after its attributes were spelled out). Operators in `NATIVE` need no rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from graph_ops.rules.registry import RuleTable

if TYPE_CHECKING:
    import onnx_ir as ir

    from graph_ops.engines.ort_training.rewrites.writer import Writer

Outputs = Sequence["ir.Value"] | None
RewriteRule = Callable[["ir.Node", "Writer"], Outputs]

REWRITES: RuleTable[RewriteRule] = RuleTable("rewrite")
rewrite = REWRITES.register

NATIVE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Concat",
        "Cos",
        "Div",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "GatherND",
        "Gemm",
        "GlobalAveragePool",
        "Identity",
        "Log",
        "LogSoftmax",
        "Mul",
        "Neg",
        "Reciprocal",
        "ReduceLogSumExp",
        "ReduceMean",
        "Reshape",
        "ScatterND",
        "Sigmoid",
        "Sin",
        "Softmax",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators whose gradient in onnxruntime-training 1.19.2 is right as it is (float32, and no input
used twice by one node)."""
