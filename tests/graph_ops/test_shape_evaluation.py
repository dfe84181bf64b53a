"""Shapes and numbers that do not depend on the batch are found, however they are computed."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops.canonical import bind_shapes, scoring_copy
from graph_ops.errors import NothingPrunableError
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from tests.graph_ops.rules.coupling_rows import CONV1, W1
from tests.graph_ops.rules.coupling_specs_joining import AS_STRIDED, COUNTED
from tests.support.cutting import model_of

FOLDED_BATCH = """
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    h = Shape(a)
    n = Gather(h, i0)
    c = Gather(h, i1)
    k = Div(c, two)
    m = Mul(n, two)
    nk = Unsqueeze(m, zero)
    kk = Unsqueeze(k, zero)
    s = Concat <axis = 0> (nk, kk, rest)
    p = Reshape(a, s)
    r = Relu(p)
    l = Unsqueeze(n, zero)
    t = Concat <axis = 0> (l, rest, side, side)
    q = Reshape(r, t)
    [conv2] y = Conv(q, w2)
"""
WEIGHTS = (
    "float[8,3,3,3] w1, float[4,8,1,1] w2, int64 i0 = {0}, int64 i1 = {1}, int64 two = {2}, "
    "int64[1] zero = {0}, int64[1] rest = {-1}, int64[1] side = {6}"
)


def test_what_depends_on_the_batch_is_open_and_the_rest_is_known() -> None:
    model = load_model(model_of(FOLDED_BATCH, WEIGHTS)).clone()
    shapes = bind_shapes(model, {"x": (3, 6, 6)})
    assert shapes["p"] == (None, 4, 36)
    assert shapes["q"] == (None, 8, 6, 6)
    assert shapes.numbers["k"].tolist() == 4
    assert "m" not in shapes.numbers


def test_the_scoring_copy_stores_known_numbers_where_they_are_read() -> None:
    model = load_model(model_of(FOLDED_BATCH, WEIGHTS)).clone()
    copy = scoring_copy(model, {"x": (3, 6, 6)})
    concat = next(n for n in copy.model.graph if n.outputs[0].name == "s")
    assert concat.inputs[1] is not None
    assert concat.inputs[1].is_initializer()
    assert concat.inputs[0] is not None
    assert not concat.inputs[0].is_initializer()


ROWS_AS_SAMPLES = """
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    h = Shape(a)
    n = Gather(h, i0)
    m = Mul(n, six)
    u = Unsqueeze(m, zero)
    t = Transpose <perm = [0,2,3,1]> (a)
    s = Concat <axis = 0> (u, rest)
    p = Reshape(t, s)
    l, r = Split <axis = 1> (p, halves)
    c = Concat <axis = 1> (r, l)
    v = Unsqueeze(n, zero)
    k = Concat <axis = 0> (v, back)
    q = Reshape(c, k)
    b = Transpose <perm = [0,3,1,2]> (q)
    [conv2] y = Conv(b, w2)
"""


def test_gradients_pass_a_batch_that_is_folded_with_another_axis() -> None:
    model = model_of(
        ROWS_AS_SAMPLES,
        "float[8,3,3,3] w1, float[4,8,1,1] w2, int64 i0 = {0}, int64 six = {6}, "
        "int64[1] zero = {0}, int64[2] rest = {6, 8}, int64[2] halves = {2, 4}, "
        "int64[3] back = {6, 6, 8}",
    )
    network = TaylorPrunableNetwork(model, sample_shapes={"x": (3, 6, 6)}, targets=None)
    random = np.random.default_rng(0)
    network.update_score({"x": random.standard_normal((2, 3, 6, 6)).astype(np.float32)})
    assert (network.scores()[network.prunable] > 0).all()
    assert network.prunable.sum() == 8


HALVES = """
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    l, r = Split <axis = 1> (a, sizes)
    [left] p = Conv <group = 8> (l, wl)
    m = Concat <axis = 1> (p, r)
    [conv2] y = Conv(m, w2)
"""


def test_a_part_of_a_split_keeps_a_channel() -> None:
    model = model_of(
        HALVES,
        "float[16,3,3,3] w1, float[8,1,1,1] wl, float[4,16,1,1] w2, int64[2] sizes = {8, 8}",
    )
    network = TaylorPrunableNetwork(
        model, {"criterion": "random", "min_filters": 1}, sample_shapes={"x": (3, 6, 6)}
    )
    network.update_prunables(max_to_prune=1000)
    kept = network.kept(network.convolutions[0])
    assert (kept < 8).sum() == 1
    assert (kept >= 8).sum() == 1
    load_model(network.to_model())


IN_PARTS = """
    [conv1] a = Conv <pads = [1,1,1,1]> (x, w1)
    parts = SplitToSequence %s
    l = SequenceAt(parts, i0)
    r = SequenceAt(parts, last)
    [left] p = Conv(l, wl)
    [right] q = Conv(r, wr)
    m = Concat <axis = 1> (p, q)
    t = Relu(m)
    [conv2] y = Conv(t, w2)
"""


@pytest.mark.parametrize(
    ("split", "left", "right"),
    [
        ("<axis = 1> (a, sizes)", 4, 12),
        ("<axis = -3> (a, sizes)", 4, 12),
        ("<axis = 1> (a, step)", 10, 6),
        ("<axis = 1> (a, half)", 8, 8),
    ],
)
def test_what_follows_a_part_of_a_sequence_has_its_shape(split: str, left: int, right: int) -> None:
    weights = (
        "float[16,3,3,3] w1, float[4,16,1,1] w2, int64[2] sizes = {4, 12}, int64 step = {10}, "
        f"int64 half = {{8}}, int64 i0 = {{0}}, int64 last = {{-1}}, float[8,{left},1,1] wl, "
        f"float[8,{right},1,1] wr"
    )
    model = model_of(IN_PARTS % split, weights)
    shapes = bind_shapes(load_model(model).clone(), {"x": (3, 6, 6)})
    assert (shapes["l"], shapes["r"]) == ((None, left, 6, 6), (None, right, 6, 6))
    assert shapes["t"] == (None, 16, 6, 6)


@pytest.mark.parametrize("last", ["int64 last = {9}", "int64[2] last = {0, 1}"])
@pytest.mark.parametrize("split", ["(a)", "(a, sizes)", "(a, one)"])
def test_parts_that_are_not_known_have_no_channels(split: str, last: str) -> None:
    weights = (
        "float[16,3,3,3] w1, float[4,16,1,1] w2, int64[2] sizes = {4, 12}, int64 one = {1}, "
        f"int64 i0 = {{0}}, {last}, float[8,4,1,1] wl, float[8,12,1,1] wr"
    )
    proto = onnx.load_model_from_string(model_of(IN_PARTS % split, weights))
    shapes = bind_shapes(ir.from_proto(proto), {"x": (3, 6, 6)})
    assert shapes.get("r", (None, None))[1] in (None, 16)


@pytest.mark.parametrize(
    ("offsets", "is_in_order"),
    [("0, 1, 2, 3, 4, 5, 6, 7", True), ("1, 0, 2, 3, 4, 5, 6, 7", False)],
)
def test_a_list_that_is_gathered_in_its_order_is_reshaped(offsets: str, is_in_order: bool) -> None:
    """PyTorch's `as_strided`: its indices count up with the batch, and have no gradient."""

    def model(between: str) -> bytes:
        return model_of(
            f"{CONV1} {between} [conv2] y = Conv (g, w2)",
            f"{W1}, {COUNTED}, float[4,8,1,1] w2, int64[1,8,1,1] offsets = {{{offsets}}}",
        )

    strided = model(f"{AS_STRIDED} g = Gather(l, o)")
    copy = scoring_copy(load_model(strided).clone(), {"x": (3, 6, 6)})
    written = {str(n.outputs[0].name): n.op_type for n in copy.model.graph}
    assert written["g"] == ("Reshape" if is_in_order else "Gather")
    if not is_in_order:
        with pytest.raises(NothingPrunableError):
            TaylorPrunableNetwork(strided, sample_shapes={"x": (3, 6, 6)}, targets=None)
        return
    images = np.random.default_rng(0).standard_normal((5, 3, 6, 6)).astype(np.float32)
    scores = []
    for network in (strided, model("g = GlobalAveragePool(a)")):
        scored = TaylorPrunableNetwork(network, sample_shapes={"x": (3, 6, 6)}, targets=None)
        scored.update_score({"x": images})
        scores.append(scored.scores()[scored.prunable])
    assert scores[0].size == 8
    assert scores[1].min() > 0
    np.testing.assert_allclose(*scores, rtol=1e-5)
