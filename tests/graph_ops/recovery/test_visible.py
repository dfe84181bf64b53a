"""What is hidden behind a Relu or Clip is not fitted: ranges, the regression, networks."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops.recovery import refinement
from graph_ops.recovery.gram import NormalEquations
from graph_ops.recovery.refinement import KeptRows, refine
from graph_ops.recovery.ridge import HeldOut, choose
from graph_ops.recovery.visible import Visible, visible
from graph_ops.runtime import Array
from tests.support.cutting import model_of
from tests.support.recovering import random_inputs, recovered

SHAPE = "float[N,3,6,6] x"
EVERYTHING = (-math.inf, math.inf)

READERS = {
    "relu": ("y = Relu(v)", "", (0.0, math.inf)),
    "clip": ("y = Clip(v, low, high)", "float low = {0}, float high = {6}", (0.0, 6.0)),
    "clip without a minimum": ("y = Clip(v, , high)", "float high = {2}", (-math.inf, 2.0)),
    "clip of computed bounds": ("m = ReduceMax<keepdims=0>(v)\ny = Clip(v, m)", "", EVERYTHING),
    "two relus": ("a = Relu(v)\nb = Relu(v)\ny = Add(a, b)", "", (0.0, math.inf)),
    "relu and clip": (
        "a = Relu(v)\nb = Clip(v, low, high)\ny = Add(a, b)",
        "float low = {-1}, float high = {6}",
        (-1.0, math.inf),
    ),
    "relu and another": ("a = Relu(v)\ny = Add(a, v)", "", EVERYTHING),
    "leaky relu": ("y = LeakyRelu(v)", "", EVERYTHING),
}


def loaded(model: bytes) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(model))


@pytest.mark.parametrize("kind", READERS)
def test_what_readers_see(kind: str) -> None:
    body, constants, expected = READERS[kind]
    weights = ", ".join(part for part in ("float[4,3,1,1] w", constants) if part)
    model = loaded(model_of(f"v = Conv(x, w)\n{body}", weights, SHAPE))
    found = visible(next(n.outputs[0] for n in model.graph if n.op_type == "Conv"))
    assert (found.low, found.high) == expected
    assert found.is_everything == (expected == EVERYTHING)


def test_a_graph_output_shows_everything() -> None:
    model = loaded(model_of("y = Conv(x, w)", "float[4,3,1,1] w", SHAPE))
    assert visible(model.graph.outputs[0]).is_everything


def test_the_nearest_value_that_looks_the_same() -> None:
    found = np.array([-3.0, 1.0, 5.0, 9.0, 7.0, 2.0])
    wanted = np.array([-1.0, -1.0, 2.0, 8.0, 3.0, 8.0])
    seen = Visible(0.0, 6.0)
    np.testing.assert_equal(seen.nearest(found, wanted), [-3.0, 0.0, 2.0, 9.0, 3.0, 6.0])
    np.testing.assert_equal(seen.shown(found), [0.0, 1.0, 5.0, 6.0, 6.0, 2.0])


def hidden_noise(rows: int) -> tuple[Array, Array]:
    """Rows, and targets that are affine in them where positive, and noise elsewhere."""
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((1, rows, 6))
    values = x @ np.random.default_rng(0).standard_normal((1, 6, 3)) + 0.3
    return x, np.where(values > 0, values, -3 * rng.random(values.shape))


def test_what_is_hidden_does_not_cost_what_is_seen() -> None:
    equations, kept, held_out = NormalEquations(), KeptRows(), HeldOut(Visible(low=0.0))
    x, wanted = hidden_noise(2000)
    for begin in range(0, 2000, 500):
        part = slice(begin, begin + 500)
        equations.add(x[:, part], wanted[:, part])
        kept.add(x[:, part], np.zeros_like(wanted[:, part]), wanted[:, part])
    x, wanted = hidden_noise(400)
    held_out.add(x, wanted, wanted)
    choice = choose(equations, held_out, ridges=(1e-6, 1e-3))
    refined = refine(choice, equations, equations, kept, held_out)
    assert refined.change is not None
    assert refined.after == pytest.approx(held_out.error(refined.change))
    assert refined.after < 0.5 * choice.after


def test_a_layer_of_too_many_rows_keeps_its_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "KEPT_BYTES", 1000)
    kept = KeptRows()
    kept.add(*(np.zeros((1, 20, 3)),) * 3)
    assert kept.is_complete
    kept.add(*(np.zeros((1, 20, 3)),) * 3)
    assert not kept.is_complete


@pytest.mark.parametrize("reader", ["Relu(c)", "Clip(c, low, high)"])
def test_a_network_comes_closer_when_only_what_is_seen_is_fitted(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"a = Conv<pads=[1,1,1,1]>(x, w1)\nr = Relu(a)\nc = Conv(r, w2, b2)\ny = {reader}"
    weights = "float[8,3,3,3] w1, float[5,8,3,3] w2, float[5] b2"
    clipped = f"{weights}, float low = {{-1}}, float high = {{1}}"
    model = model_of(body, weights if reader.startswith("Relu") else clipped, SHAPE)
    errors = []
    for rounds in (0, refinement.ROUNDS):
        monkeypatch.setattr(refinement, "ROUNDS", rounds)
        result = recovered(model, {"a": [1, 3, 5]}, samples=192)
        errors.append(result.relative_errors(random_inputs(model, 64, seed=9))[1])
        assert result.recovery.method == "reconstruct"
    assert errors[1] < 0.99 * errors[0]
