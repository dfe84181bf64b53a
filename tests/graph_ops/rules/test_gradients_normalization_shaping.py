"""Gradients of normalisations, reductions and reshapes.

`opset` below 18 sends a row through the version converter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.graph_ops.rules.gradient_harness import GradientSpec, check_gradient, check_refusal

IMAGE = (2, 3, 4, 5)
POSITIVE = (0.5, 2.0)
SMOOTH_IN_FLOAT: Any = {"reference": "ort", "step": 0.01, "tolerance": 1e-3}
"""For LRN, which ONNX's reference implementation evaluates wrongly."""


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.asarray(numbers, np.int64)


NORMALIZATION_SPECS = [
    *(
        GradientSpec(
            f"BatchNormalization: {kind}, opset {opset}",
            "y = BatchNormalization <epsilon=0.01> (x, s, b, m, v)",
            {"x": shape},
            {"s": (3,), "b": (3,), "m": (3,), "v": (3,)},
            opset=opset,
            weight_range=POSITIVE,
        )
        for kind, shape, opset in (
            ("image", IMAGE, 18),
            ("image", IMAGE, 7),
            ("volume", (2, 3, 2, 2, 2), 9),
            ("row", (2, 3, 6), 15),
            ("vector", (2, 3), 18),
        )
    ),
    GradientSpec("BatchNormalization: computed statistics",
                 "w = Mul(v, s) y = BatchNormalization(x, s, b, m, w)", {"x": IMAGE},
                 {"s": (3,), "b": (3,), "m": (3,), "v": (3,)}, weight_range=POSITIVE),
    GradientSpec("BatchNormalization: scale and bias from activations",
                 "t = Squeeze(p, zero) c = Squeeze(q, zero) y = BatchNormalization(x, t, c, m, v)",
                 {"x": (1, *IMAGE[1:]), "p": (1, 3), "q": (1, 3)},
                 {"m": (3,), "v": (3,), "zero": np.asarray([0], np.int64)}, ranges={"p": POSITIVE},
                 weight_range=POSITIVE),
    *(
        GradientSpec(
            f"LRN: size {size}",
            f"y = LRN <size={size}, alpha=0.5, beta=0.75, bias=1.5> (x)",
            {"x": (2, 7, 3, 2)},
            input_range=(-2, 2),
            **SMOOTH_IN_FLOAT,
        )
        for size in (1, 3, 5, 15)
    ),
    *(
        GradientSpec(f"{op}: axis {axis}, opset {opset}", f"y = {op} <axis={axis}> (x)",
                     {"x": IMAGE}, opset=opset, input_range=(-2, 2))
        for op in ("Softmax", "LogSoftmax")
        for axis, opset in ((1, 18), (-1, 13), (2, 21), (1, 11), (2, 9), (3, 7))
    ),
    GradientSpec("Softmax: default axis", "y = Softmax(x)", {"x": (2, 6)}),
    GradientSpec("LogSoftmax: default axis, opset 7", "y = LogSoftmax(x)", {"x": (2, 3, 2)},
                 opset=7),
    GradientSpec("InstanceNormalization", "y = InstanceNormalization <epsilon=0.01> (x, s, b)",
                 {"x": IMAGE}, {"s": (3,), "b": (3,)}),
    GradientSpec("InstanceNormalization: row", "y = InstanceNormalization(x, s, b)",
                 {"x": (2, 3, 6)}, {"s": (3,), "b": (3,)}),
    GradientSpec("InstanceNormalization: as group normalization",
                 "r = Reshape(x, to) n = InstanceNormalization(r, s, b) y = Reshape(n, back)",
                 {"x": (2, 4, 3, 3)},
                 {"to": ints(0, 2, -1), "back": ints(-1, 4, 3, 3), "s": (2,), "b": (2,)}),
    GradientSpec("LayerNormalization: last axis", "y = LayerNormalization(x, s, b)",
                 {"x": (2, 3, 6)}, {"s": (6,), "b": (6,)}),
    GradientSpec("LayerNormalization: no bias", "y = LayerNormalization <axis=2> (x, s)",
                 {"x": IMAGE}, {"s": (4, 5)}),
    GradientSpec("LayerNormalization: all but the batch",
                 "y = LayerNormalization <axis=1, epsilon=0.1> (x, s, b)",
                 {"x": IMAGE}, {"s": IMAGE[1:], "b": IMAGE[1:]}),
]  # fmt: skip

GROUP_SPECS = [
    GradientSpec("GroupNormalization", "y = GroupNormalization <num_groups=2> (x, s, b)",
                 {"x": (2, 6, 3, 3)}, {"s": (6,), "b": (6,)}, opset=21, step=1e-2, tolerance=1e-3),
]  # fmt: skip

CUMULATIVE_SPECS = [
    GradientSpec(f"CumSum: reverse {reverse}, exclusive {exclusive}",
                 f"y = CumSum <reverse={reverse}, exclusive={exclusive}> (x, a)", {"x": IMAGE},
                 {"a": np.asarray(2, np.int64)})
    for reverse in (0, 1)
    for exclusive in (0, 1)
]  # fmt: skip

REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp",
    "ReduceMax", "ReduceMin",
)  # fmt: skip

REDUCTION_SPECS = [
    *(
        GradientSpec(f"{op}: {name}", f"y = {op} <keepdims={keep}> (x, a)", {"x": IMAGE},
                     {"a": ints(*axes)}, input_range=(0.2, 2))
        for op in REDUCTIONS
        for name, keep, axes in (
            ("positions, kept", 1, (2, 3)),
            ("positions", 0, (2, 3)),
            ("channels", 0, (1,)),
            ("negative axis", 0, (-1,)),
            ("all but the batch", 0, (3, 1, 2)),
        )
    ),
    *(
        GradientSpec(f"{op}: opset {opset}", f"y = {op} <axes=[2,-1], keepdims=0> (x)",
                     {"x": IMAGE}, opset=opset, input_range=(0.2, 2))
        for op in REDUCTIONS
        for opset in (11, 12)
    ),
    GradientSpec("ReduceMean: opset 7", "y = ReduceMean <axes=[2,3]> (x)", {"x": IMAGE}, opset=7),
    GradientSpec("ReduceSum: opset 13", "y = ReduceSum(x, a)", {"x": IMAGE}, {"a": ints(1)},
                 opset=13),
    GradientSpec("ReduceMax: tie", "c = Concat <axis=1> (x, x) y = ReduceMax(c, a)",
                 {"x": IMAGE}, {"a": ints(1)}),
    GradientSpec("ReduceL2: norm of zeros",
                 "r = Relu(x) n = ReduceL2(r, a) y = Add(n, x)",
                 {"x": IMAGE}, {"a": ints(1)}, input_range=(-2, -1)),
    GradientSpec("ReduceSum: no axes do nothing", "y = ReduceSum <noop_with_empty_axes=1> (x)",
                 {"x": IMAGE}),
]  # fmt: skip

SHAPING_SPECS = [
    GradientSpec("Reshape: flat", "y = Reshape(x, s)", {"x": IMAGE}, {"s": ints(0, -1)}),
    GradientSpec("Reshape: groups", "y = Reshape(x, s)", {"x": (2, 6, 2, 2)},
                 {"s": ints(-1, 2, 3, 2, 2)}),
    GradientSpec("Reshape: allowzero", "y = Reshape <allowzero=1> (x, s)", {"x": IMAGE},
                 {"s": ints(-1, 60)}),
    GradientSpec("Reshape: shape at run time",
                 "k = Shape <start=0, end=1> (x) s = Concat <axis=0> (k, r) y = Reshape(x, s)",
                 {"x": IMAGE}, {"r": ints(60)}),
    GradientSpec("Reshape: opset 21", "y = Reshape(x, s)", {"x": IMAGE}, {"s": ints(-1, 12, 5)},
                 opset=21),
    GradientSpec("Reshape: opset 7", "y = Reshape(x, s)", {"x": IMAGE}, {"s": ints(-1, 15, 4)},
                 opset=7),
    GradientSpec("Flatten: default", "y = Flatten(x)", {"x": IMAGE}),
    GradientSpec("Flatten: opset 7", "y = Flatten <axis=1> (x)", {"x": IMAGE}, opset=7),
    GradientSpec("Flatten: negative axis", "f = Flatten <axis=-1> (x) y = Reshape(f, s)",
                 {"x": IMAGE}, {"s": ints(-1, 3, 20)}),
    GradientSpec("Squeeze: positions", "y = Squeeze(x, a)", {"x": (2, 3, 1, 1)},
                 {"a": ints(2, -1)}),
    GradientSpec("Squeeze: opset 7", "y = Squeeze <axes=[2,3]> (x)", {"x": (2, 3, 1, 1)},
                 opset=7),
    GradientSpec("Unsqueeze: ends", "y = Unsqueeze(x, a)", {"x": (2, 3)}, {"a": ints(-1, 1)}),
    GradientSpec("Unsqueeze: opset 11", "y = Unsqueeze <axes=[2,3]> (x)", {"x": (2, 3)},
                 opset=11),
    GradientSpec("Transpose: channels last", "y = Transpose <perm=[0,2,3,1]> (x)", {"x": IMAGE}),
    GradientSpec("Transpose: three-cycle", "y = Transpose <perm=[0,3,1,2]> (x)", {"x": IMAGE}),
    GradientSpec("Transpose: reversed twice", "t = Transpose(x) m = Mul(t, c) y = Transpose(m)",
                 {"x": (2, 3, 4)}, {"c": (4, 3, 1)}),
    GradientSpec("Transpose: channel shuffle",
                 "r = Reshape(x, s) t = Transpose <perm=[0,2,1,3,4]> (r) y = Reshape(t, b)",
                 {"x": (2, 6, 2, 2)}, {"s": ints(0, 2, 3, 2, 2), "b": ints(0, -1, 2, 2)}),
    GradientSpec("Expand: positions", "y = Expand(x, s)", {"x": (2, 3, 1, 1)},
                 {"s": ints(1, 3, 4, 5)}),
    GradientSpec("Expand: shorter shape", "y = Expand(x, s)", {"x": (2, 3, 1, 1)},
                 {"s": ints(4, 5)}),
    GradientSpec("Expand: opset 8", "y = Expand(x, s)", {"x": (2, 1, 4)}, {"s": ints(1, 3, 1)},
                 opset=8),
]  # fmt: skip

GRADIENT_SPECS = [
    *GROUP_SPECS,
    *CUMULATIVE_SPECS,
    *NORMALIZATION_SPECS,
    *REDUCTION_SPECS,
    *SHAPING_SPECS,
]


@pytest.mark.parametrize("spec", GRADIENT_SPECS, ids=str)
def test_gradient_agrees_with_finite_differences(spec: GradientSpec) -> None:
    check_gradient(spec)


def test_names_of_the_specs_are_unique() -> None:
    names = [spec.name for spec in GRADIENT_SPECS]
    assert len(set(names)) == len(names)


STATISTICS = {"s": (3,), "b": (3,), "m": (3,), "v": (3,)}

REFUSED_SPECS = [
    GradientSpec("BatchNormalization: training",
                 "y, m2, v2 = BatchNormalization <training_mode=1> (x, s, b, m, v)",
                 {"x": IMAGE}, STATISTICS),
    GradientSpec("BatchNormalization: variance from activations",
                 "y = BatchNormalization(c, s, b, m, x)", {"x": (3,)},
                 {"c": IMAGE, **STATISTICS}),
    GradientSpec("ReduceMean: the batch", "y = ReduceMean(x, a)", {"x": IMAGE}, {"a": ints(0)}),
    GradientSpec("ReduceMax: everything", "y = ReduceMax <keepdims=0> (x)", {"x": IMAGE}),
    GradientSpec("ReduceL2: no axes", "y = ReduceL2 <noop_with_empty_axes=1> (x)",
                 {"x": IMAGE}),
]  # fmt: skip


@pytest.mark.parametrize("spec", REFUSED_SPECS, ids=str)
def test_rule_refuses_what_it_cannot_differentiate(spec: GradientSpec) -> None:
    check_refusal(spec)
