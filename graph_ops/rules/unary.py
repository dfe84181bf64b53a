"""Gradients of operators with one differentiable input, written as the formula alone.

With y = f(x), a rule returns g·f′(x) from a `Unary`: the gradient g of y, x, y and the tape. Where
f′ can be had from y it is: y is kept for the next layer anyway, and x may then stay inside a
kernel that the runtime has fused (a convolution with its activation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.engines.tape import BackwardTape
from graph_ops.rules.registry import gradient


@dataclass(frozen=True)
class Unary:
    """What a formula is written with.

    Attributes:
        node: The forward node.
        g: Gradient of the output, in its shape.
        x: Forward input.
        y: Forward output.
        tape: Where the backward nodes go.
    """

    node: ir.Node
    g: ir.Value
    x: ir.Value
    y: ir.Value
    tape: BackwardTape

    def number(self, value: float) -> ir.Value:
        """A stored scalar of x's element type."""
        return self.tape.scalar(value, like=self.x)

    def op(self, op_type: str, *inputs: ir.Value | float, **attributes: float) -> ir.Value:
        """Append a node; numbers among the inputs become stored scalars."""
        values = [self.number(i) if isinstance(i, int | float) else i for i in inputs]
        return self.tape.op(op_type, *values, **attributes)

    def times(self, factor: ir.Value | float) -> ir.Value:
        """The product g·factor."""
        return self.op("Mul", self.g, factor)


Formula = Callable[[Unary], ir.Value]

FLOATING = frozenset(
    {
        ir.DataType.BFLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
    }
)


def is_floating(value: ir.Value | None) -> bool:
    """Whether a value may carry a gradient: shapes and axes read at run time are integers."""
    return value is not None and (value.dtype is None or value.dtype in FLOATING)


def unary(*op_types: str) -> Callable[[Formula], Formula]:
    """Register a formula as the gradient of the operators' first input.

    The rule refuses a node whose other floating inputs (Clip's bounds) need a gradient too.
    """

    def decorate(formula: Formula) -> Formula:
        @gradient(*op_types)
        def rule(
            node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
        ) -> Sequence[ir.Value | None]:
            x, g = node.inputs[0], gradients[0]
            if any(tape.needs(v) and is_floating(v) for v in node.inputs[1:]):
                raise tape.refuse(node, "one of its parameters is computed from the activations")
            if x is None or g is None or not tape.needs(x):
                return [None]
            return [formula(Unary(node, g, x, node.outputs[0], tape))]

        return formula

    return decorate
