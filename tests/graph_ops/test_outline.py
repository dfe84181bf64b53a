"""The outline keeps layers, joins and ends, and follows values through all that lies between."""

from __future__ import annotations

from graph_ops.model import load_model
from graph_ops.outline import outline
from tests.support.models import text_model

BRANCHES = """
<ir_version: 8, opset_import: ["" : 17]>
branches (float[N,4,8,8] x) => (float[N,4,8,8] y)
<float[4,4,1,1] w1 = {0}, float[4,4,1,1] w2 = {0}>
{
    a = Conv <kernel_shape = [1, 1]> (x, w1)
    b = Relu (a)
    c = Conv <kernel_shape = [1, 1]> (b, w2)
    d = GlobalAveragePool (c)
    e = Sigmoid (d)
    f = Mul (c, e)
    g = Add (f, b)
    y = Relu (g)
}
"""


def weights_filled(text: str) -> bytes:
    zeros = ", ".join(["0"] * 16)
    return text_model(text.replace("{0}", f"{{{zeros}}}"))


def test_layers_and_joins_stay_and_the_rest_is_passed_through() -> None:
    found = outline(load_model(weights_filled(BRANCHES)).model)
    assert [(n.name, n.op_type) for n in found.nodes] == [
        ("x", "input"),
        ("a", "Conv"),
        ("c", "Conv"),
        ("g", "Add"),
        ("y", "output"),
    ]
    assert found.edges == ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4))


def test_an_operator_whose_branches_have_one_origin_is_no_join() -> None:
    """The Mul of `c` and its own gate joins nothing new: both sides come from `c`."""
    found = outline(load_model(weights_filled(BRANCHES)).model)
    assert "Mul" not in {n.op_type for n in found.nodes}
