"""Rows for operators that work element by element, and those that join and part channels."""

from __future__ import annotations

from tests.graph_ops.rules.coupling_rows import CONV1, W1, between, two, unary, whole

AS_STRIDED = """
    p = GlobalAveragePool(a)
    l = Reshape(p, all)
    h = Shape(x)
    n = Gather(h, zero)
    i = Range(zero, n, one)
    c = Mul(i, eight)
    u = Unsqueeze(c, axes)
    o = Add(u, offsets)
"""
COUNTED = (
    "int64[1] all = {-1}, int64 zero = {0}, int64 one = {1}, int64 eight = {8}, "
    "int64[3] axes = {1, 2, 3}"
)

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
    unary("Swish", opset=24),
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
    between("Gather of a list in its order: as_strided", AS_STRIDED + "m = Gather(l, o)",
            f"{COUNTED}, int64[1,8,1,1] offsets = {{0,1,2,3,4,5,6,7}}"),
    between("Gather of a list in its order, twice", AS_STRIDED + "j = Gather(l, o)\n"
            "k = Gather(l, o)\nm = Concat <axis = 1> (j, k)",
            f"{COUNTED}, int64[1,8,1,1] offsets = {{0,1,2,3,4,5,6,7}}", channels=16),
    between("Gather of a list in another order", AS_STRIDED + "m = Gather(l, o)",
            f"{COUNTED}, int64[1,8,1,1] offsets = {{1,0,2,3,4,5,6,7}}", classes=0,
            reason="regroups it in a way that cannot be followed"),
    between("Gather of a list that something else reads",
            AS_STRIDED + "g = Gather(l, o)\nt = ReduceMax(l)\nm = Add(g, t)",
            f"{COUNTED}, int64[1,8,1,1] offsets = {{0,1,2,3,4,5,6,7}}", classes=0,
            reason="regroups it in a way that cannot be followed"),
    between("Gather of a list to another shape",
            AS_STRIDED + "g = Gather(l, o)\nm = Reshape(g, back)",
            f"{COUNTED}, int64[1,2,4,1] offsets = {{0,1,2,3,4,5,6,7}}, "
            "int64[4] back = {-1, 8, 1, 1}", classes=0,
            reason="regroups it in a way that cannot be followed"),
    between("SplitToSequence in halves",
            "q = SplitToSequence <axis = 1> (a, s)\np = SequenceAt(q, zero)\n"
            "r = SequenceAt(q, one)\nm = Concat <axis = 1> (r, p)",
            "int64 s = {4}, int64 zero = {0}, int64 one = {1}"),
    between("SplitToSequence in stored sizes",
            "q = SplitToSequence <axis = 1> (a, s)\nm = SequenceAt(q, one)",
            "int64[2] s = {3, 5}, int64 one = {1}", channels=5),
    between("ScatterND over the batch: an assignment to a slice",
            "h = Shape <start = 0, end = 1> (a)\nk = Squeeze(h, ax)\ni = Range(zero, k, one)\n"
            "j = Unsqueeze(i, last)\nr = Relu(a)\nm = ScatterND(a, j, r)",
            "int64[1] ax = {0}, int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}"),
    between("GatherND of positions",
            "t = Transpose <perm = [2,3,0,1]> (a)\ng = GatherND(t, i)\n"
            "p = Transpose <perm = [1,2,0]> (g)\nm = Reshape(p, s)",
            "int64[4,2] i = {0, 1, 2, 3, 5, 5, 0, 0}, int64[4] s = {0, 8, 2, 2}"),
    between("Tile of channels", "m = Tile(a, r)", "int64[4] r = {1, 2, 1, 1}", channels=16),
    between("Tile of one channel to many", "g = ReduceMean <axes = [1]> (b)\nt = Tile(g, r)\n"
            "m = Add(a, t)", "int64[4] r = {1, 8, 1, 1}, float[8,3,3,3] w1b",
            first=f"{CONV1}\nb = Conv <pads = [1,1,1,1]> (x, w1b)"),
    between("TopK over positions", "m, i = TopK <axis = 2> (a, k)", "int64[1] k = {3}"),
    between("TopK over channels", "m, i = TopK <axis = 1> (a, k)", "int64[1] k = {5}",
            channels=5, classes=0, reason="runs along it"),
    between("CumSum over positions", "m = CumSum(a, k)", "int64 k = {-1}"),
    between("CumSum over channels", "m = CumSum(a, k)", "int64 k = {1}", classes=0,
            reason="runs along it"),
    between("Einsum as a product over channels",
            'e = Einsum <equation = "nchw,cd->ndhw"> (a, v)\nm = Relu(e)', "float[8,5] v",
            channels=5),
    two("Einsum of two tensors couples a letter",
        'e = Einsum <equation = "nchw,nchw->nc"> (a, b)\nm = Unsqueeze(e, ax)',
        "int64[2] ax = {2, 3}"),
    between("CastLike", "m = CastLike(a, b1)"),
]  # fmt: skip
