"""Gradients of Gemm, MatMul and the operators that join, part, pick or pad."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.graph_ops.rules.gradient_harness import GradientSpec, check_gradient, check_refusal


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.asarray(numbers, dtype=np.int64)


DENSE_SPECS = [
    GradientSpec("Gemm", "y = Gemm (x, w, b)", {"x": (3, 4)}, {"w": (4, 5), "b": (5,)}),
    GradientSpec("Gemm: transB", "y = Gemm <transB=1, alpha=0.5, beta=2.0> (x, w, b)",
                 {"x": (3, 4)}, {"w": (5, 4), "b": (5,)}),
    GradientSpec("Gemm: without C", "y = Gemm <transB=1> (x, w)", {"x": (3, 4)}, {"w": (5, 4)}),
    GradientSpec("Gemm: opset 7", "y = Gemm (x, w, b)", {"x": (3, 4)}, {"w": (4, 5), "b": (5,)},
                 opset=7),
    GradientSpec("Gemm: C from activations", "y = Gemm <beta=0.5> (x, w, c)",
                 {"x": (3, 4), "c": (3, 5)}, {"w": (4, 5)}),
    GradientSpec("MatMul: matrix", "y = MatMul (x, w)", {"x": (3, 4)}, {"w": (4, 5)}),
    GradientSpec("MatMul: stack by matrix", "y = MatMul (x, w)", {"x": (2, 3, 4)}, {"w": (4, 5)}),
    GradientSpec("MatMul: matrix by stack", "y = MatMul (w, x)", {"x": (2, 3, 4)}, {"w": (5, 3)}),
    GradientSpec("MatMul: stack by stack", "y = MatMul (a, b)",
                 {"a": (2, 3, 4, 5), "b": (2, 3, 5, 2)}),
    GradientSpec("MatMul: repeated operand", "y = MatMul (a, b)",
                 {"a": (2, 1, 4, 5), "b": (2, 3, 5, 2)}),
    GradientSpec("MatMul: by vector", "y = MatMul (x, w)", {"x": (2, 3, 4)}, {"w": (4,)}),
    GradientSpec("MatMul: vector by stack", "y = MatMul (w, x)", {"x": (2, 3, 4)}, {"w": (3,)}),
    GradientSpec("Einsum: matrices", 'y = Einsum <equation = "nij,njk->nik"> (a, b)',
                 {"a": (2, 3, 4), "b": (2, 4, 5)}),
    GradientSpec("Einsum: a stored operand, result transposed",
                 'y = Einsum <equation = "nchw,cd->ndwh"> (x, w)', {"x": (2, 3, 4, 5)},
                 {"w": (3, 6)}),
    GradientSpec("Einsum: ellipsis, no arrow", 'y = Einsum <equation = "...ij,jk"> (x, w)',
                 {"x": (2, 3, 4)}, {"w": (4, 5)}),
    GradientSpec("Einsum: one group, one head",
                 'y = Einsum <equation = "bghid,bghjd->bghij"> (a, b)',
                 {"a": (2, 1, 1, 3, 4), "b": (2, 1, 1, 5, 4)}),
    GradientSpec("Einsum: attention", 'a = Einsum <equation = "bhqd,bhkd->bhqk"> (x, x) '
                 'y = Einsum <equation = "bhqk,bhkd->bhqd"> (a, x)', {"x": (2, 2, 3, 4)}),
]  # fmt: skip

JOINING_SPECS = [
    GradientSpec("Concat: channels", "y = Concat <axis=1> (a, b)",
                 {"a": (2, 3, 4, 4), "b": (2, 2, 4, 4)}),
    GradientSpec("Concat: the same twice, last axis", "t = Concat <axis=-1> (a, a) "
                 "y = Concat <axis=1> (t, b, t)", {"a": (2, 3, 4), "b": (2, 3, 8)}),
    GradientSpec("Concat: with a constant", "y = Concat <axis=1> (w, a)", {"a": (2, 3, 4)},
                 {"w": (2, 1, 4)}),
    GradientSpec("Concat: one input", "y = Concat <axis=1> (a)", {"a": (2, 3, 4)}),
    GradientSpec("Split: all used", "y, z = Split <axis=1> (x, s)", {"x": (2, 5, 3)},
                 {"s": ints(2, 3)}, outputs=("y", "z")),
    GradientSpec("Split: one unused", "a, y, b = Split <axis=1> (x, s)", {"x": (2, 6, 3)},
                 {"s": ints(1, 3, 2)}),
    GradientSpec("Split: num_outputs, last smaller", "y, z = Split <axis=-1, num_outputs=2> (x)",
                 {"x": (2, 3, 5)}, outputs=("y", "z")),
    GradientSpec("Split: opset 11", "y, z = Split <axis=1, split=[2,3]> (x)", {"x": (2, 5, 3)},
                 outputs=("y", "z"), opset=11),
    GradientSpec("Split: opset 11, equal parts", "y, z = Split <axis=1> (x)", {"x": (2, 6, 3)},
                 outputs=("y", "z"), opset=11),
    GradientSpec("Slice: range", "y = Slice (x, s, e, a)", {"x": (2, 6, 5)},
                 {"s": ints(1, -4), "e": ints(4, -1), "a": ints(1, 2)}),
    GradientSpec("Slice: without axes", "y = Slice (x, s, e)", {"x": (2, 6, 5)},
                 {"s": ints(0, 2), "e": ints(2**62, 9)}),
    GradientSpec("Slice: steps", "y = Slice (x, s, e, a, t)", {"x": (2, 6, 5)},
                 {"s": ints(1, 0), "e": ints(6, 5), "a": ints(1, -1), "t": ints(2, 3)}),
    GradientSpec("Slice: backwards", "y = Slice (x, s, e, a, t)", {"x": (2, 6, 5)},
                 {"s": ints(-1, 4), "e": ints(-(2**62), 1), "a": ints(1, 2), "t": ints(-1, -2)}),
    GradientSpec("Slice: opset 9", "y = Slice <starts=[1], ends=[3], axes=[1]> (x)",
                 {"x": (2, 6, 5)}, opset=9),
    GradientSpec("Pad: constant", "y = Pad (x, p, v)", {"x": (2, 3, 4, 5)},
                 {"p": ints(0, 1, 0, 2, 0, 0, 3, 1), "v": np.asarray(0.5, np.float32)}),
    GradientSpec("Pad: negative", "y = Pad (x, p)", {"x": (2, 3, 4, 5)},
                 {"p": ints(0, 0, -1, 2, 0, 0, 1, -2)}, reference="ort"),
    GradientSpec("Pad: axes", "y = Pad (x, p, v, a)", {"x": (2, 3, 4, 5)},
                 {"p": ints(1, 2, 0, 1), "v": np.asarray(0, np.float32), "a": ints(3, -2)},
                 reference="ort"),
    *(GradientSpec(f"Pad: {mode}", f'y = Pad <mode="{mode}"> (x, p)', {"x": (2, 2, 4, 5)},
                   {"p": ints(0, 0, 1, 2, 0, 0, 2, 1)}, reference="ort", opset=19)
      for mode in ("reflect", "edge", "wrap")),
    GradientSpec("Pad: opset 7", "y = Pad <pads=[0,0,1,2,0,0,0,1]> (x)", {"x": (2, 2, 4, 5)},
                 opset=7),
    GradientSpec("Tile: positions and channels", "y = Tile (x, r)", {"x": (2, 3, 4)},
                 {"r": ints(1, 2, 3)}),
    GradientSpec("GatherND: pixels", "t = Transpose <perm=[1,2,0]> (x) g = GatherND (t, i) "
                 "y = Transpose <perm=[1,0]> (g)", {"x": (2, 3, 4)},
                 {"i": np.asarray([[0, 1], [2, 3], [0, 1]], np.int64)}),
    GradientSpec("ScatterND: rows written", "t = Transpose <perm=[1,0,2]> (x) "
                 "u = Transpose <perm=[1,0,2]> (v) s = ScatterND (t, i, u) "
                 "y = Transpose <perm=[1,0,2]> (s)", {"x": (2, 5, 4), "v": (2, 2, 4)},
                 {"i": np.asarray([[3], [1]], np.int64)}),
    GradientSpec("Gather: distinct", "y = Gather <axis=1> (x, i)", {"x": (2, 5, 3)},
                 {"i": ints(3, 0, -1)}),
    GradientSpec("Gather: repeated", "y = Gather <axis=1> (x, i)", {"x": (2, 5, 3)},
                 {"i": ints(3, 0, 3, -1, 3)}),
    GradientSpec("Gather: repeated on the last axis", "y = Gather <axis=-1> (x, i)",
                 {"x": (2, 5, 3)}, {"i": ints(1, 1)}),
    GradientSpec("Gather: repeated on a middle axis", "y = Gather <axis=1> (x, i)",
                 {"x": (2, 4, 3, 2)}, {"i": ints(1, 1, 2)}),
    GradientSpec("Gather: one index", "y = Gather <axis=2> (x, i)", {"x": (2, 5, 3)},
                 {"i": np.asarray(2, np.int64)}),
    GradientSpec("Gather: table of indices", "y = Gather <axis=1> (x, i)", {"x": (2, 5, 3)},
                 {"i": np.asarray([[0, 2], [4, 2]], np.int64)}),
]  # fmt: skip


@pytest.mark.parametrize("spec", [*DENSE_SPECS, *JOINING_SPECS], ids=str)
def test_gradient_agrees_with_finite_differences(spec: GradientSpec) -> None:
    check_gradient(spec)


REFUSED_SPECS = [
    GradientSpec("Gather: from the batch", "y = Gather <axis=0> (x, i)", {"x": (2, 5)},
                 {"i": ints(1, 0)}),
    GradientSpec("Concat: the batch", "y = Concat <axis=0> (x, x)", {"x": (2, 5)}),
]  # fmt: skip


@pytest.mark.parametrize("spec", REFUSED_SPECS, ids=str)
def test_rule_refuses_what_it_cannot_differentiate(spec: GradientSpec) -> None:
    check_refusal(spec)
