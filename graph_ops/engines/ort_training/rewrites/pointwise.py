"""Activation functions and elementwise arithmetic."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graph_ops.engines.ort_training.rewrites.registry import Outputs, rewrite
from graph_ops.engines.ort_training.rewrites.writer import Writer
from graph_ops.graph import constant_array, float_of, input_at, output_at, string_of
from graph_ops.rules.activations import GELU_CUBIC, SELU_ALPHA, SELU_GAMMA


def _x(node: ir.Node) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    return x


@rewrite("Relu")
def relu(node: ir.Node, write: Writer) -> Outputs:
    """Its gradient has a CPU kernel for float32 only: elsewhere x·[x > 0]."""
    if write.dtype == ir.DataType.FLOAT:
        return None
    return [write.op("Mul", _x(node), write.is_above(_x(node), 0.0))]


@rewrite("LeakyRelu")
def leaky_relu(node: ir.Node, write: Writer) -> Outputs:
    """The runtime reads x > 0 from the output, which a negative slope turns round."""
    alpha = float_of(node, "alpha", 0.01)
    if alpha >= 0:
        return None
    is_positive = write.op("Greater", write.stop(_x(node)), 0.0)
    return [write.op("Mul", _x(node), write.op("Where", is_positive, 1.0, alpha))]


@rewrite("PRelu")
def prelu(node: ir.Node, write: Writer) -> Outputs:
    """x·[x > 0] + slope·x·(1 − [x > 0])."""
    positive, negative = _parts(node, write)
    return [write.op("Add", positive, write.op("Mul", negative, node.inputs[1]))]


def _parts(node: ir.Node, write: Writer) -> tuple[ir.Value, ir.Value]:
    """max(x, 0) and min(x, 0); at 0 the second has derivative 1."""
    mask = write.is_above(_x(node), 0.0)
    rest = write.op("Sub", 1.0, mask)
    return write.op("Mul", _x(node), mask), write.op("Mul", _x(node), rest)


def _exponential_unit(
    node: ir.Node, write: Writer, alpha: float, scale: float = 1.0, gamma: float = 1.0
) -> ir.Value:
    """γ·(max(x, 0) + α·(e^(min(x, 0)/scale) − 1))."""
    positive, negative = _parts(node, write)
    exponent = negative if scale == 1 else write.op("Mul", negative, 1.0 / scale)
    curve = write.op("Mul", write.op("Sub", write.op("Exp", exponent), 1.0), alpha)
    unit = write.op("Add", positive, curve)
    return unit if gamma == 1 else write.op("Mul", unit, gamma)


@rewrite("Elu")
def elu(node: ir.Node, write: Writer) -> Outputs:
    """max(x, 0) + α·(e^min(x, 0) − 1)."""
    return [_exponential_unit(node, write, float_of(node, "alpha", 1.0))]


@rewrite("Celu")
def celu(node: ir.Node, write: Writer) -> Outputs:
    """max(x, 0) + α·(e^(min(x, 0)/α) − 1)."""
    alpha = float_of(node, "alpha", 1.0)
    return [_exponential_unit(node, write, alpha, scale=alpha)]


@rewrite("Selu")
def selu(node: ir.Node, write: Writer) -> Outputs:
    """γ·(max(x, 0) + α·(e^min(x, 0) − 1))."""
    alpha, gamma = float_of(node, "alpha", SELU_ALPHA), float_of(node, "gamma", SELU_GAMMA)
    return [_exponential_unit(node, write, alpha, gamma=gamma)]


@rewrite("ThresholdedRelu")
def thresholded_relu(node: ir.Node, write: Writer) -> Outputs:
    """x·[x > α]."""
    mask = write.is_above(_x(node), float_of(node, "alpha", 1.0))
    return [write.op("Mul", _x(node), mask)]


@rewrite("Shrink")
def shrink(node: ir.Node, write: Writer) -> Outputs:
    """x·[|x| > λ] − bias·sign(x)·[|x| > λ]."""
    x, stopped = _x(node), write.stop(_x(node))
    is_outside = write.op("Greater", write.op("Abs", stopped), float_of(node, "lambd", 0.5))
    mask = write.as_number(is_outside)
    offset = write.op("Mul", write.op("Sign", stopped), -float_of(node, "bias", 0.0))
    return [write.op("Add", write.op("Mul", x, mask), write.op("Mul", offset, mask))]


@rewrite("Clip")
def clip(node: ir.Node, write: Writer) -> Outputs:
    """At a lower bound of 0 the runtime lets the gradient pass; a Relu before it does not."""
    lower = constant_array(input_at(node, 1))
    if lower is None or float(lower.reshape(-1)[0]) != 0 or write.dtype != ir.DataType.FLOAT:
        return None
    return [write.op("Clip", write.op("Relu", _x(node)), None, input_at(node, 2))]


def _hard_sigmoid(x: ir.Value, write: Writer, alpha: float, beta: float) -> ir.Value:
    """min(max(α·x + β, 0), 1)."""
    line = write.op("Add", write.op("Mul", x, alpha), beta)
    mask = write.is_above(line, 0.0)
    return write.op("Clip", write.op("Mul", line, mask), None, 1.0)


@rewrite("HardSigmoid")
def hard_sigmoid(node: ir.Node, write: Writer) -> Outputs:
    """min(max(α·x + β, 0), 1)."""
    alpha, beta = float_of(node, "alpha", 0.2), float_of(node, "beta", 0.5)
    return [_hard_sigmoid(_x(node), write, alpha, beta)]


@rewrite("HardSwish")
def hard_swish(node: ir.Node, write: Writer) -> Outputs:
    """x·min(max(x/6 + ½, 0), 1)."""
    return [write.op("Mul", _x(node), _hard_sigmoid(_x(node), write, 1.0 / 6.0, 0.5))]


@rewrite("Swish")
def swish(node: ir.Node, write: Writer) -> Outputs:
    """x·σ(α·x)."""
    alpha = float_of(node, "alpha", 1.0)
    scaled = _x(node) if alpha == 1.0 else write.op("Mul", _x(node), alpha)
    return [write.op("Mul", _x(node), write.op("Sigmoid", scaled))]


def _softplus(x: ir.Value, write: Writer) -> ir.Value:
    """The stable form m + log(e^(x − m) + e^(−m)), with m = max(x, 0) stopped."""
    peak = write.op("Relu", write.stop(x))
    first = write.op("Exp", write.op("Sub", x, peak))
    second = write.op("Exp", write.op("Neg", peak))
    return write.op("Add", peak, write.op("Log", write.op("Add", first, second)))


@rewrite("Softplus")
def softplus(node: ir.Node, write: Writer) -> Outputs:
    """log(1 + eˣ)."""
    return [_softplus(_x(node), write)]


@rewrite("Mish")
def mish(node: ir.Node, write: Writer) -> Outputs:
    """x·tanh(softplus(x))."""
    return [write.op("Mul", _x(node), write.op("Tanh", _softplus(_x(node), write)))]


@rewrite("Softsign")
def softsign(node: ir.Node, write: Writer) -> Outputs:
    """x/(1 + |x|)."""
    return [write.op("Div", _x(node), write.op("Add", write.op("Abs", _x(node)), 1.0))]


@rewrite("Gelu")
def gelu(node: ir.Node, write: Writer) -> Outputs:
    """½x·(1 + erf(x/√2)), or with tanh(√(2/π)·(x + 0.044715·x³)) for the error function."""
    x = _x(node)
    if string_of(node, "approximate", "none") == "tanh":
        cube = write.op("Mul", write.op("Mul", x, x), x)
        inner = write.op("Add", x, write.op("Mul", cube, GELU_CUBIC))
        curve = write.op("Tanh", write.op("Mul", inner, math.sqrt(2.0 / math.pi)))
    else:
        curve = write.op("Erf", write.op("Mul", x, math.sqrt(0.5)))
    half = write.op("Mul", x, 0.5)
    return [write.op("Mul", half, write.op("Add", curve, 1.0))]


@rewrite("Dropout")
def dropout(node: ir.Node, write: Writer) -> Outputs:
    """Nothing at inference; the mask is all true."""
    stored = constant_array(input_at(node, 2))
    if input_at(node, 2) is not None and (stored is None or bool(stored.any())):
        raise write.tape.refuse(node, "it is in training mode and drops at random")
    kept = write.op("Identity", _x(node))
    if output_at(node, 1) is None:
        return [kept]
    shape = write.op("Shape", write.stop(_x(node)))
    return [kept, write.op("ConstantOfShape", shape, value=ir.tensor([True]))]


@rewrite("Sum", "Mean")
def chain_of_sums(node: ir.Node, write: Writer) -> Outputs:
    """One Add after the other; the mean is divided at the end."""
    total = _x(node)
    for value in node.inputs[1:]:
        total = write.op("Add", total, value)
    if node.op_type == "Mean":
        total = write.op("Mul", total, 1.0 / len(node.inputs))
    return [write.op("Identity", total) if total is node.inputs[0] else total]


@rewrite("Max", "Min")
def extremum(node: ir.Node, write: Writer) -> Outputs:
    """Tangent: of equal operands, the first one moves the result."""
    (value,) = write.stopped_outputs(node)
    terms: list[tuple[ir.Value, ir.Value | None]] = []
    rest: ir.Value | None = None
    for operand in node.inputs:
        assert operand is not None
        stopped = write.stop(operand) if write.is_differentiable(operand) else operand
        is_result = write.as_number(write.op("Equal", stopped, value))
        mask = is_result if rest is None else write.op("Mul", is_result, rest)
        left = write.op("Sub", 1.0, is_result)
        rest = left if rest is None else write.op("Mul", rest, left)
        if write.is_differentiable(operand):
            terms.append((operand, mask))
    return [write.tangent(value, terms)]


@rewrite("Where")
def where(node: ir.Node, write: Writer) -> Outputs:
    """Tangent: the runtime does not undo broadcasting of the branches."""
    (value,) = write.stopped_outputs(node)
    mask = write.as_number(_x(node))
    rest = write.op("Sub", 1.0, mask)
    branches = zip(node.inputs[1:], (mask, rest), strict=True)
    terms = [(v, slope) for v, slope in branches if v is not None and write.is_differentiable(v)]
    return [write.tangent(value, terms)]


@rewrite("Pow")
def power(node: ir.Node, write: Writer) -> Outputs:
    """A stored scalar exponent stays. Else tangent: e·x^(e − 1) for the base, y·log x for e."""
    base, exponent = node.inputs
    assert base is not None
    assert exponent is not None
    stored = constant_array(exponent)
    if stored is not None and stored.size == 1 and stored.ndim <= len(write.tape.dims(base)):
        if exponent.dtype == base.dtype:
            return None
        return [write.op("Pow", base, float(stored.reshape(-1)[0]))]
    if stored is not None and exponent.dtype != base.dtype:
        exponent = write.constant(stored.astype(np.float64))
    (value,) = write.stopped_outputs(node)
    x = write.stop(base) if write.is_differentiable(base) else base
    e = write.stop(exponent) if write.is_differentiable(exponent) else exponent
    terms: list[tuple[ir.Value, ir.Value | None]] = []
    if write.is_differentiable(base):
        slope = write.op("Mul", e, write.op("Pow", x, write.op("Sub", e, 1.0)))
        terms.append((base, write.op("Where", write.op("Equal", e, 0.0), 0.0, slope)))
    if write.is_differentiable(exponent):
        is_positive = write.op("Greater", x, 0.0)
        logarithm = write.op("Log", write.op("Where", is_positive, x, 1.0))
        terms.append((exponent, write.op("Mul", value, logarithm)))
    return [write.tangent(value, terms)]
