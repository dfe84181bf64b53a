"""Gradients of element-wise operators.

Each row keeps its inputs where the function is smooth or where a kink is hit with probability
zero; `opset` below 18 sends the row through the version converter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.graph_ops.rules.gradient_harness import GradientSpec, check_gradient, check_refusal

FLOAT, DOUBLE, INT = np.float32, np.float64, np.int64
IMAGE = (2, 3, 4, 5)
POSITIVE = (0.5, 2.0)
SMOOTH_IN_FLOAT: Any = {"reference": "ort", "step": 0.01, "tolerance": 1e-3}
"""For functions that ONNX's reference implementation evaluates wrongly or in float32."""
LINEAR_IN_FLOAT: Any = {"reference": "ort", "step": 0.5}


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.asarray(numbers, INT)


def number(value: float) -> NDArray[np.float32]:
    return np.asarray(value, FLOAT)


def function(
    call: str,
    low: float = -3.0,
    high: float = 3.0,
    opset: int = 18,
    name: str = "",
    **weights: NDArray[Any] | tuple[int, ...],
) -> GradientSpec:
    """y = f(x) for an image x."""
    return GradientSpec(
        name or call,
        f"y = {call}",
        {"x": IMAGE},
        weights,
        opset=opset,
        input_range=(low, high),
    )


def in_double(call: str) -> GradientSpec:
    """The same in double precision, where masks are written with comparisons."""
    return GradientSpec(
        f"{call} of doubles",
        f"d = Cast <to=11> (x) e = {call} y = Cast <to=1> (e)",
        {"x": IMAGE},
        {"two": np.asarray(2.0, DOUBLE), "minus": np.asarray(-1.0, DOUBLE)},
        input_range=(-3, 3),
    )


ACTIVATION_SPECS = [
    GradientSpec("Relu: as a steep HardSigmoid of the output", "y = Relu(x)", {"x": IMAGE},
                 expected_operators=("HardSigmoid", "Mul")),
    function("Relu(x)", opset=21, name="Relu: opset 21"),
    function("Relu(x)", opset=7, name="Relu: opset 7"),
    in_double("Relu(d)"),
    function("LeakyRelu(x)"),
    function("LeakyRelu <alpha=0.3> (x)"),
    function("LeakyRelu <alpha=-0.5> (x)"),
    function("LeakyRelu <alpha=1.5> (x)"),
    function("LeakyRelu <alpha=0.0> (x)"),
    function("PRelu(x, s)", name="PRelu: slope per channel", s=(3, 1, 1)),
    function("PRelu(x, s)", name="PRelu: one slope", s=(1,)),
    function("PRelu(x, s)", name="PRelu: scalar slope", opset=9, s=(1, 1, 1)),
    function("PRelu(x, s)", name="PRelu: full slope", s=IMAGE[1:]),
    GradientSpec("PRelu: computed slope", "y = PRelu(x, s)", {"x": IMAGE, "s": (2, 3, 1, 1)},
                 input_range=(-2, 2)),
    function("ThresholdedRelu <alpha=0.7> (x)"),
    function("ThresholdedRelu(x)"),
    function("Shrink <lambd=1.0, bias=0.4> (x)"),
    function("Clip(x, lo, hi)", name="Clip: both", lo=number(-1), hi=number(2)),
    function("Clip(x, lo, hi)", name="Clip: 0 to 6", low=-4, high=10, lo=number(0), hi=number(6)),
    GradientSpec("Clip: 0 to 6 in blocks", "y = Clip(x, lo, hi)", {"x": (2, 16, 4, 5)},
                 {"lo": number(0), "hi": number(6)}, input_range=(-4, 10),
                 expected_operators=("BatchNormalization",)),
    function("Clip(x, lo)", name="Clip: only min", lo=number(0.3)),
    function("Clip(x, , hi)", name="Clip: only max", hi=number(0.3)),
    function("Clip(x)", name="Clip: unbounded"),
    function("Clip(x, lo, hi)", name="Clip: infinite max", lo=number(-1),
             hi=number(float(np.finfo(FLOAT).max))),
    GradientSpec("Clip: large bounds", "y = Clip(x, lo, hi)", {"x": IMAGE},
                 {"lo": number(-1e9), "hi": number(2e9)}, input_range=(-3e9, 3e9), step=1e3),
    function("Clip <min=-1.0, max=2.0> (x)", opset=7),
    function("Clip <min=0.0> (x)", opset=7),
    function("Clip <max=1.0> (x)", opset=10),
    in_double("Clip(d, minus, two)"),
    function("Elu(x)"),
    function("Elu <alpha=0.4> (x)"),
    function("Elu <alpha=-0.4> (x)"),
    function("Celu <alpha=0.6> (x)"),
    function("Celu(x)"),
    function("Selu(x)"),
    function("Selu <alpha=1.2, gamma=0.9> (x)"),
    function("Selu <alpha=1.2, gamma=-0.9> (x)"),
    function("Sigmoid(x)"),
    in_double("Sigmoid(d)"),
    function("HardSigmoid(x)"),
    function("HardSigmoid <alpha=0.5, beta=0.3> (x)"),
    function("HardSwish(x)", -5, 5),
    function("Swish(x)", opset=24),
    function("Swish <alpha=0.7> (x)", opset=24),
    function("Tanh(x)"),
    function("Softplus(x)"),
    function("Softsign(x)"),
    function("Mish(x)"),
    GradientSpec("Gelu: exact", "y = Gelu(x)", {"x": IMAGE}, opset=20, input_range=(-3, 3),
                 **SMOOTH_IN_FLOAT),
    function('Gelu <approximate="tanh"> (x)', opset=20),
]  # fmt: skip

FUNCTION_SPECS = [
    function("Exp(x)"),
    function("Log(x)", 0.5, 3),
    function("Sqrt(x)", 0.5, 3),
    function("Abs(x)"),
    function("Neg(x)"),
    function("Reciprocal(x)", 0.5, 3),
    function("Sin(x)"),
    function("Cos(x)"),
    GradientSpec("Erf(x)", "y = Erf(x)", {"x": IMAGE}, input_range=(-2, 2), **SMOOTH_IN_FLOAT),
    function("Identity(x)"),
    function("Dropout(x)"),
    function("Dropout <ratio=0.4> (x)", opset=7, name="Dropout: opset 7"),
    function("Dropout(x, r, t)", name="Dropout: inference by input", r=number(0.5),
             t=np.asarray(False)),
    GradientSpec("Dropout: with mask", "y, m = Dropout(x)", {"x": (2, 5)}),
    GradientSpec("Cast: there and back", "d = Cast <to=11> (x) y = Cast <to=1> (d)",
                 {"x": (2, 5)}),
    GradientSpec("CastLike: there and back", "d = CastLike (x, k) y = CastLike (d, x)",
                 {"x": (2, 5)}, {"k": np.asarray(0, np.float64)}),
    GradientSpec("Cast: same type", "y = Cast <to=1> (x)", {"x": (2, 5)}),
    GradientSpec("Cast: to integers", "d = Cast <to=7> (x) e = Cast <to=1> (d) y = Mul(x, e)",
                 {"x": (2, 5)}, input_range=(1.1, 4.9), reference="ort", step=1e-3,
                 tolerance=2e-3),
]  # fmt: skip


def binary(
    name: str,
    call: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    positive: str = "",
) -> GradientSpec:
    """y = f(a, b), both differentiated; the one named `positive` is."""
    return GradientSpec(
        name,
        f"y = {call}",
        {"a": a, "b": b},
        input_range=(-2.0, 2.0),
        ranges={positive: POSITIVE},
    )


SHAPES = {
    "same shape": (IMAGE, IMAGE),
    "left broadcasts": ((2, 1, 1, 5), IMAGE),
    "right broadcasts": (IMAGE, (2, 3, 1, 1)),
    "both broadcast": ((2, 1, 4, 5), (2, 3, 1, 5)),
}

BROADCASTING_SPECS = [
    spec
    for name, (a, b) in SHAPES.items()
    for spec in (
        binary(f"Add: {name}", "Add(a, b)", a, b),
        binary(f"Sub: {name}", "Sub(a, b)", a, b),
        binary(f"Mul: {name}", "Mul(a, b)", a, b),
        binary(f"Div: {name}", "Div(a, b)", a, b, positive="b"),
        binary(f"Pow: {name}", "Pow(a, b)", a, b, positive="a"),
        binary(f"Max: {name}", "Max(a, b)", a, b),
        binary(f"Min: {name}", "Min(a, b)", a, b),
        binary(f"Sum: {name}", "Sum(a, b)", a, b),
        GradientSpec(f"Mean: {name}", "y = Mean(a, b)", {"a": a, "b": b}, **LINEAR_IN_FLOAT),
    )
]


def with_constant(name: str, call: str, **weights: NDArray[Any] | tuple[int, ...]) -> GradientSpec:
    """y = f(x, c) with x positive."""
    return GradientSpec(
        name, f"y = {call}", {"x": IMAGE}, weights, input_range=POSITIVE, weight_range=POSITIVE
    )


CONSTANT_SPECS = [
    *(
        with_constant(f"{op}: {side} {kind}", f"{op}({call})", c=shape)
        for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum")
        for kind, shape in (("scalar", ()), ("channels", (3, 1, 1)))
        for side, call in (("constant right", "x, c"), ("constant left", "c, x"))
    ),
    *(
        GradientSpec(f"{op}: constant of higher rank",
                     f"r = {op}(x, c) y = Transpose <perm=[1,0,2,3]> (r)",
                     {"x": (2, 4, 5)}, {"c": (3, 1, 1, 5)}, input_range=POSITIVE,
                     weight_range=POSITIVE)
        for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum")
    ),
    GradientSpec("Mean: constant left", "y = Mean(c, x)", {"x": IMAGE}, {"c": (3, 1, 1)},
                 **LINEAR_IN_FLOAT),
    *(
        with_constant(f"Pow: exponent {e}", "Pow(x, c)", c=number(e))
        for e in (-2.0, -1.0, 0.5, 1.0, 2.0, 3.0, 2.5)
    ),
    with_constant("Pow: integer exponent", "Pow(x, c)", c=ints(3)),
    with_constant("Pow: exponent per channel", "Pow(x, c)",
                  c=np.asarray([[[1]], [[2]], [[3]]], FLOAT)),
    GradientSpec("Pow: square of negatives", "y = Pow(x, c)", {"x": IMAGE}, {"c": number(2)}),
    GradientSpec("Pow: integer exponents of negatives", "y = Pow(x, c)", {"x": IMAGE},
                 {"c": ints(2, 3, 2, 3, 1)}),
    GradientSpec("Pow: zero exponent", "p = Pow(x, c) y = Add(p, x)", {"x": (2, 5)},
                 {"c": number(0)}),
    GradientSpec("Mul: square", "y = Mul(x, x)", {"x": IMAGE}),
    GradientSpec("Add: twice the same", "y = Add(x, x)", {"x": IMAGE}),
    GradientSpec("Add: opset 7", "y = Add(x, c)", {"x": IMAGE}, {"c": (3, 1, 1)}, opset=7),
    GradientSpec("Sum: three", "y = Sum(a, b, c)", {"a": IMAGE, "b": (2, 3, 1, 1), "c": IMAGE}),
    GradientSpec("Sum: one", "y = Sum(a)", {"a": IMAGE}),
    GradientSpec("Mean: three", "y = Mean(a, b, c)",
                 {"a": IMAGE, "b": (2, 1, 4, 1), "c": IMAGE}),
    GradientSpec("Max: three", "y = Max(a, b, c)",
                 {"a": IMAGE, "b": (2, 3, 1, 1), "c": (2, 1, 4, 5)}),
    GradientSpec("Min: three", "y = Min(a, b, c)",
                 {"a": IMAGE, "b": (2, 3, 1, 1), "c": (2, 1, 4, 5)}),
    GradientSpec("Max: one", "y = Max(a)", {"a": IMAGE}),
    GradientSpec("Max: tie of two", "y = Max(x, x)", {"x": IMAGE}),
    GradientSpec("Min: tie of three", "y = Min(x, x, x)", {"x": IMAGE}),
    GradientSpec("Max: tie with a broadcast operand", "b = ReduceMax(a, k) y = Max(b, a)",
                 {"a": IMAGE}, {"k": ints(2, 3)}),
    GradientSpec("Max: constant between", "y = Max(a, k, b)", {"a": IMAGE, "b": IMAGE},
                 {"k": number(-0.2)}),
    GradientSpec("Where: both branches", "k = Greater(c, z) y = Where(k, a, b)",
                 {"a": IMAGE, "b": (2, 3, 1, 1)}, {"c": (3, 4, 5), "z": number(0)}),
    GradientSpec("Where: condition from activations",
                 "k = Less(a, b) y = Where(k, a, b)", {"a": IMAGE, "b": (2, 1, 4, 5)}),
    GradientSpec("Where: constant branch", "k = Greater(x, z) y = Where(k, x, z)",
                 {"x": IMAGE}, {"z": number(0.1)}),
]  # fmt: skip

ZERO_CALLS = {
    "Floor": "f = Floor(x)",
    "Ceil": "f = Ceil(x)",
    "Round": "f = Round(x)",
    "Sign": "f = Sign(x)",
    **{op: f"k = {op}(x, c) f = Cast <to=1> (k)"
       for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")},
    "Equal": "k = Equal(x, c) l = Cast <to=1> (k) f = Add(l, d)",
    **{op: f"k = Greater(x, c) l = Less(x, d) m = {op}(k, l) f = Cast <to=1> (m)"
       for op in ("And", "Or", "Xor")},
    "Not": "k = Greater(x, c) m = Not(k) f = Cast <to=1> (m)",
    "IsNaN": "k = IsNaN(x) l = Cast <to=1> (k) f = Add(l, d)",
    "IsInf": "k = IsInf(x) l = Cast <to=1> (k) f = Add(l, d)",
    "ArgMax": "k = ArgMax <axis=1> (x) l = Cast <to=1> (k) f = Add(l, d)",
    "ArgMin": "k = ArgMin <axis=1> (x) l = Cast <to=1> (k) f = Add(l, d)",
    "Hardmax": "f = Hardmax <axis=1> (x)",
    "OneHot": "k = ArgMax <axis=1, keepdims=0> (x) f = OneHot <axis=1> (k, depth, values)",
    "Size": "k = Size(x) l = Cast <to=1> (k) f = Mul(l, d)",
    "Shape and ConstantOfShape": "k = Shape(x) l = ConstantOfShape(k) f = Add(l, d)",
}  # fmt: skip

ZERO_IN_FLOAT = ("Hardmax", "IsInf", "OneHot", "Shape and ConstantOfShape")

ZERO_SPECS = [
    GradientSpec(
        f"zero: {name}",
        f"{call} g = Sigmoid(x) y = Mul(g, f)",
        {"x": (2, 4, 3)},
        {
            "c": number(-0.5),
            "d": number(0.25),
            "depth": np.asarray(4, INT),
            "values": np.asarray([0.5, 1.5], FLOAT),
        },
        input_range=(-2.9, 2.9),
        **(SMOOTH_IN_FLOAT if name in ZERO_IN_FLOAT else {}),
    )
    for name, call in ZERO_CALLS.items()
]

GRADIENT_SPECS = [
    *ACTIVATION_SPECS,
    *FUNCTION_SPECS,
    *BROADCASTING_SPECS,
    *CONSTANT_SPECS,
    *ZERO_SPECS,
]


@pytest.mark.parametrize("spec", GRADIENT_SPECS, ids=str)
def test_gradient_agrees_with_finite_differences(spec: GradientSpec) -> None:
    check_gradient(spec)


def test_names_of_the_specs_are_unique() -> None:
    names = [spec.name for spec in GRADIENT_SPECS]
    assert len(set(names)) == len(names)


REFUSED_SPECS = [
    GradientSpec("Dropout: training", "y = Dropout(x, r, t)", {"x": IMAGE},
                 {"r": number(0.5), "t": np.asarray(True)}),
    GradientSpec("Clip: bound from activations", "y = Clip(c, x)", {"x": ()}, {"c": IMAGE}),
]  # fmt: skip


@pytest.mark.parametrize("spec", REFUSED_SPECS, ids=str)
def test_rule_refuses_what_it_cannot_differentiate(spec: GradientSpec) -> None:
    check_refusal(spec)
