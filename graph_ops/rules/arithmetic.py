"""Gradients of arithmetic: functions of one number, and operators that broadcast.

Broadcasting is undone by `BackwardTape.unbroadcast`; factors that have an operand's own shape are
applied after it, on the smaller tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_array
from graph_ops.rules.registry import gradient
from graph_ops.rules.unary import Unary, unary

Gradients = Sequence[ir.Value | None]


@unary("Exp")
def exp_gradient(u: Unary) -> ir.Value:
    """The exponential is its own derivative: y."""
    return u.times(u.y)


@unary("Log")
def log_gradient(u: Unary) -> ir.Value:
    """1/x."""
    return u.op("Div", u.g, u.x)


@unary("Sqrt")
def sqrt_gradient(u: Unary) -> ir.Value:
    """1/(2·y)."""
    return u.op("Div", u.times(0.5), u.y)


@unary("Abs")
def abs_gradient(u: Unary) -> ir.Value:
    """Sign of x (0 at 0)."""
    return u.times(u.op("Sign", u.x))


@unary("Neg")
def neg_gradient(u: Unary) -> ir.Value:
    """Negative one."""
    return u.op("Neg", u.g)


@unary("Reciprocal")
def reciprocal_gradient(u: Unary) -> ir.Value:
    """−1/x² = −y²."""
    return u.op("Neg", u.times(u.op("Mul", u.y, u.y)))


@unary("Sin")
def sin_gradient(u: Unary) -> ir.Value:
    """The cosine of x."""
    return u.times(u.op("Cos", u.x))


@unary("Cos")
def cos_gradient(u: Unary) -> ir.Value:
    """Minus the sine of x."""
    return u.op("Neg", u.times(u.op("Sin", u.x)))


@unary("Erf")
def erf_gradient(u: Unary) -> ir.Value:
    """2/√π · e^(−x²)."""
    bell = u.op("Exp", u.op("Neg", u.op("Mul", u.x, u.x)))
    return u.times(u.op("Mul", bell, 2.0 / math.sqrt(math.pi)))


def _to_operands(
    node: ir.Node, tape: BackwardTape, *parts: Callable[[], ir.Value | None]
) -> list[ir.Value | None]:
    """The gradient of each operand that needs one; parts have the shape of the result."""
    found: list[ir.Value | None] = []
    for value, make in zip(node.inputs, parts, strict=True):
        part = make() if tape.needs(value) else None
        if value is None or part is None:
            found.append(None)
        else:
            found.append(tape.unbroadcast(part, value, node.outputs[0]))
    return found


@gradient("Add", "Sum")
def add_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Every operand gets the gradient."""
    return _to_operands(node, tape, *[lambda: gradients[0]] * len(node.inputs))


@gradient("Sub")
def sub_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Of a − b: g and −g."""
    to_a, to_b = _to_operands(node, tape, lambda: gradients[0], lambda: gradients[0])
    return [to_a, None if to_b is None else tape.op("Neg", to_b)]


@gradient("Mean")
def mean_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Every operand gets its share, 1/n."""
    share = tape.scalar(1.0 / len(node.inputs), like=node.outputs[0])
    parts = _to_operands(node, tape, *[lambda: gradients[0]] * len(node.inputs))
    return [None if part is None else tape.op("Mul", part, share) for part in parts]


@gradient("Mul")
def mul_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Of a·b: g·b and g·a."""
    a, b = node.inputs
    return _to_operands(
        node,
        tape,
        lambda: tape.op("Mul", gradients[0], b),
        lambda: tape.op("Mul", gradients[0], a),
    )


@gradient("Div")
def div_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Of y = a/b: g/b and −g·y/b, where /b comes after the sum over broadcast axes."""
    b, y = node.inputs[1], node.outputs[0]
    to_a, products = _to_operands(
        node,
        tape,
        lambda: tape.op("Div", gradients[0], b),
        lambda: tape.op("Mul", gradients[0], y),
    )
    return [to_a, None if products is None else tape.op("Neg", tape.op("Div", products, b))]


@gradient("Pow")
def pow_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Of y = xᵉ: e·x^(e−1) and y·ln x (0 where x ≤ 0). e may be of an integer type."""
    x, exponent = node.inputs
    y, g = node.outputs[0], gradients[0]

    def to_base() -> ir.Value | None:
        stored = constant_array(exponent)
        if stored is None:
            e = exponent
            if exponent is not None and x is not None and exponent.dtype != x.dtype:
                e = tape.op("Cast", exponent, to=(x.dtype or ir.DataType.FLOAT).value)
            power = tape.op("Pow", x, tape.op("Sub", e, tape.scalar(1.0, like=x)))
            return tape.op("Mul", g, tape.op("Mul", e, power))
        e_array = stored.astype(np.float64)
        if e_array.size == 1:
            return _constant_power(float(e_array.reshape(-1)[0]))
        dtype = x.dtype.numpy() if x is not None and x.dtype is not None else np.float32
        power = tape.op("Pow", x, tape.constant((e_array - 1.0).astype(dtype)))
        return tape.op("Mul", g, tape.op("Mul", tape.constant(e_array.astype(dtype)), power))

    def _constant_power(e: float) -> ir.Value | None:
        if e == 0.0:
            return None
        if e == 1.0:
            return g
        scaled = tape.op("Mul", g, tape.scalar(e, like=x))
        if e == 2.0:
            return tape.op("Mul", scaled, x)
        if e == 0.5:
            return tape.op("Div", scaled, y)
        if e == -1.0:
            return tape.op("Mul", scaled, tape.op("Mul", y, y))
        return tape.op("Mul", scaled, tape.op("Pow", x, tape.scalar(e - 1.0, like=x)))

    def to_exponent() -> ir.Value:
        is_positive = tape.op("Greater", x, tape.scalar(0.0, like=x))
        log = tape.op("Log", tape.op("Where", is_positive, x, tape.scalar(1.0, like=x)))
        return tape.op("Mul", g, tape.op("Mul", y, log))

    return _to_operands(node, tape, to_base, to_exponent)


@gradient("Max", "Min")
def extremum_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """The operand that equals the result gets the gradient; of equal ones, the first.

    Gradient left over by the operands before goes on to the next one; the last takes the rest.
    """
    result, zero = node.outputs[0], tape.scalar(0.0, like=node.outputs[0])
    last = max((i for i, v in enumerate(node.inputs) if tape.needs(v)), default=-1)
    remaining = gradients[0]
    found: list[ir.Value | None] = [None] * len(node.inputs)
    for index, value in enumerate(node.inputs[: last + 1]):
        assert value is not None
        part = remaining
        if index < len(node.inputs) - 1:
            is_result = tape.op("Equal", value, result)
            part = tape.op("Where", is_result, remaining, zero)
            if index < last:
                remaining = tape.op("Where", is_result, zero, remaining)
        if tape.needs(value) and part is not None:
            found[index] = tape.unbroadcast(part, value, result)
    return found


@gradient("PRelu")
def prelu_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """1 where x > 0, else the slope; the slope itself gets g·min(x, 0)."""
    x, slope = node.inputs
    zero = tape.scalar(0.0, like=x)

    def to_x() -> ir.Value:
        is_positive = tape.op("Greater", x, zero)
        return tape.op("Where", is_positive, gradients[0], tape.op("Mul", gradients[0], slope))

    def to_slope() -> ir.Value:
        return tape.op("Mul", gradients[0], tape.op("Min", x, zero))

    return _to_operands(node, tape, to_x, to_slope)


@gradient("Where")
def where_gradient(node: ir.Node, gradients: Gradients, tape: BackwardTape) -> Gradients:
    """Each branch gets the gradient where it was chosen; the condition gets none."""
    condition, zero = node.inputs[0], tape.scalar(0.0, like=node.outputs[0])
    return _to_operands(
        node,
        tape,
        lambda: None,
        lambda: tape.op("Where", condition, gradients[0], zero),
        lambda: tape.op("Where", condition, zero, gradients[0]),
    )
