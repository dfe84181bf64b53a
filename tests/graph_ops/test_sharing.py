"""Sharing is not coupling: each use of a stored vector gets its own copy, and gives it back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from graph_ops.model import load_model
from graph_ops.sharing import reshare, unshare
from tests.support.cutting import (
    analyse_bytes,
    assert_cut_is_exact,
    assert_masked_equals_pruned,
    model_of,
)

FIRE = (
    "[squeeze] a = Conv(x, w0, zero)\n"
    "r = Relu(a)\n"
    "[expand1] b = Conv(r, w1, zero)\n"
    "[expand3] c = Conv <pads = [1,1,1,1]> (r, w3, zero)\n"
    "d = Concat <axis = 1> (b, c)\n"
    "[out] y = Conv(d, w4)"
)
FIRE_WEIGHTS = (
    "float[4,3,1,1] w0, float[4,4,1,1] w1, float[4,4,3,3] w3, float[2,8,1,1] w4, "
    "float[4] zero = {0, 0, 0, 0}"
)


@pytest.fixture
def fire() -> bytes:
    return model_of(FIRE, FIRE_WEIGHTS)


def bias_names(model: ir.Model) -> list[str]:
    return [
        str(node.inputs[2].name)
        for node in model.graph
        if node.op_type == "Conv" and len(node.inputs) > 2 and node.inputs[2] is not None
    ]


def test_every_use_of_a_shared_bias_gets_its_own_copy(fire: bytes) -> None:
    model = load_model(fire).clone()
    uses = unshare(model)
    assert len(set(bias_names(model))) == 3
    assert [use.original for use in uses] == ["zero", "zero"]


def test_the_round_trip_leaves_the_model_as_it_was(fire: bytes) -> None:
    source = load_model(fire)
    model = source.clone()
    reshare(model, unshare(model))
    assert ir.to_proto(model) == ir.to_proto(source.clone())


def test_a_shared_bias_does_not_couple_its_users(fire: bytes) -> None:
    analysis = analyse_bytes(fire)
    rows = [
        set(analysis.classes.of_filters(analysis.convolution(name)).tolist())
        for name in ("squeeze", "expand1", "expand3")
    ]
    assert all(analysis.is_prunable(name) for name in ("squeeze", "expand1", "expand3"))
    assert not (rows[0] & rows[1] | rows[0] & rows[2] | rows[1] & rows[2])


def test_users_that_keep_equal_vectors_share_again(fire: bytes) -> None:
    analysis = analyse_bytes(fire)
    dropped = np.zeros(analysis.classes.count, dtype=bool)
    dropped[analysis.classes.of_filters(analysis.convolution("expand3"))[1]] = True
    cut = assert_cut_is_exact(analysis, dropped, np.random.default_rng(0))
    names = bias_names(cut.pruned)
    assert names[0] == names[1] == "zero"
    assert names[2] != "zero"
    assert cut.dropped_filters == {"expand3": [1]}
    assert len(cut.pruned.graph.initializers["zero"].const_value.numpy()) == 4


def test_random_cuts_of_a_fire_module_are_exact(fire: bytes) -> None:
    for seed in range(3):
        assert_masked_equals_pruned(fire, np.random.default_rng(seed))


def test_copies_are_graph_inputs_where_the_original_is() -> None:
    model = load_model(model_of(FIRE, FIRE_WEIGHTS, opset=9)).clone()
    zero = model.graph.initializers["zero"]
    model.graph.inputs.append(zero)
    before = ir.to_proto(model)
    uses = unshare(model)
    names = {value.name for value in model.graph.inputs}
    assert {use.copy for use in uses} <= names
    reshare(model, uses)
    assert ir.to_proto(model) == before


def test_identity_chains_are_parted_and_joined_again() -> None:
    body = (
        "i = Identity(zero)\nj = Identity(i)\n"
        "[first] a = Conv(x, w0, i)\n[second] b = Conv(a, w1, j)\n[out] y = Conv(b, w4)"
    )
    weights = (
        "float[4,3,1,1] w0, float[4,4,1,1] w1, float[2,4,1,1] w4, float[4] zero = {0, 0, 0, 0}"
    )
    source = load_model(model_of(body, weights))
    model = source.clone()
    uses = unshare(model)
    assert len(set(bias_names(model))) == 2
    reshare(model, uses)
    assert ir.to_proto(model) == ir.to_proto(source.clone())


def test_a_shared_kernel_stays_shared() -> None:
    body = (
        "[stem] a = Conv(x, w0)\n[first] b = Conv(a, w1)\n[second] c = Conv(b, w1)\n"
        "[out] y = Conv(c, w4)"
    )
    model = model_of(body, "float[4,3,1,1] w0, float[4,4,1,1] w1, float[2,4,1,1] w4")
    assert unshare(load_model(model).clone()) == []
    analysis = analyse_bytes(model)
    rows = [
        analysis.classes.of_filters(analysis.convolution(name)).tolist()
        for name in ("stem", "first", "second")
    ]
    assert rows[0] == rows[1] == rows[2]


def test_a_vector_that_is_a_graph_output_is_not_touched() -> None:
    body = "[first] a = Conv(x, w0, k)\n[out] y = Conv(a, w4)\nz = Relu(k)\nv = Identity(k)"
    model = model_of(body, "float[4,3,1,1] w0, float[2,4,1,1] w4, float[4] k", outputs="y, z, v")
    for seed in range(3):
        assert_masked_equals_pruned(model, np.random.default_rng(seed))


SHAPED = (
    "s = Shape(x)\nn = Gather(s, first_axis)\n"
    "flat = Concat <axis = 0> (n, four, rest)\nmap = Concat <axis = 0> (n, four, side, side)\n"
    "[first] a = Conv(x, w0)\nb = Reshape(a, flat)\nc = Softmax <axis = 2> (b)\n"
    "d = Reshape(c, map)\n"
    "[second] e = Conv(d, w1)\nf = Reshape(e, flat)\ng = Softmax <axis = 2> (f)\n"
    "h = Reshape(g, map)\n"
    "[out] y = Conv(h, w4)"
)
SHAPED_WEIGHTS = (
    "float[4,3,1,1] w0, float[4,4,1,1] w1, float[2,4,1,1] w4, int64[1] first_axis = {0}, "
    "int64[1] four = {4}, int64[1] rest = {-1}, int64[1] side = {6}"
)


@pytest.fixture
def shaped() -> bytes:
    return model_of(SHAPED, SHAPED_WEIGHTS)


def shapes_put_together(model: ir.Model) -> int:
    return sum(node.op_type == "Concat" for node in model.graph)


def test_a_shape_that_is_put_together_is_parted_and_joined_again(shaped: bytes) -> None:
    source = load_model(shaped)
    model = source.clone()
    uses = unshare(model)
    assert shapes_put_together(model) == 4
    reshare(model, uses)
    assert ir.to_proto(model) == ir.to_proto(source.clone())


def test_an_operator_of_another_domain_is_not_written_again(shaped: bytes) -> None:
    model = load_model(shaped).clone()
    for node in model.graph:
        if node.op_type == "Concat":
            node.domain = "custom"
    unshare(model)
    assert shapes_put_together(model) == 2


def test_a_shape_that_is_put_together_does_not_couple_its_users(shaped: bytes) -> None:
    analysis = analyse_bytes(shaped)
    assert analysis.is_prunable("first")
    assert analysis.is_prunable("second")
    dropped = np.zeros(analysis.classes.count, dtype=bool)
    dropped[analysis.classes.of_filters(analysis.convolution("second"))[:2]] = True
    cut = assert_cut_is_exact(analysis, dropped, np.random.default_rng(0))
    assert cut.dropped_filters == {"second": [0, 1]}
    assert shapes_put_together(cut.pruned) == 4, "each layer has a shape of its own now"
    for seed in range(3):
        assert_masked_equals_pruned(shaped, np.random.default_rng(seed))
