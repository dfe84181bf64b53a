"""Rows for convolutions, reshapes, spatial operators, and what freezes."""

from __future__ import annotations

from tests.graph_ops.rules.coupling_rows import (
    BN,
    CONV1,
    W1,
    between,
    two,
    whole,
)

CONVOLUTION_SPECS = [
    between("a plain chain", "m = Relu(a)"),
    between("a fixed batch", "m = Relu(a)", inputs="float[2,3,6,6] x"),
    between("a convolution without bias", "m = Relu(a)",
            first="[conv1] a = Conv(x, w1)"),
    between("one filter", "[one] o = Conv(a, wo)\nm = Relu(o)", "float[1,8,1,1] wo", channels=1,
            also={"one": 0}),
    between("a convolution along the channels",
            "t = Transpose <perm = [0,2,1,3]> (a)\n[along] p = Conv <pads = [1,1,1,1]> (t, wa)\n"
            "m = Transpose <perm = [0,2,1,3]> (p)", "float[5,6,3,3] wa", classes=0,
            reason="runs along it"),
    between("a transposed convolution along the channels",
            "t = Transpose <perm = [0,2,1,3]> (a)\n"
            "[along] p = ConvTranspose <pads = [1,1,1,1]> (t, wa)\n"
            "m = Transpose <perm = [0,2,1,3]> (p)", "float[6,5,3,3] wa", classes=0,
            reason="runs along it"),
    *(
        between(f"{name} of one tap along the channels",
                f"t = Transpose <perm = [0,2,1,3]> (a)\n[along] p = {name} (t, wa)\n"
                "m = Transpose <perm = [0,2,1,3]> (p)", "float[6,6,1,1] wa", also={"along": 0})
        for name in ("Conv", "ConvTranspose")
    ),
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
    between("a standardised weight of a grouped convolution",
            "[s] m = Conv <group = 2> (a, v)", "float[8,4,3,3] ws, float eps = {0.001}",
            first=f"{CONV1}\nu = ReduceMean <axes = [1,2,3]> (ws)\nc = Sub(ws, u)\n"
            "q = Mul(c, c)\nt = ReduceMean <axes = [1,2,3]> (q)\ne = Add(t, eps)\n"
            "d = Sqrt(e)\nv = Div(c, d)", also={"s": 8}),
    between("a quantized weight", "[s] m = Conv (a, v)",
            "int8[8,8,1,1] ws, float scale = {0.1}, int8 zero = {0}",
            first=f"{CONV1}\nv = DequantizeLinear (ws, scale, zero)", also={"s": 8}),
    between("scales and zero points per channel", "[s] m = Conv (a, v)",
            "int8[8,8,1,1] ws, float[8] scale, int8[8] zero",
            first=f"{CONV1}\nv = DequantizeLinear <axis = 0> (ws, scale, zero)", also={"s": 8}),
    between("activations quantised per channel",
            "q = QuantizeLinear <axis = 1> (a, scale, zero)\n"
            "m = DequantizeLinear <axis = 1> (q, scale, zero)",
            "float[8] scale = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8}, int8[8] zero"),
    between("BatchNormalization", "m = BatchNormalization(a, scale, bias, mean, var)", BN),
    between("BatchNormalization with shared statistics",
            "p = BatchNormalization(a, scale, b1, mean, var)\n[s] q = Conv(p, ws)\n"
            "m = BatchNormalization(q, scale, b1, b1, var)", f"{BN}, float[8,8,1,1] ws",
            also={"s": 8}),
    between("GroupNormalization: whole groups go",
            "p = GroupNormalization <num_groups = 4> (a, s, b)\nq = Cast <to = 1> (p)\n"
            "m = Reshape(q, k)",
            "float[8] s, float[8] b, int64[4] k = {-1, 8, 6, 6}", classes=4, opset=21),
    between("GroupNormalization of one group",
            "p = GroupNormalization <num_groups = 1> (a, s, b)\nq = Cast <to = 1> (p)\n"
            "m = Reshape(q, k)",
            "float[8] s, float[8] b, int64[4] k = {-1, 8, 6, 6}", classes=0, opset=21,
            reason="normalises over it"),
    *(
        between(f"GroupNormalization written as InstanceNormalization, {groups} groups",
                "h = Shape(a)\np = Reshape(a, s)\nr = InstanceNormalization(p, one, zero)\n"
                "q = Reshape(r, h)\nt = Mul(q, k)\nm = Add(t, c)",
                f"int64[3] s = {{0, {groups}, -1}}, float[{groups}] one, float[{groups}] zero, "
                "float[8,1,1] k, float[8,1,1] c", classes=groups)
        for groups in (2, 4)
    ),
    between("the deviation of groups, repeated for their channels",
            "h = Shape(a)\np = Reshape(a, s)\nf = Cast <to = 1> (p)\n"
            "u = ReduceMean <axes = [2,3,4]> (f)\nd = Sub(f, u)\nv = Mul(d, d)\n"
            "w = ReduceMean <axes = [2,3,4]> (v)\nz = Shape(f)\ni = Identity(z)\n"
            "e = Expand(w, i)\nq = Reshape(e, h)\nt = Add(q, eps)\nr = Sqrt(t)\nm = Div(a, r)",
            "int64[5] s = {0, 2, 4, 6, 6}, float eps = {0.01}", classes=2),
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
            "int64 i = {1}"),
    between("half of a count: a Slice computed from it",
            "h = Shape(a)\nn = Gather(h, i)\nk = Div(n, two)\ne = Unsqueeze(k, zero)\n"
            "p = Slice(a, zero, e, one)\nq = Slice(a, e, end, one)\n"
            "m = Concat <axis = 1> (q, p)",
            "int64 i = {1}, int64 two = {2}, int64[1] zero = {0}, int64[1] one = {1}, "
            "int64[1] end = {9223372036854775807}"),
    between("a channel shuffle of which every number is computed",
            "h = Shape(a)\nn = Gather(h, i0)\nc = Gather(h, i1)\nk = Div(c, two)\n"
            "u = Unsqueeze(n, zero)\nv = Unsqueeze(k, zero)\nl = Unsqueeze(c, zero)\n"
            "s1 = Concat <axis = 0> (u, pair, v, side, side)\n"
            "s2 = Concat <axis = 0> (u, l, side, side)\np = Reshape(a, s1)\n"
            "q = Transpose <perm = [0,2,1,3,4]> (p)\nm = Reshape(q, s2)",
            "int64 i0 = {0}, int64 i1 = {1}, int64 two = {2}, int64[1] zero = {0}, "
            "int64[1] pair = {2}, int64[1] side = {6}", classes=4),
    between("a bias made of its filters' count",
            "h = Shape <start = 0, end = 1> (wm)\nz = CastLike(k, a)\nv = Expand(z, h)\n"
            "[mid] m = Conv(a, wm, v)", "float[8,8,1,1] wm, float k = {0.5}", also={"mid": 8}),
    between("heads that are folded into the batch, and out of it",
            "p = Reshape(a, s1)\nr = Relu(p)\nq = Reshape(r, s2)\nm = Relu(q)",
            "int64[3] s1 = {-1, 4, 36}, int64[4] s2 = {-1, 8, 6, 6}", classes=4),
    between("attention of two heads that are folded into the batch",
            "[qkv] z = Conv(a, wq)\nq0, k0, v0 = Split <axis = 1> (z, part)\nh = Shape(a)\n"
            "n = Gather(h, i)\nb = Mul(n, two)\nu = Unsqueeze(b, zero)\n"
            "s = Concat <axis = 0> (u, dim, rest)\nq1 = Reshape(q0, s)\n"
            "q = Transpose <perm = [0,2,1]> (q1)\nk = Reshape(k0, s)\n"
            "sv = Concat <axis = 0> (u, wide, rest)\nv1 = Reshape(v0, sv)\n"
            "v = Transpose <perm = [0,2,1]> (v1)\nl = MatMul(q, k)\nt = Softmax <axis = -1> (l)\n"
            "o = MatMul(t, v)\nf = Transpose <perm = [0,2,1]> (o)\nw = Unsqueeze(n, zero)\n"
            "s2 = Concat <axis = 0> (w, all, side, side)\nm = Reshape(f, s2)",
            "float[24,8,1,1] wq, int64[3] part = {8, 8, 8}, int64 i = {0}, int64 two = {2}, "
            "int64[1] zero = {0}, int64[1] dim = {4}, int64[1] wide = {4}, int64[1] rest = {-1}, "
            "int64[1] all = {8}, int64[1] side = {6}", also={"qkv": 8}),
    between("rows that do not divide into each other across the batch",
            "p = Reshape(a, s1)\nr = Relu(p)\nm = Reshape(r, s2)",
            "int64[2] s1 = {-1, 192}, int64[4] s2 = {-1, 8, 6, 6}", classes=0,
            reason="regroups it", inputs="float[N,3,6,6] x"),
    between("a batch that is folded with another axis",
            "h = Shape(a)\nn = Gather(h, i)\nk = Mul(n, six)\nu = Unsqueeze(k, zero)\n"
            "t = Transpose <perm = [0,2,3,1]> (a)\ns1 = Concat <axis = 0> (u, rest)\n"
            "p = Reshape(t, s1)\nr = Relu(p)\nv = Unsqueeze(n, zero)\n"
            "s2 = Concat <axis = 0> (v, back)\nq = Reshape(r, s2)\n"
            "m = Transpose <perm = [0,3,1,2]> (q)",
            "int64 i = {0}, int64 six = {6}, int64[1] zero = {0}, int64[2] rest = {6, 8}, "
            "int64[3] back = {6, 6, 8}"),
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
    between("Expand to sizes of which -1 stays as it is",
            "g = GlobalAveragePool(a)\nh = Shape(a)\nn = Gather(h, i0)\nc = Gather(h, i1)\n"
            "u = Unsqueeze(n, z)\nv = Unsqueeze(c, z)\nl = Concat <axis = 0> (u, v, side, minus)\n"
            "s = Reshape(l, minus)\nk = Shape(s)\no = ConstantOfShape <value = int64[1] {1}> (k)\n"
            "t = Mul(o, minus)\np = Equal(s, t)\nq = Where(p, o, s)\ne = Expand(g, q)\n"
            "m = Mul(a, e)",
            "int64 i0 = {0}, int64 i1 = {1}, int64[1] z = {0}, int64[1] side = {6}, "
            "int64[1] minus = {-1}"),
    between("sizes that are chosen by a count",
            "g = GlobalAveragePool(a)\ns = Shape(a)\np = Equal(s, eight)\nq = Where(p, s, s)\n"
            "e = Expand(g, q)\nm = Mul(a, e)", "int64[4] eight = {8, 8, 8, 8}", classes=0,
            reason="the shape of Expand"),
    between("Expand of a constant to a computed shape",
            "s = Shape(a)\ne = Expand(k, s)\nm = Add(a, e)", "float[1,1,1] k"),
    between("one computed shape for two Reshapes",
            "h = Shape(a)\nn = Slice(h, zero, one)\ns = Concat <axis = 0> (n, rest)\n"
            "p = Reshape(a, s)\nq = Relu(a)\nr = Reshape(q, s)\nt = Add(p, r)\n"
            "m = Reshape(t, s4)",
            "int64[1] zero = {0}, int64[1] one = {1}, int64[2] rest = {8, -1}, "
            "int64[4] s4 = {0, 8, 6, 6}"),
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
    *(
        between(f"{name} over channels",
                f"p = Exp(a)\nr = {name} <axes = [1]> (p)\nm = Div(a, r)")
        for name in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare")
    ),
    between("ReduceSum over channels and positions",
            "p = Softplus(a)\nr = ReduceSum(p, ax)\nm = Div(a, r)", "int64[3] ax = {1, 2, 3}"),
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
            "r = Det(w1)\nk = ReduceProd(r)\nm = Mul(a, k)", classes=0, reason="Det"),
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
