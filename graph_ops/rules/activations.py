"""Gradients of activation functions, in terms of the output wherever it determines them.

Masks such as [y > 0] are a steep HardSigmoid, clip(2¹⁰⁰·y, 0, 1), and not a comparison: one float
kernel instead of a comparison, a cast and a product, and the runtime's blocked layout is kept
between convolutions. Powers of two make the threshold exact.

At a kink the derivative of the flat side is taken.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graph_ops.graph import constant_array, float_of, input_at, string_of
from graph_ops.rules.unary import Unary, unary

STEEPNESS = 2.0**100
LARGEST_THRESHOLD = 2.0**27
"""Beyond it, a threshold times the steepness is no finite float32."""

SELU_ALPHA = 1.6732632423543772
SELU_GAMMA = 1.0507009873554805
GELU_CUBIC = 0.044715
HARD_SWISH_KNEE = 3.0


def above(u: Unary, value: ir.Value, threshold: float) -> ir.Value:
    """[value > threshold] as 0.0 or 1.0 in x's element type."""
    if u.x.dtype == ir.DataType.FLOAT and abs(threshold) < LARGEST_THRESHOLD:
        return u.op("HardSigmoid", value, alpha=STEEPNESS, beta=-threshold * STEEPNESS)
    return _as_number(u, u.op("Greater", value, threshold))


def below(u: Unary, value: ir.Value, threshold: float) -> ir.Value:
    """[value < threshold] as 0.0 or 1.0 in x's element type."""
    if u.x.dtype == ir.DataType.FLOAT and abs(threshold) < LARGEST_THRESHOLD:
        return u.op("HardSigmoid", value, alpha=-STEEPNESS, beta=threshold * STEEPNESS)
    return _as_number(u, u.op("Less", value, threshold))


def _as_number(u: Unary, mask: ir.Value) -> ir.Value:
    return u.op("Cast", mask, to=(u.x.dtype or ir.DataType.FLOAT).value)


@unary("Relu")
def relu_gradient(u: Unary) -> ir.Value:
    """[y > 0]."""
    return u.times(above(u, u.y, 0.0))


@unary("LeakyRelu")
def leaky_relu_gradient(u: Unary) -> ir.Value:
    """1 where x > 0, else α; for 0 ≤ α ≤ 1 this is [y > 0] clipped at α from below."""
    alpha = float_of(u.node, "alpha", 0.01)
    if alpha == 0:
        return u.times(above(u, u.y, 0.0))
    if 0 < alpha <= 1:
        return u.times(u.op("Clip", above(u, u.y, 0.0), alpha))
    return u.op("Where", u.op("Greater", u.x, 0.0), u.g, u.times(alpha))


@unary("ThresholdedRelu")
def thresholded_relu_gradient(u: Unary) -> ir.Value:
    """[x > α]."""
    return u.times(above(u, u.x, float_of(u.node, "alpha", 1.0)))


@unary("Shrink")
def shrink_gradient(u: Unary) -> ir.Value:
    """[|x| > λ]."""
    return u.times(above(u, u.op("Abs", u.x), float_of(u.node, "lambd", 0.5)))


@unary("Clip")
def clip_gradient(u: Unary) -> ir.Value:
    """[min < y < max]; an absent or infinite bound bounds nothing."""
    low, high = _bound(u, 1), _bound(u, 2)
    if u.tape.may_be_blocked(u.x) and low == 0.0 < high < LARGEST_THRESHOLD:
        return u.times(_inside(u, high))
    result = u.g
    for index, mask, comparison in ((1, above, "Greater"), (2, below, "Less")):
        bound = input_at(u.node, index)
        if bound is None:
            continue
        array = constant_array(bound)
        if array is None:
            factor = _as_number(u, u.op(comparison, u.y, bound))
        else:
            number = float(array.reshape(-1)[0])
            if abs(number) >= float(np.finfo(np.float32).max):
                continue
            factor = mask(u, u.y, number)
        result = u.op("Mul", result, factor)
    return result


def _inside(u: Unary, high: float) -> ir.Value:
    """[0 < y < h] as [max(2·y − h, 0) − y < 0], of 0 ≤ y ≤ h in the blocked layout.

    There this is two kernels, for whatever scales a channel is a convolution, which takes in the
    activation behind it, and adds to what nobody reads afterwards where it lies. No difference is
    rounded where it decides: from h/2 on both are exact.
    """
    beyond = u.op("Relu", _scaled(u, u.y, 2.0, -high))
    return below(u, u.op("Add", _scaled(u, u.y, -1.0, 0.0), beyond), 0.0)


def _scaled(u: Unary, value: ir.Value, factor: float, offset: float) -> ir.Value:
    """factor·value + offset, as the BatchNormalization of every channel."""
    channels = int(u.tape.dims(u.x)[1] or 0)
    vectors = [u.tape.constant(np.full(channels, n, np.float32)) for n in (factor, offset, 0, 1)]
    return u.tape.op("BatchNormalization", value, *vectors, epsilon=0.0)


def _bound(u: Unary, index: int) -> float:
    """A stored bound; NaN for none, or one that is computed."""
    array = constant_array(input_at(u.node, index))
    return math.nan if array is None else float(array.reshape(-1)[0])


@unary("Elu")
def elu_gradient(u: Unary) -> ir.Value:
    """1 where x > 0, else α·eˣ = y + α; for α = 1 this is clip(y + 1, 0, 1)."""
    alpha = float_of(u.node, "alpha", 1.0)
    if alpha == 1.0 and u.x.dtype == ir.DataType.FLOAT:
        return u.times(u.op("HardSigmoid", u.y, alpha=1.0, beta=1.0))
    is_positive = u.op("Greater", u.y if alpha > 0 else u.x, 0.0)
    return u.op("Where", is_positive, u.g, u.times(u.op("Add", u.y, alpha)))


@unary("Celu")
def celu_gradient(u: Unary) -> ir.Value:
    """1 where x > 0, else e^(x/α) = y/α + 1; for α > 0 this is clip(y/α + 1, 0, 1)."""
    alpha = float_of(u.node, "alpha", 1.0)
    if alpha > 0 and u.x.dtype == ir.DataType.FLOAT:
        return u.times(u.op("HardSigmoid", u.y, alpha=1.0 / alpha, beta=1.0))
    slope = u.op("Add", u.op("Mul", u.y, 1.0 / alpha), 1.0)
    return u.op("Where", u.op("Greater", u.x, 0.0), u.g, u.times(slope))


@unary("Selu")
def selu_gradient(u: Unary) -> ir.Value:
    """γ where x > 0, else γ·α·eˣ = y + γ·α."""
    alpha = float_of(u.node, "alpha", SELU_ALPHA)
    gamma = float_of(u.node, "gamma", SELU_GAMMA)
    is_positive = u.op("Greater", u.y if alpha > 0 and gamma > 0 else u.x, 0.0)
    return u.times(u.op("Where", is_positive, gamma, u.op("Add", u.y, gamma * alpha)))


@unary("Sigmoid")
def sigmoid_gradient(u: Unary) -> ir.Value:
    """y·(1 − y); for 0 ≤ y ≤ 1 the second factor is clip(1 − y, 0, 1)."""
    if u.x.dtype == ir.DataType.FLOAT:
        rest = u.op("HardSigmoid", u.y, alpha=-1.0, beta=1.0)
    else:
        rest = u.op("Sub", 1.0, u.y)
    return u.times(u.op("Mul", u.y, rest))


@unary("Swish")
def swish_gradient(u: Unary) -> ir.Value:
    """With s = σ(α·x), y = x·s: s + α·y·(1 − s)."""
    alpha = float_of(u.node, "alpha", 1.0)
    if alpha == 1.0 and u.tape.may_be_blocked(u.x):
        return _early_swish_gradient(u)
    s = u.op("Sigmoid", u.x if alpha == 1.0 else u.op("Mul", u.x, alpha))
    if u.x.dtype == ir.DataType.FLOAT:
        rest = u.op("HardSigmoid", s, alpha=-1.0, beta=1.0)
    else:
        rest = u.op("Sub", 1.0, s)
    slope = u.op("Mul", u.y, rest)
    if alpha != 1.0:
        slope = u.op("Mul", slope, alpha)
    return u.times(u.op("Add", s, slope))


def _early_swish_gradient(u: Unary) -> ir.Value:
    """The slope s + y·(1 − s) as s·v with v = 1 + (x − y), in the blocked layout.

    There v is one kernel. The slope is computed forward, where x, y and s are in the caches: only
    it and x are kept for backward. For large x the error of v is that of x and y, a unit in their
    last place: 1e-4 from 1000 on.
    """
    v = u.op("Add", _scaled(u, u.y, -1.0, 1.0), u.x)
    slope = u.op("Mul", v, u.op("Sigmoid", u.x))
    height, width = u.tape.dims(u.x)[2:]
    if height and width and height * width > 1:
        u.tape.early.append((slope, [height, width]))
    return u.times(slope)


@unary("HardSigmoid")
def hard_sigmoid_gradient(u: Unary) -> ir.Value:
    """α where 0 < y < 1."""
    inside = u.op("Mul", above(u, u.y, 0.0), below(u, u.y, 1.0))
    return u.times(u.op("Mul", inside, float_of(u.node, "alpha", 0.2)))


@unary("HardSwish")
def hard_swish_gradient(u: Unary) -> ir.Value:
    """h(x) + x/6·[|x| < 3] with h = clip(x/6 + ½, 0, 1); Shrink takes |x| < 3 out of x."""
    gate = u.op("HardSigmoid", u.x, alpha=1.0 / 6.0, beta=0.5)
    outside = u.op("Shrink", u.x, lambd=HARD_SWISH_KNEE, bias=0.0)
    slope = u.op("Mul", u.op("Sub", u.x, outside), 1.0 / 6.0)
    return u.times(u.op("Add", gate, slope))


@unary("Tanh")
def tanh_gradient(u: Unary) -> ir.Value:
    """1 − y²."""
    return u.times(u.op("Sub", 1.0, u.op("Mul", u.y, u.y)))


@unary("Softplus")
def softplus_gradient(u: Unary) -> ir.Value:
    """σ(x)."""
    return u.times(u.op("Sigmoid", u.x))


@unary("Softsign")
def softsign_gradient(u: Unary) -> ir.Value:
    """1/(1 + |x|)² = (1 − |y|)²."""
    root = u.op("Sub", 1.0, u.op("Abs", u.y))
    return u.times(u.op("Mul", root, root))


@unary("Mish")
def mish_gradient(u: Unary) -> ir.Value:
    """With t = tanh(softplus(x)): t + x·σ(x)·(1 − t²)."""
    t = u.op("Tanh", u.op("Softplus", u.x))
    decay = u.op("Sub", 1.0, u.op("Mul", t, t))
    slope = u.op("Mul", u.op("Mul", u.x, u.op("Sigmoid", u.x)), decay)
    return u.times(u.op("Add", t, slope))


@unary("Gelu")
def gelu_gradient(u: Unary) -> ir.Value:
    """Exact: Φ(x) + x·φ(x). With tanh: ½(1 + t) + ½x(1 − t²)·u′, t = tanh(u(x))."""
    square = u.op("Mul", u.x, u.x)
    if string_of(u.node, "approximate", "none") == "tanh":
        c = math.sqrt(2.0 / math.pi)
        cubic = u.op("Add", u.op("Mul", square, c * GELU_CUBIC), c)
        t = u.op("Tanh", u.op("Mul", u.x, cubic))
        inner = u.op("Add", u.op("Mul", square, 3.0 * c * GELU_CUBIC), c)
        decay = u.op("Sub", 1.0, u.op("Mul", t, t))
        slope = u.op("Mul", u.op("Mul", u.x, inner), decay)
        twice = u.op("Add", u.op("Add", t, 1.0), slope)
        return u.times(u.op("Mul", twice, 0.5))
    half_erf = u.op("Mul", u.op("Erf", u.op("Mul", u.x, math.sqrt(0.5))), 0.5)
    distribution = u.op("Add", half_erf, 0.5)
    bell = u.op("Exp", u.op("Mul", square, -0.5))
    density = u.op("Mul", bell, 1.0 / math.sqrt(2.0 * math.pi))
    return u.times(u.op("Add", distribution, u.op("Mul", u.x, density)))
