"""What can be given back exactly is: for every consumer, to float rounding.

In each network below the filters 4 … 7 of the first convolution are linear combinations of the
filters 0 … 3, without a nonlinearity before they are read. So what they did can be done by the
others, and a least-squares refit has to find how.
"""

from __future__ import annotations

import numpy as np
import pytest

from graph_ops.recovery import fits
from tests.support.cutting import model_of
from tests.support.recovering import edited, random_inputs, recovered, stored

FIRST = "a = Conv<pads=[1,1,1,1]>(x, w1, b1)"
SHAPE = "float[N,3,6,6] x"
WEIGHTS = "float[8,3,3,3] w1, float[8] b1"

CONSUMERS = {
    "conv": ("y = Conv(a, w2, b2)", "float[5,8,3,3] w2, float[5] b2"),
    "conv_without_bias": ("y = Conv(a, w2)", "float[5,8,3,3] w2"),
    "pointwise": ("y = Conv(a, w2, b2)", "float[5,8,1,1] w2, float[5] b2"),
    "strided": ("y = Conv<strides=[2,1]>(a, w2, b2)", "float[5,8,3,2] w2, float[5] b2"),
    "dilated": ("y = Conv<dilations=[2,1]>(a, w2, b2)", "float[5,8,2,2] w2, float[5] b2"),
    "padded": ("y = Conv<pads=[2,0,1,3]>(a, w2)", "float[5,8,3,3] w2"),
    "auto_pad": (
        'y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(a, w2)',
        "float[5,8,3,3] w2",
    ),
    "conv_transpose": (
        "y = ConvTranspose<strides=[2,2], pads=[1,0,0,1], output_padding=[1,0]>(a, w2, b2)",
        "float[8,5,3,3] w2, float[5] b2",
    ),
    "conv_transpose_auto_pad": (
        'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(a, w2)',
        "float[8,5,3,3] w2",
    ),
    "conv_transpose_grouped": (
        "y = ConvTranspose<group=2, strides=[2,1], pads=[0,0,1,0]>(a, w2)",
        "float[8,3,3,2] w2",
    ),
    "conv_grouped": ("y = Conv<group=2, pads=[1,1,0,0]>(a, w2)", "float[6,4,3,3] w2"),
    "gemm": (
        "p = GlobalAveragePool(a)\nf = Flatten(p)\ny = Gemm<alpha=0.5>(f, w2, b2)",
        "float[8,5] w2, float[5] b2",
    ),
    "gemm_turned": (
        "p = GlobalAveragePool(a)\nf = Flatten(p)\ny = Gemm<transB=1, beta=2.0>(f, w2, b2)",
        "float[5,8] w2, float[5] b2",
    ),
    "matmul": (
        "t = Transpose<perm=[0,2,3,1]>(a)\ny = MatMul(t, w2)",
        "float[8,5] w2",
    ),
    "matmul_and_add": (
        "t = Transpose<perm=[0,2,3,1]>(a)\nm = MatMul(t, w2)\ny = Add(m, b2)",
        "float[8,5] w2, float[5] b2",
    ),
    "batch_normalization": (
        "c = Conv(a, w2)\ny = BatchNormalization(c, g, o, mean, var)",
        "float[5,8,3,3] w2, float[5] g, float[5] o, float[5] mean, float[5] var",
    ),
    "concatenated": (
        "d = Conv<pads=[1,1,1,1]>(x, w3)\nc = Concat<axis=1>(d, a)\ny = Conv(c, w2)",
        "float[3,3,3,3] w3, float[5,11,3,3] w2",
    ),
    "flattened": ("f = Flatten(a)\ny = Gemm(f, w2, b2)", "float[288,5] w2, float[5] b2"),
}
NEEDS_LINEAR_BIAS = {
    "padded",
    "auto_pad",
    "conv_transpose",
    "conv_transpose_auto_pad",
    "conv_transpose_grouped",
    "conv_grouped",
    "matmul",
}
"""Near a border fewer taps read the constant part of a channel, so that no bias stands for it
everywhere; MatMul has no bias. There the constant part has to be a combination too."""
DROPPED_OF_GROUPS = {"conv_transpose_grouped": [1, 3, 5, 7], "conv_grouped": [1, 3, 5, 7]}


def with_redundant_filters(model: bytes, going: list[int], *, is_bias_linear: bool) -> bytes:
    """The filters that go become combinations of one that stays in the same group of four."""
    weight, bias = stored(model, "w1").astype(np.float64), stored(model, "b1").astype(np.float64)
    rng = np.random.default_rng(1)
    staying = [i for i in range(8) if i not in going]
    for index in going:
        near = [s for s in staying if s // 4 == index // 4] or staying
        mixing = rng.standard_normal(len(near))
        weight[index] = np.einsum("j,jchw->chw", mixing, weight[near])
        if is_bias_linear:
            bias[index] = mixing @ bias[near]
    return edited(model, w1=weight.astype(np.float32), b1=bias.astype(np.float32))


@pytest.mark.parametrize("kind", CONSUMERS)
def test_linear_combinations_are_restored_to_float_rounding(kind: str) -> None:
    body, weights = CONSUMERS[kind]
    going = DROPPED_OF_GROUPS.get(kind, [4, 5, 6, 7])
    model = with_redundant_filters(
        model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, {weights}", SHAPE),
        going,
        is_bias_linear=kind in NEEDS_LINEAR_BIAS,
    )
    result = recovered(model, {"a": going}, samples=320 if kind == "flattened" else 96)
    before, after = result.relative_errors(random_inputs(model, 16, seed=9))
    assert result.recovery.method == "reconstruct"
    assert before > 0.1
    assert after < 2e-5


def test_a_residual_sum_is_restored_by_the_branch_that_comes_last() -> None:
    """The first branch cannot be refitted: another node shares its weight."""
    body = """
        b = Conv<pads=[1,1,1,1]>(a, w2)
        s = Conv<strides=[2,2]>(a, w2)
        c = Conv<pads=[1,1,1,1]>(a, w3)
        y = Add(b, c)
    """
    model = with_redundant_filters(
        model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, float[5,8,3,3] w2, float[5,8,3,3] w3", SHAPE),
        [4, 5, 6, 7],
        is_bias_linear=True,
    )
    result = recovered(model, {"a": [4, 5, 6, 7]}, samples=96)
    _, after = result.relative_errors(random_inputs(model, 16, seed=9))
    assert after < 2e-5
    layers = {entry.name: entry for entry in result.recovery.layers}
    assert layers["c"].matched_to == "sum"
    assert layers["b"].method != "reconstruct"
    assert layers["b"].reason == "its weight is shared with another node"


@pytest.mark.parametrize(
    "branches",
    [
        ["b = Conv<pads=[1,1,1,1]>(a, w2)", "c = Conv(a, w3)"],
        ["c = Conv(a, w3)", "b = Conv<pads=[1,1,1,1]>(a, w2)"],
    ],
    ids=["wide first", "narrow first"],
)
def test_the_widest_branch_of_a_sum_is_matched_to_it_wherever_it_stands(
    branches: list[str],
) -> None:
    body = "\n".join([*branches, "s = Add(b, c)", "y = Relu(s)"])
    weights = f"{WEIGHTS}, float[5,8,3,3] w2, float[5,8,1,1] w3"
    result = recovered(
        model_of(f"{FIRST}\nr = Relu(a)\n{body.replace('(a,', '(r,')}", weights, SHAPE),
        {"a": [4, 5, 6, 7]},
        samples=96,
    )
    layers = {entry.name: entry for entry in result.recovery.layers}
    assert layers["b"].matched_to == "sum"
    assert layers["c"].matched_to == "own output"
    before, after = layers["b"].error_before, layers["b"].error_after
    assert before is not None
    assert after is not None
    assert after < before


def test_a_depthwise_convolution_makes_up_for_what_it_reads() -> None:
    """Filters 4 … 7 equal filters 0 … 3, so the shared pointwise weight loses half its output."""
    body = """
        c = Conv(a, w2)
        s = Conv<strides=[2,2]>(a, w2)
        y = Conv<group=5, strides=[1,2]>(c, w3)
    """
    model = model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, float[5,8,1,1] w2, float[5,1,3,3] w3", SHAPE)
    doubled = {n: np.concatenate([stored(model, n)[:4]] * 2) for n in ("w1", "b1")}
    kernel = stored(model, "w2")
    model = edited(model, **doubled, w2=np.concatenate([kernel[:, :4]] * 2, axis=1))
    result = recovered(model, {"a": [4, 5, 6, 7]}, samples=96)
    layers = {entry.name: entry for entry in result.recovery.layers}
    assert layers["y"].method == "reconstruct"
    assert layers["y"].error_after is not None
    assert layers["y"].error_after < 2e-5


@pytest.mark.parametrize("method", ["bias", "reconstruct"])
@pytest.mark.parametrize("consumer", ["conv", "gemm", "gemm_turned", "batch_normalization"])
def test_constant_channels_go_into_the_bias_exactly(method: str, consumer: str) -> None:
    body, weights = CONSUMERS[consumer]
    model = model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, {weights}", SHAPE)
    kernel = stored(model, "w1").copy()
    kernel[[2, 5]] = 0
    model = edited(model, w1=kernel)
    result = recovered(model, {"a": [2, 5]}, method)
    before, after = result.relative_errors(random_inputs(model, 16, seed=9))
    assert result.recovery.method == method
    assert before > 1e-2
    assert after < 1e-6


def test_an_activation_that_is_not_zero_at_zero_is_covered() -> None:
    body = "s = Sigmoid(a)\ny = Conv(s, w2)"
    model = model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, float[5,8,3,3] w2", SHAPE)
    kernel, bias = stored(model, "w1").copy(), stored(model, "b1").copy()
    kernel[3], bias[3] = 0, 0
    result = recovered(edited(model, w1=kernel, b1=bias), {"a": [3]}, "bias")
    before, after = result.relative_errors(random_inputs(model, 16, seed=9))
    assert before > 1e-2
    assert after < 1e-6


def test_the_error_near_padded_borders_is_reported() -> None:
    """A constant channel is missed by fewer taps there: less error than before, but some."""
    body = "y = Conv<pads=[1,1,1,1]>(a, w2)"
    model = model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, float[5,8,3,3] w2", SHAPE)
    kernel = stored(model, "w1").copy()
    kernel[2] = 0
    bias = stored(model, "b1").copy()
    bias[2] = 2
    result = recovered(edited(model, w1=kernel, b1=bias), {"a": [2]}, "bias")
    (layer,) = result.recovery.layers
    assert layer.error_before is not None
    assert layer.error_after is not None
    assert 1e-3 < layer.error_after < 0.7 * layer.error_before


@pytest.mark.parametrize("kind", ["conv", "padded", "strided", "conv_transpose"])
def test_a_convolution_too_wide_for_its_taps_has_its_channels_mixed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "WIDEST", 4)
    body, weights = CONSUMERS[kind]
    model = with_redundant_filters(
        model_of(f"{FIRST}\n{body}", f"{WEIGHTS}, {weights}", SHAPE),
        [4, 5, 6, 7],
        is_bias_linear=True,
    )
    result = recovered(model, {"a": [4, 5, 6, 7]})
    (layer,) = result.recovery.layers
    assert layer.equations == "channels"
    assert layer.reason is not None
    assert "too wide" in layer.reason
    _, after = result.relative_errors(random_inputs(model, 16, seed=9))
    assert after < 2e-5
