"""Every weighted operator is row · matrix, and the matrix is written back where it came from."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops.recovery.rows import draw_positions, linear_form
from graph_ops.runtime import Session
from tests.support.cutting import model_of
from tests.support.recovering import edited, random_inputs, stored

OPERATORS = {
    "conv": ("y = Conv(x, w)", "float[4,6,3,2] w"),
    "padded": ("y = Conv<pads=[2,0,1,3]>(x, w)", "float[4,6,3,2] w"),
    "strided": ("y = Conv<strides=[3,2], pads=[1,1,1,1]>(x, w)", "float[4,6,3,3] w"),
    "dilated": ("y = Conv<dilations=[2,3], pads=[2,2,2,2]>(x, w)", "float[4,6,3,3] w"),
    "same_upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,3]>(x, w)', "float[4,6,3,4] w"),
    "same_lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)', "float[4,6,3,4] w"),
    "grouped": ("y = Conv<group=3>(x, w)", "float[9,2,2,2] w"),
    "depthwise": ("y = Conv<group=6, pads=[1,1,1,1]>(x, w)", "float[6,1,3,3] w"),
    "multiplied": ("y = Conv<group=6>(x, w)", "float[12,1,3,3] w"),
    "transposed": ("y = ConvTranspose(x, w)", "float[6,4,3,2] w"),
    "transposed_strided": (
        "y = ConvTranspose<strides=[2,3], pads=[1,0,2,1], output_padding=[1,2]>(x, w)",
        "float[6,4,3,4] w",
    ),
    "transposed_dilated": (
        "y = ConvTranspose<strides=[2,1], dilations=[1,2]>(x, w)",
        "float[6,4,3,3] w",
    ),
    "transposed_grouped": ("y = ConvTranspose<group=3, strides=[2,2]>(x, w)", "float[6,5,3,3] w"),
    "transposed_depthwise": (
        "y = ConvTranspose<group=6, strides=[2,2], pads=[1,1,1,1]>(x, w)",
        "float[6,1,4,4] w",
    ),
    "transposed_same_upper": (
        'y = ConvTranspose<auto_pad="SAME_UPPER", strides=[2,3]>(x, w)',
        "float[6,4,3,4] w",
    ),
    "transposed_same_lower": (
        'y = ConvTranspose<auto_pad="SAME_LOWER", strides=[2,3]>(x, w)',
        "float[6,4,3,4] w",
    ),
    "transposed_to_shape": (
        "y = ConvTranspose<output_shape=[13,17], strides=[2,3]>(x, w)",
        "float[6,4,3,3] w",
    ),
}
MATRICES = {
    "gemm": ("y = Gemm<alpha=0.5>(x, w)", "float[6,4] w", "float[N,6] x"),
    "gemm_turned": ("y = Gemm<alpha=2.0, transB=1>(x, w)", "float[4,6] w", "float[N,6] x"),
    "matmul": ("y = MatMul(x, w)", "float[6,4] w", "float[N,6] x"),
    "matmul_of_many": ("y = MatMul(x, w)", "float[6,4] w", "float[N,3,2,6] x"),
}
ONE_AXIS = {"conv1d": ("y = Conv<strides=[2], pads=[1,2]>(x, w)", "float[4,6,3] w")}
THREE_AXES = {
    "conv3d": ("y = Conv<strides=[2,1,1], pads=[1,0,1,1,0,1]>(x, w)", "float[4,6,3,2,3] w"),
    "transposed3d": ("y = ConvTranspose<strides=[2,1,2]>(x, w)", "float[6,4,2,2,3] w"),
}
CASES = {
    **{k: (*v, "float[N,6,7,6] x") for k, v in OPERATORS.items()},
    **{k: (*v, "float[N,6,9] x") for k, v in ONE_AXIS.items()},
    **{k: (*v, "float[N,6,5,4,5] x") for k, v in THREE_AXES.items()},
    **MATRICES,
}


def read(model: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(model))


@pytest.mark.parametrize("case", CASES)
def test_the_operator_is_its_rows_times_the_matrix(case: str) -> None:
    body, weights, inputs = CASES[case]
    model = model_of(body, weights, inputs)
    shape = stored(model, "w").shape
    node = read(model).graph.node(0)
    form = linear_form(node, shape)
    assert form is not None
    outputs = int(np.prod(shape)) // (form.inputs * form.groups)
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((form.groups, form.inputs, outputs))
    model = edited(model, w=form.to_stored(matrix, shape).astype(np.float32))
    feeds = random_inputs(model, 3)
    (y,) = Session(read(model)).run(feeds)
    at = draw_positions(rng, 3, form.grid(y, 3), 11)
    found = np.matmul(form.rows(feeds["x"], at, 3), matrix)
    np.testing.assert_allclose(found, form.split(form.outputs(y, at, 3)), atol=2e-5)


@pytest.mark.parametrize(
    ("op_type", "attributes", "weight"),
    [
        ("Gemm", {"transA": 1}, (6, 4)),
        ("MatMul", {}, (2, 6, 4)),
        ("Add", {}, (6, 4)),
    ],
)
def test_what_has_no_such_form_is_left_alone(
    op_type: str, attributes: dict[str, int], weight: tuple[int, ...]
) -> None:
    node = ir.node(op_type, [ir.Value(name="x"), ir.Value(name="w")], attributes)
    assert linear_form(node, weight) is None


def test_positions_are_drawn_once_each_and_all_where_there_are_few() -> None:
    rng = np.random.default_rng(0)
    some = draw_positions(rng, 4, (5, 6), 7)
    assert some.shape == (28, 3)
    assert len({tuple(p) for p in some.tolist()}) == 28
    assert (np.bincount(some[:, 0]) == 7).all()
    assert some[:, 1].max() < 5
    assert some[:, 2].max() < 6
    assert draw_positions(rng, 4, (2, 3), 7).shape == (24, 3)
