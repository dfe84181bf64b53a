"""What every operator does to channels, from one table: what may go, and what freezes and why.

A row is a piece of graph between two convolutions. Its expectation is what a person would say; the
pruned model is compared with the masked original for several random drops.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest

from graph_ops.rules import COUPLINGS
from tests.support.cutting import analyse_bytes, assert_masked_equals_pruned, model_of

SEEDS = (0, 1, 2)
CONV1 = "[conv1] a = Conv <pads = [1,1,1,1]> (x, w1, b1)"
W1 = "float[8,3,3,3] w1, float[8] b1"


@dataclass(frozen=True)
class CouplingSpec:
    """A model and what of it may be pruned.

    Attributes:
        id: What the row is about.
        model: The model file.
        prunable: For each convolution named, the number of classes its filters form when all of
            them may go, or 0 when none may.
        reason: Part of why the others are frozen.
    """

    id: str
    model: bytes
    prunable: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def between(
    name: str,
    body: str,
    weights: str = "",
    *,
    channels: int = 8,
    classes: int = 8,
    reason: str = "",
    opset: int = 17,
    inputs: str = "float[N,3,6,6] x",
    first: str = CONV1,
    also: dict[str, int] | None = None,
) -> CouplingSpec:
    """conv1 (8 filters) makes `a`; the body makes `m` with `channels` channels for conv2."""
    declared = ", ".join(w for w in (W1, weights, f"float[4,{channels},1,1] w2") if w)
    model = model_of(f"{first}\n{body}\n[conv2] y = Conv (m, w2)", declared, inputs, "y", opset)
    return CouplingSpec(name, model, {"conv1": classes, "conv2": 0, **(also or {})}, reason)


def whole(
    name: str,
    body: str,
    weights: str,
    prunable: dict[str, int],
    *,
    reason: str = "",
    opset: int = 17,
    inputs: str = "float[N,3,6,6] x",
    outputs: str = "y",
) -> CouplingSpec:
    """A model of its own."""
    return CouplingSpec(name, model_of(body, weights, inputs, outputs, opset), prunable, reason)


def unary(op_type: str, attributes: str = "", opset: int = 17) -> CouplingSpec:
    return between(op_type, f"m = {op_type} {attributes} (a)", opset=opset)


UNARY_SPECS = [
    *(
        unary(name)
        for name in (
            "Abs", "Ceil", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Floor",
            "HardSigmoid", "Identity", "LeakyRelu", "Neg", "Relu", "Round", "Selu", "Shrink",
            "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
            "HardSwish",
        )
    ),
    unary("Mish", opset=18),
    unary("Gelu", opset=20),
    between("Log, Sqrt, Reciprocal", "p = Exp(a)\nq = Sqrt(p)\nr = Log(q)\ns = Exp(r)\n"
            "m = Reciprocal(s)"),
    between("Cast to half and back", "h = Cast <to = 10> (a)\nm = Cast <to = 1> (h)"),
    between("Cast to integer and back", "h = Cast <to = 7> (a)\nm = Cast <to = 1> (h)"),
    between("IsNaN, IsInf, Not", "p = IsNaN(a)\nq = IsInf(a)\nr = Or(p, q)\ns = Not(r)\n"
            "m = Cast <to = 1> (s)"),
    between("Dropout with its mask", "p, k = Dropout(a)\nf = Cast <to = 1> (k)\nm = Mul(p, f)",
            opset=13),
    between("opset 7", "p = BatchNormalization(a, scale, bias, mean, var)\nm = Relu(p)",
            "float[8] scale, float[8] bias, float[8] mean, float[8] var", opset=7),
]  # fmt: skip

TWO = "[conv1b] b = Conv <pads = [1,1,1,1]> (x, w1b)"
W1B = "float[8,3,3,3] w1b"


def two(name: str, body: str, weights: str = "", **options: object) -> CouplingSpec:
    """conv1 and conv1b (8 filters each) make `a` and `b`."""
    also = {"conv1b": options.get("classes", 8)}
    declared = ", ".join(w for w in (W1B, weights) if w)
    return between(name, f"{TWO}\n{body}", declared, also=also, **options)  # type: ignore[arg-type]


BROADCAST_SPECS = [
    *(
        two(name, f"m = {name}(a, b)")
        for name in ("Add", "Sub", "Mul", "Max", "Min", "Mean", "Sum", "PRelu")
    ),
    two("Div", "p = Exp(b)\nm = Div(a, p)"),
    two("Pow", "p = Exp(a)\nm = Pow(p, b)"),
    two("Mod", "m = Mod <fmod = 1> (a, b)"),
    two("three-way Sum with itself", "m = Sum(a, b, a)"),
    *(
        two(f"{name} and Where", f"p = {name}(a, b)\nm = Where(p, a, b)", opset=16)
        for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    two("And, Or, Xor", "p = Greater(a, b)\nq = Less(a, b)\nr = And(p, q)\ns = Or(r, p)\n"
        "t = Xor(s, q)\nm = Where(t, a, b)"),
    between("Mul [C,1,1]", "m = Mul(a, k)", "float[8,1,1] k"),
    between("Add [1,C,1,1]", "m = Add(k, a)", "float[1,8,1,1] k"),
    between("Add [1]", "m = Add(a, k)", "float[1] k"),
    between("Mul of a scalar", "m = Mul(a, k)", "float k = {2.0}"),
    between("PRelu [C,1,1]", "m = PRelu(a, k)", "float[8,1,1] k"),
    between("PRelu [1]", "m = PRelu(a, k)", "float[1] k"),
    between("Mul of Unsqueeze(initializer)", "u = Unsqueeze(k, ax)\nm = Mul(a, u)",
            "float[8] k, int64[2] ax = {1, 2}"),
    between("Mul of Unsqueeze(initializer), axes an attribute",
            "u = Unsqueeze <axes = [1, 2]> (k)\nm = Mul(a, u)", "float[8] k", opset=9),
    between("Add of Reshape(initializer)", "u = Reshape(k, s)\nm = Add(a, u)",
            "float[8] k, int64[4] s = {1, 8, 1, 1}"),
    between("Add of Reshape(initializer) with -1", "u = Reshape(k, s)\nm = Add(a, u)",
            "float[8] k, int64[3] s = {-1, 1, 1}"),
    between("Add of a Constant node",
            "k = Constant <value = float[8,1,1] {1,2,3,4,5,6,7,8}> ()\nm = Add(a, k)"),
    between("Mul of a ConstantOfShape node",
            "k = ConstantOfShape <value = float[1] {2.5}> (s)\nm = Mul(a, k)",
            "int64[3] s = {8, 1, 1}"),
    between("one constant for two convolutions is not coupling",
            "p = Add(a, k)\n[mid] q = Conv(p, wq)\nm = Add(q, k)",
            "float[8,1,1] k, float[8,8,1,1] wq", also={"mid": 8}),
    between("a spatial constant does not matter", "m = Add(a, k)", "float[6,6] k"),
    between("a constant of the full shape", "m = Add(a, k)", "float[1,8,6,6] k"),
    between("Expand of a constant to the channels", "e = Expand(k, s)\nm = Add(a, e)",
            "float[1,1,1] k, int64[3] s = {8, 6, 6}"),
    between("Expand over positions", "g = GlobalAveragePool(a)\nm = Expand(g, s)",
            "int64[4] s = {1, 8, 4, 4}"),
    between("Expand to the shape of another tensor",
            "g = GlobalAveragePool(a)\ns = Shape(a)\nm = Expand(g, s)"),
    between("sum with the network input", "m = Add(a, x)", classes=0,
            inputs="float[N,8,6,6] x", first="[conv1] a = Conv <pads = [1,1,1,1]> (x, w1x)",
            weights="float[8,8,3,3] w1x", reason="channels cannot be removed"),
    between("broadcast against a single channel",
            "[gate] g = Conv(a, wg)\ns = Sigmoid(g)\nm = Mul(a, s)", "float[1,8,1,1] wg",
            also={"gate": 0}),
]  # fmt: skip

JOINING_SPECS = [
    two("Concat", "m = Concat <axis = 1> (a, b)", channels=16),
    two("Concat, negative axis", "m = Concat <axis = -3> (a, b, a)", channels=24),
    two("Concat along H couples the channels", "m = Concat <axis = 2> (a, b)"),
    between("Concat with the network input", "m = Concat <axis = 1> (x, a)", channels=11),
    between("Concat with a single channel", "[one] o = Conv(a, wo)\nm = Concat <axis = 1> (o, a)",
            "float[1,8,1,1] wo", channels=9, also={"one": 0}),
    two("Concat then Split elsewhere",
        "c = Concat <axis = 1> (a, b)\np, q = Split <axis = 1> (c, s)\nr = Relu(p)\n"
        "m = Concat <axis = 1> (q, r)", "int64[2] s = {5, 11}", channels=16),
    between("Split in equal parts, opset 11",
            "p, q = Split <axis = 1> (a)\nm = Concat <axis = 1> (q, p)", opset=11),
    between("Split with sizes, opset 11",
            "p, q = Split <axis = 1, split = [3, 5]> (a)\nm = Concat <axis = 1> (q, p)", opset=11),
    between("Split with sizes, opset 13", "p, q = Split <axis = -3> (a, s)\nm = Relu(q)",
            "int64[2] s = {3, 5}", channels=5, opset=13),
    between("Split in equal parts, opset 13", "p, q = Split <axis = 1> (a)\nm = Add(p, q)",
            channels=4, classes=4, opset=13),
    between("Split with num_outputs, opset 18",
            "p, q, r = Split <axis = 1, num_outputs = 3> (a)\nm = Concat <axis = 1> (r, p)",
            channels=5, opset=18),
    between("Slice, attributes", "m = Slice <axes = [1], starts = [2], ends = [7]> (a)",
            channels=5, opset=9),
    between("Slice, attributes, to the end and without axes",
            "m = Slice <starts = [0, -6], ends = [9223372036854775807, 2147483647]> (a)",
            channels=6, opset=9),
    between("Slice, inputs", "m = Slice(a, st, en, ax)",
            "int64[2] st = {1, 0}, int64[2] en = {-1, 5}, int64[2] ax = {1, 3}", channels=6),
    between("Slice in two halves that swap",
            "p = Slice(a, zero, four, ax)\nq = Slice(a, four, end, ax)\n"
            "m = Concat <axis = 1> (q, p)",
            "int64[1] zero = {0}, int64[1] four = {4}, int64[1] end = {9223372036854775807}, "
            "int64[1] ax = {-3}"),
    between("Slice with a step over channels", "m = Slice(a, st, en, ax, sp)",
            "int64[1] st = {0}, int64[1] en = {8}, int64[1] ax = {1}, int64[1] sp = {2}",
            channels=4, classes=0, reason="not a plain range"),
    between("Slice with a step over positions", "m = Slice(a, st, en, ax, sp)",
            "int64[1] st = {0}, int64[1] en = {6}, int64[1] ax = {2}, int64[1] sp = {2}"),
    between("Gather, a permutation", "m = Gather <axis = 1> (a, i)",
            "int64[8] i = {7, 0, 6, 1, 5, 2, 4, 3}"),
    between("Gather, negative and repeated indices", "m = Gather <axis = -3> (a, i)",
            "int64[5] i = {-1, 0, 0, -8, 3}", channels=5),
    whole("Gather of one channel freezes that one",
          f"{CONV1}\np = Gather <axis = 1> (a, i)\nq = Unsqueeze(p, ax)\nm = Mul(a, q)\n"
          "[conv2] y = Conv(m, w2)",
          f"{W1}, float[4,8,1,1] w2, int64 i = {{2}}, int64[1] ax = {{1}}",
          {}, reason="picks single channels"),
    between("Pad, positions", "m = Pad(a, p)", "int64[8] p = {0,0,1,1,0,0,1,1}"),
    between("Pad, positions, opset 9", "m = Pad <pads = [0,0,1,1,0,0,1,1]> (a)", opset=9),
    between("Pad, reflected positions", 'm = Pad <mode = "reflect"> (a, p)',
            "int64[8] p = {0,0,1,1,0,0,1,1}"),
    between("Pad of channels: a residual of option A",
            "d = MaxPool <kernel_shape = [1, 1], strides = [2, 2]> (a)\np = Pad(d, pads)\n"
            "[wide] w = Conv <strides = [2, 2]> (a, ww)\nm = Add(p, w)",
            "int64[8] pads = {0,2,0,0,0,2,0,0}, float[12,8,1,1] ww",
            channels=12, also={"wide": 12}),
    between("Pad of channels with axes, opset 18", "m = Pad(a, p, , ax)",
            "int64[2] p = {1, 2}, int64[1] ax = {1}", channels=11, opset=18),
    between("Pad of channels by reflection", 'm = Pad <mode = "reflect"> (a, p)',
            "int64[8] p = {0,1,0,0,0,0,0,0}", channels=9, classes=0, reason="other than with"),
]  # fmt: skip

BN = "float[8] scale, float[8] bias, float[8] mean, float[8] var"
CONVOLUTION_SPECS = [
    between("a plain chain", "m = Relu(a)"),
    between("a fixed batch", "m = Relu(a)", inputs="float[2,3,6,6] x"),
    between("a convolution without bias", "m = Relu(a)",
            first="[conv1] a = Conv(x, w1)"),
    between("one filter", "[one] o = Conv(a, wo)\nm = Relu(o)", "float[1,8,1,1] wo", channels=1,
            also={"one": 0}),
    between("two groups", "[g] m = Conv <group = 2> (a, wg, bg)", "float[8,4,1,1] wg, float[8] bg",
            also={"g": 8}),
    between("two groups, unequal in and out", "[g] m = Conv <group = 2> (a, wg)",
            "float[12,4,1,1] wg", channels=12, also={"g": 12}),
    whole("two groups over the network input", "[g] m = Conv <group = 2> (x, wg)\n"
          "r = Relu(m)\n[conv2] y = Conv(r, w2)", "float[6,2,1,1] wg, float[4,6,1,1] w2", {"g": 6},
          inputs="float[N,4,6,6] x"),
    between("depthwise", "[dw] m = Conv <group = 8, pads = [1,1,1,1]> (a, wd, bd)",
            "float[8,1,3,3] wd, float[8] bd", also={"dw": 8}),
    between("depthwise with multiplier 2", "[dw] m = Conv <group = 8> (a, wd, bd)",
            "float[16,1,1,1] wd, float[16] bd", channels=16, also={"dw": 8}),
    between("depthwise, then two groups",
            "[dw] d = Conv <group = 8> (a, wd)\n[g] m = Conv <group = 2> (d, wg)",
            "float[8,1,1,1] wd, float[8,4,1,1] wg", also={"dw": 8, "g": 8}),
    between("ConvTranspose", "[t] m = ConvTranspose <strides = [2, 2]> (a, wt, bt)",
            "float[8,5,2,2] wt, float[5] bt", channels=5, also={"t": 5}),
    between("ConvTranspose, depthwise", "[t] m = ConvTranspose <group = 8> (a, wt, bt)",
            "float[8,1,2,2] wt, float[8] bt", also={"t": 8}),
    between("ConvTranspose, depthwise with multiplier 2",
            "[t] m = ConvTranspose <group = 8> (a, wt, bt)",
            "float[8,2,2,2] wt, float[16] bt", channels=16, also={"t": 8}),
    between("ConvTranspose, two groups", "[t] m = ConvTranspose <group = 2> (a, wt, bt)",
            "float[8,3,2,2] wt, float[6] bt", channels=6, classes=4, also={"t": 3}),
    between("one weight for two convolutions",
            "[s1] p = Conv <pads = [1,1,1,1]> (a, ws)\nr = Relu(p)\n"
            "[s2] m = Conv <pads = [1,1,1,1]> (r, ws)",
            "float[8,8,3,3] ws", also={"s1": 8, "s2": 8}),
    between("one bias for two convolutions is not coupling",
            "[s1] m = Conv <pads = [1,1,1,1]> (a, ws, b1)", "float[8,8,3,3] ws", also={"s1": 8}),
    between("one bias through Identity nodes is not coupling",
            "i = Identity(b1)\nj = Identity(i)\n[s1] p = Conv (a, ws, i)\n[s2] m = Conv (p, wt, j)",
            "float[8,8,3,3] ws, float[8,8,3,3] wt", also={"s1": 8, "s2": 8}),
    between("a weight scaled at run time", "[s] m = Conv (a, v)",
            "float[8,8,1,1] ws, float[8,1,1,1] k", first=f"{CONV1}\nv = Mul(ws, k)",
            also={"s": 8}),
    between("a weight that is a network input", "[dyn] m = Conv(a, v)", channels=8, classes=0,
            inputs="float[N,3,6,6] x, float[8,8,1,1] v", reason="cannot be narrowed",
            also={"dyn": 0}),
    between("a weight in half precision behind a Cast", "[s] m = Conv (a, v)",
            "float16[8,8,1,1] ws", first=f"{CONV1}\nv = Cast <to = 1> (ws)", also={"s": 8}),
    between("a quantized weight", "[s] m = Conv (a, v)",
            "int8[8,8,1,1] ws, float scale = {0.1}, int8 zero = {0}",
            first=f"{CONV1}\nv = DequantizeLinear (ws, scale, zero)", classes=0, also={"s": 0},
            reason="cannot be narrowed"),
    between("BatchNormalization", "m = BatchNormalization(a, scale, bias, mean, var)", BN),
    between("BatchNormalization with shared statistics",
            "p = BatchNormalization(a, scale, b1, mean, var)\n[s] q = Conv(p, ws)\n"
            "m = BatchNormalization(q, scale, b1, b1, var)", f"{BN}, float[8,8,1,1] ws",
            also={"s": 8}),
    between("InstanceNormalization", "m = InstanceNormalization(a, scale, bias)",
            "float[8] scale, float[8] bias"),
]  # fmt: skip

RESHAPE_SPECS = [
    whole("Flatten, Gemm", f"{CONV1}\nf = Flatten(a)\ny = Gemm(f, v, c)",
          f"{W1}, float[288,5] v, float[5] c", {"conv1": 8}),
    whole("Flatten, Gemm with transB", f"{CONV1}\nf = Flatten(a)\ny = Gemm <transB = 1> (f, v)",
          f"{W1}, float[5,288] v", {"conv1": 8}),
    whole("Flatten, Transpose, Gemm with transA",
          f"{CONV1}\nf = Flatten(a)\nt = Transpose(f)\ny = Gemm <transA = 1> (t, v)",
          f"{W1}, float[288,5] v", {"conv1": 8}),
    whole("Flatten, MatMul, Add", f"{CONV1}\nf = Flatten(a)\nm = MatMul(f, v)\ny = Add(m, c)",
          f"{W1}, float[288,5] v, float[5] c", {"conv1": 8}),
    *(
        whole(f"Reshape to rows by {shape}",
              f"{CONV1}\nf = Reshape(a, s)\ny = Gemm(f, v)",
              f"{W1}, float[288,5] v, int64[2] s = {shape}", {"conv1": 8}, inputs=inputs)
        for shape, inputs in (
            ("{0, -1}", "float[N,3,6,6] x"), ("{-1, 288}", "float[N,3,6,6] x"),
            ("{0, 288}", "float[N,3,6,6] x"), ("{2, 288}", "float[2,3,6,6] x"),
            ("{2, -1}", "float[2,3,6,6] x"), ("{1, -1}", "float[1,3,6,6] x"),
        )
    ),
    whole("Reshape after a global pool",
          f"{CONV1}\ng = GlobalAveragePool(a)\nf = Reshape(g, s)\ny = Gemm(f, v)",
          f"{W1}, float[8,5] v, int64[2] s = {{-1, 8}}", {"conv1": 8}),
    whole("a computed Reshape: Shape, Gather, Unsqueeze, Concat",
          f"{CONV1}\nh = Shape(a)\nn = Gather(h, i)\nu = Unsqueeze(n, zero)\n"
          "s = Concat <axis = 0> (u, rest)\nf = Reshape(a, s)\ny = Gemm(f, v)",
          f"{W1}, float[288,5] v, int64 i = {{0}}, int64[1] zero = {{0}}, int64[1] rest = {{-1}}",
          {"conv1": 8}),
    whole("a computed Reshape that spells the row length",
          f"{CONV1}\nh = Shape(a)\nn = Slice(h, zero, one)\n"
          "s = Concat <axis = 0> (n, rest)\nf = Reshape(a, s)\ny = Gemm(f, v)",
          f"{W1}, float[288,5] v, int64[1] zero = {{0}}, int64[1] one = {{1}}, "
          "int64[1] rest = {288}", {"conv1": 8}),
    between("channel shuffle", "p = Reshape(a, s1)\nq = Transpose <perm = [0,2,1,3,4]> (p)\n"
            "m = Reshape(q, s2)", "int64[5] s1 = {0,2,4,6,6}, int64[4] s2 = {0,-1,6,6}", classes=4),
    between("channel shuffle after more groups than channels in each",
            "[g1] g = Conv <group = 4> (a, wg)\np = Reshape(g, s1)\n"
            "q = Transpose <perm = [0,2,1,3,4]> (p)\nm = Reshape(q, s2)",
            "int64[5] s1 = {0,4,2,6,6}, int64[4] s2 = {0,8,6,6}, float[8,2,1,1] wg",
            also={"g1": 2}),
    between("channel shuffle between grouped convolutions",
            "[g1] g = Conv <group = 2> (a, wg)\np = Reshape(g, s1)\n"
            "q = Transpose <perm = [0,2,1,3,4]> (p)\nr = Reshape(q, s2)\n"
            "[dw] d = Conv <group = 16> (r, wd)\n[g2] m = Conv <group = 2> (d, wh)",
            "int64[5] s1 = {0,2,8,6,6}, int64[4] s2 = {0,16,6,6}, float[16,4,1,1] wg, "
            "float[16,1,1,1] wd, float[8,8,1,1] wh",
            also={"g1": 8, "dw": 8, "g2": 8}),
    between("a computed channel shuffle",
            "h = Shape(a)\nn = Gather(h, i0)\nhh = Gather(h, i2)\nww = Gather(h, i3)\n"
            "un = Unsqueeze(n, z)\nuh = Unsqueeze(hh, z)\nuw = Unsqueeze(ww, z)\n"
            "ug = Unsqueeze(two, z)\nuk = Unsqueeze(four, z)\nu8 = Unsqueeze(eight, z)\n"
            "s1 = Concat <axis = 0> (un, ug, uk, uh, uw)\ns2 = Concat <axis = 0> (un, u8, uh, uw)\n"
            "p = Reshape(a, s1)\nq = Transpose <perm = [0,2,1,3,4]> (p)\nm = Reshape(q, s2)",
            "int64 i0 = {0}, int64 i2 = {2}, int64 i3 = {3}, int64[1] z = {0}, int64 two = {2}, "
            "int64 four = {4}, int64 eight = {8}", classes=4),
    between("a channels-last detour", "p = Transpose <perm = [0,2,3,1]> (a)\nq = Mul(p, k)\n"
            "m = Transpose <perm = [0,3,1,2]> (q)", "float[8] k"),
    between("a channels-last dense layer",
            "p = Transpose <perm = [0,2,3,1]> (a)\nq = MatMul(p, v)\n"
            "m = Transpose <perm = [0,3,1,2]> (q)", "float[8,5] v", channels=5),
    between("tokens: flattened positions",
            "p = Reshape(a, s)\nt = Transpose <perm = [0,2,1]> (p)\nq = MatMul(t, v)\n"
            "u = Transpose <perm = [0,2,1]> (q)\nm = Reshape(u, s2)",
            "int64[3] s = {0,8,-1}, float[8,5] v, int64[4] s2 = {0,5,6,6}", channels=5),
    between("rows unfolded into (C, H, W)",
            "f = Flatten(a)\ng = Gemm(f, v)\nr = Reshape(g, s)\n[mid] q = Conv(r, wq)\nm = Relu(q)",
            "float[288,72] v, int64[4] s = {0,8,3,3}, float[8,8,1,1] wq", also={"mid": 8}),
    between("a squeeze-and-excitation gate",
            "g = GlobalAveragePool(a)\nq = Squeeze(g, ax)\nf = Gemm(q, v1)\nr = Relu(f)\n"
            "e = Gemm(r, v2, c2)\ns = Sigmoid(e)\nu = Unsqueeze(s, ax)\nm = Mul(a, u)",
            "int64[2] ax = {2, 3}, float[8,4] v1, float[4,8] v2, float[8] c2"),
    between("a squeeze-and-excitation gate, attributes",
            "g = ReduceMean <axes = [2, 3], keepdims = 1> (a)\nq = Squeeze <axes = [2, 3]> (g)\n"
            "f = Gemm(q, v1)\nu = Unsqueeze <axes = [2, 3]> (f)\nm = Mul(a, u)",
            "float[8,8] v1", opset=11),
    between("a convolutional squeeze-and-excitation gate",
            "g = GlobalAveragePool(a)\n[se1] p = Conv(g, v1)\nr = Relu(p)\n[se2] q = Conv(r, v2)\n"
            "s = HardSigmoid(q)\nm = Mul(s, a)", "float[4,8,1,1] v1, float[8,4,1,1] v2",
            also={"se1": 4, "se2": 8}),
    whole("Squeeze of every axis of length 1",
          f"{CONV1}\ng = GlobalAveragePool(a)\nq = Squeeze(g)\ny = MatMul(q, v)",
          f"{W1}, float[8,5] v", {"conv1": 8}, inputs="float[2,3,6,6] x"),
    whole("attention over positions: two sides of a product",
          f"{CONV1}\n[conv1b] b = Conv(x, w1b)\np = Reshape(a, s)\nq = Reshape(b, s)\n"
          "t = Transpose <perm = [0,2,1]> (p)\ny = MatMul(t, q)",
          f"{W1}, float[8,3,1,1] w1b, int64[3] s = {{0, 8, 36}}", {"conv1": 8, "conv1b": 8}),
    between("a Reshape to the shape of itself", "s = Shape(a)\nr = Relu(a)\nm = Reshape(r, s)"),
    two("a Reshape to the shape of another tensor couples them",
        "s = Shape(b)\nr = Reshape(a, s)\nm = Concat <axis = 1> (r, b)", channels=16),
    between("a channel count that is computed with",
            "h = Shape(a)\nn = Gather(h, i)\nf = Cast <to = 1> (n)\nr = Sqrt(f)\nm = Div(a, r)",
            "int64 i = {1}", classes=0, reason="count"),
    between("a size that is computed with",
            "h = Size(a)\nf = Cast <to = 1> (h)\nr = Sqrt(f)\nm = Div(a, r)",
            inputs="float[N,3,6,6] x", classes=0, reason="count"),
    between("a batch size that is computed with",
            "h = Shape(a)\nn = Gather(h, i)\nf = Cast <to = 1> (n)\nm = Div(a, f)",
            "int64 i = {0}"),
    between("Squeeze after all but one channel may have gone",
            "g = GlobalAveragePool(a)\nq = Squeeze(g)\nu = Unsqueeze(q, ax)\nm = Mul(a, u)",
            "int64[2] ax = {2, 3}", inputs="float[2,3,6,6] x"),
    between("Expand of a gate to the shape of what it gates",
            "g = GlobalAveragePool(a)\nh = Sigmoid(g)\ns = Shape(a)\ne = Expand(h, s)\n"
            "m = Mul(a, e)"),
    between("Expand of a constant to a computed shape",
            "s = Shape(a)\ne = Expand(k, s)\nm = Add(a, e)", "float[1,1,1] k"),
    between("one computed shape for two Reshapes",
            "h = Shape(a)\nn = Slice(h, zero, one)\ns = Concat <axis = 0> (n, rest)\n"
            "p = Reshape(a, s)\nq = Relu(a)\nr = Reshape(q, s)\nt = Add(p, r)\n"
            "m = Reshape(t, s4)",
            "int64[1] zero = {0}, int64[1] one = {1}, int64[2] rest = {8, -1}, "
            "int64[4] s4 = {0, 8, 6, 6}", classes=0, reason="computed at run time"),
    between("one stored shape for two Reshapes of different channels",
            "p = Reshape(a, s)\n[mid] q = Conv(r0, wq)\nr = Reshape(q, s)\n"
            "t = Concat <axis = 1> (p, r)\nm = Reshape(t, s4)",
            "int64[3] s = {0, 8, -1}, int64[4] s4 = {0, 16, 6, 6}, float[8,8,1,1] wq",
            first=f"{CONV1}\nr0 = Relu(a)", channels=16, also={"mid": 8}),
    between("a Constant node in a shape",
            "s = Constant <value = int64[4] {0, 4, 2, 36}> ()\np = Reshape(a, s)\n"
            "t = Constant <value = int64[4] {0, 8, 6, 6}> ()\nm = Reshape(p, t)", classes=4),
]  # fmt: skip

SPATIAL_SPECS = [
    *(
        between(name, f"m = {name} {attributes} (a)")
        for name, attributes in (
            ("MaxPool", "<kernel_shape = [2, 2]>"), ("AveragePool", "<kernel_shape = [2, 2]>"),
            ("LpPool", "<kernel_shape = [2, 2]>"), ("GlobalAveragePool", ""),
            ("GlobalMaxPool", ""), ("GlobalLpPool", ""),
        )
    ),
    between("MaxPool with indices",
            "p, i = MaxPool <kernel_shape = [2, 2]> (a)\nf = Cast <to = 1> (i)\nm = Mul(p, f)",
            classes=0, reason="indices"),
    *(
        between(f"{name} over positions", f"m = {name} <axes = [2, 3]> (a)", opset=17)
        for name in ("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
                     "ReduceMin", "ReduceProd", "ReduceSumSquare")
    ),
    between("ReduceLogSum over positions", "e = Exp(a)\nm = ReduceLogSum <axes = [2, 3]> (e)"),
    between("ReduceSum over positions, axes an input", "m = ReduceSum(a, ax)",
            "int64[2] ax = {2, 3}"),
    between("ReduceMean over positions, opset 18", "m = ReduceMean(a, ax)",
            "int64[2] ax = {-1, -2}", opset=18),
    between("ReduceMean over channels", "m = ReduceMean <axes = [1]> (a)", channels=1, classes=0,
            reason="reduces over it"),
    between("spatial attention: a mean over channels",
            "r = ReduceMean <axes = [1]> (a)\ns = Sigmoid(r)\nm = Mul(a, s)", classes=0,
            reason="reduces over it"),
    between("ArgMax over channels", "i = ArgMax <axis = 1> (a)\nm = Cast <to = 1> (i)",
            channels=1, classes=0, reason="ArgMax"),
    between("ArgMin over positions", "i = ArgMin <axis = 2> (a)\nm = Cast <to = 1> (i)"),
    *(
        between(f"{name} over channels", f"m = {name} <axis = 1> (a)", classes=0,
                reason=f"{name} 'm' normalises over it")
        for name in ("Softmax", "LogSoftmax", "Hardmax")
    ),
    between("Softmax over positions", "m = Softmax <axis = -1> (a)"),
    between("Softmax from the channels on, opset 11", "m = Softmax <axis = 1> (a)", classes=0,
            reason="Softmax", opset=11),
    between("Softmax over the last axis, opset 11", "m = Softmax <axis = 3> (a)", opset=11),
    between("LRN", "m = LRN <size = 3> (a)", classes=0, reason="mixes neighbouring channels"),
    between("LayerNormalization over channels",
            "p = Transpose <perm = [0,2,3,1]> (a)\nq = LayerNormalization(p, k, c)\n"
            "m = Transpose <perm = [0,3,1,2]> (q)", "float[8] k, float[8] c", classes=0,
            reason="LayerNormalization"),
    between("LayerNormalization over positions", "m = LayerNormalization <axis = 2> (a, k)",
            "float[6,6] k"),
    *(
        between(f"DepthToSpace {mode}",
                f'd = DepthToSpace <blocksize = 2, mode = "{mode}"> (a)\nm = Relu(d)',
                channels=2, classes=2)
        for mode in ("DCR", "CRD")
    ),
    whole("DepthToSpace to a single channel",
          f"{CONV1}\np = Slice(a, z, t, o)\nm = DepthToSpace <blocksize = 2> (p)\n"
          "[conv2] y = Conv(m, w2)",
          f"{W1}, float[4,1,1,1] w2, int64[1] z = {{0}}, int64[1] t = {{4}}, int64[1] o = {{1}}",
          {}, reason="only channel of 'm'"),
    whole("Slice of a single channel",
          f"{CONV1}\np = Slice(a, z, o, o)\nm = Mul(a, p)\n[conv2] y = Conv(m, w2)",
          f"{W1}, float[4,8,1,1] w2, int64[1] z = {{0}}, int64[1] o = {{1}}",
          {}, reason="only channel of 'p'"),
    between("SpaceToDepth", "m = SpaceToDepth <blocksize = 2> (a)", channels=32),
    between("Resize by scales", 'm = Resize <mode = "nearest"> (a, , sc)',
            "float[4] sc = {1, 1, 2, 2}"),
    between("Resize by scales, opset 10", 'm = Resize <mode = "nearest"> (a, sc)',
            "float[4] sc = {1, 1, 2, 2}", opset=10),
    between("Resize by sizes", 'm = Resize <mode = "linear"> (a, , , si)',
            "int64[4] si = {2, 8, 9, 9}", inputs="float[2,3,6,6] x"),
    between("Resize by sizes of two axes, opset 18",
            'm = Resize <mode = "nearest", axes = [2, 3]> (a, , , si)', "int64[2] si = {9, 9}",
            opset=18),
    between("Resize to computed sizes",
            "h = Shape(a)\nl = Slice(h, z, t)\nsi = Concat <axis = 0> (l, hw)\n"
            'm = Resize <mode = "nearest"> (a, , , si)',
            "int64[1] z = {0}, int64[1] t = {2}, int64[2] hw = {9, 9}"),
    between("Upsample, opset 9", 'm = Upsample <mode = "nearest"> (a, sc)',
            "float[4] sc = {1, 1, 2, 2}", opset=9),
    between("Upsample, opset 7", "m = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (a)", opset=7),
]  # fmt: skip

FROZEN_SPECS = [
    whole("a graph output", f"{CONV1}\nm = Relu(a)\n[conv2] y = Conv(m, w2)",
          f"{W1}, float[4,8,1,1] w2", {"conv1": 0, "conv2": 0}, outputs="y, m",
          reason="reach the graph output"),
    between("an operator without a rule", "m = Trilu(a)", classes=0,
            reason="operator Trilu ('m') has no channel rule"),
    between("an operator without a rule over tokens", "m = CumSum(a, one)", "int64 one = {1}",
            classes=0, reason="CumSum"),
    between("a weight that an operator without a rule reads too",
            "r = Det(w1)\nk = ReduceMean(r)\nm = Mul(a, k)", classes=0, reason="Det"),
    between("a branch that reads the channels",
            "m = If (flag) <then_branch = t () => (float[N,8,6,6] o) { o = Relu(a) }, "
            "else_branch = e () => (float[N,8,6,6] o2) { o2 = Abs(a) }>",
            "bool flag = {1}", classes=0, reason="operator If"),
    between("a branch that reads a weight before the convolution does",
            "r = Relu(a)\nm = Add(r, k)", "bool flag = {1}", classes=0, reason="operator If",
            first="k = If (flag) <then_branch = t () => (float o) { o = ReduceMax "
            "<keepdims = 0> (b1) }, else_branch = e () => (float o2) { o2 = ReduceMin "
            "<keepdims = 0> (b1) }>\n" + CONV1),
    between("EyeLike reads the shape", "r = Reshape(a, s)\nd = EyeLike(r)\nk = ReduceSum(d)\n"
            "m = Mul(a, k)", "int64[2] s = {8, 36}", classes=0, reason="count",
            inputs="float[1,3,6,6] x"),
    between("Range over a stored count", "r = Range(z, n, o)\nf = Cast <to = 1> (r)\n"
            "u = Reshape(f, s)\nm = Mul(a, u)",
            "int64 z = {0}, int64 n = {8}, int64 o = {1}, int64[3] s = {8, 1, 1}", classes=0,
            reason="cannot be removed"),
]  # fmt: skip

COUPLING_SPECS = [
    *UNARY_SPECS,
    *BROADCAST_SPECS,
    *JOINING_SPECS,
    *CONVOLUTION_SPECS,
    *RESHAPE_SPECS,
    *SPATIAL_SPECS,
    *FROZEN_SPECS,
]

by_spec = pytest.mark.parametrize("spec", COUPLING_SPECS, ids=lambda spec: spec.id)


@by_spec
def test_what_may_go_is_what_a_person_expects(spec: CouplingSpec) -> None:
    analysis = analyse_bytes(spec.model)
    found = {
        name: analysis.class_count(name) if analysis.is_prunable(name) else 0
        for name in spec.prunable
    }
    reasons = {name: analysis.reasons(name) for name in spec.prunable}
    assert found == spec.prunable, reasons
    if spec.reason:
        names = [c.name for c in analysis.classes.channels.convolutions]
        all_reasons = set().union(*(analysis.reasons(name) for name in names))
        assert any(spec.reason in reason for reason in all_reasons), all_reasons


@by_spec
def test_pruned_equals_masked(spec: CouplingSpec) -> None:
    for seed in SEEDS:
        assert_masked_equals_pruned(
            spec.model, np.random.default_rng(seed), share=(0.3, 0.6, 1.0)[seed]
        )


def test_every_rule_has_a_row() -> None:
    covered = {
        node.op_type
        for spec in COUPLING_SPECS
        for node in onnx.ModelProto.FromString(spec.model).graph.node
    }
    assert set(COUPLINGS.op_types) - covered == set()
