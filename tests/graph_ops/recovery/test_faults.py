"""What stands in the way is said, the layer is left as it was, and the result is never worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graph_ops.recovery import acceptance, judge
from graph_ops.recovery.summary import LayerRecovery
from tests.support.cutting import model_of
from tests.support.recovering import Recovered, edited, random_inputs, recovered, stored

BODY = """
    a = Conv<pads=[1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    c = Conv(r, w2, b2)
    s = Relu(c)
    y = Conv(s, w3)
"""
WEIGHTS = """
    float[12,3,3,3] w1, float[12] b1, float[6,12,3,3] w2, float[6] b2, float[4,6,1,1] w3
"""
GOING = {"a": [0, 3, 5, 8, 9, 11]}


def network() -> bytes:
    return model_of(BODY, WEIGHTS)


def layers_of(result: Recovered) -> dict[str, LayerRecovery]:
    return {entry.name: entry for entry in result.recovery.layers}


def assert_never_worse(result: Recovered) -> None:
    recovery = result.recovery
    if recovery.output_error_before is not None:
        assert recovery.output_error_after is not None
        assert recovery.output_error_after <= recovery.output_error_before
    if recovery.method == "none":
        assert not recovery.weights


@pytest.mark.parametrize("method", ["bias", "reconstruct"])
def test_an_ordinary_network_gets_better_on_samples_it_has_not_seen(method: str) -> None:
    result = recovered(network(), GOING, method, samples=128)
    before, after = result.relative_errors(random_inputs(network(), 64, seed=5))
    assert_never_worse(result)
    assert result.recovery.method == method
    assert after < (0.95 if method == "bias" else 0.7) * before
    for layer in result.recovery.layers:
        assert layer.error_after is not None
        assert layer.error_before is not None
        assert layer.error_after <= layer.error_before


def test_too_few_samples_are_said_to_be_too_few() -> None:
    result = recovered(network(), GOING, samples=5)
    assert result.recovery.method == "none"
    assert "5 samples are too few" in result.recovery.notes[0]


def test_fewer_rows_than_inputs_are_said_to_be_few() -> None:
    body = "a = Conv<pads=[1,1,1,1]>(x, w1)\nf = Flatten(a)\ny = Gemm(f, w2)"
    model = model_of(body, "float[8,3,3,3] w1, float[288,4] w2")
    rng = np.random.default_rng(0)
    few = rng.standard_normal((40, 6)) @ rng.standard_normal((6, 108))
    inputs: dict[str, Any] = {"x": few.reshape(40, 3, 6, 6).astype(np.float32)}
    result = recovered(model, {"a": [1, 2, 5]}, inputs=inputs)
    (layer,) = result.recovery.layers
    assert layer.equations == "dual"
    assert layer.method == "reconstruct"
    assert layer.reason == (
        "32 rows are too few for its 180 inputs: the change is the smallest that fits them"
    )
    assert_never_worse(result)


def test_a_constant_input_moves_only_biases() -> None:
    inputs: dict[str, Any] = {"x": np.ones((40, 3, 6, 6), np.float32)}
    model = model_of("a = Conv(x, w1)\ny = Conv(a, w2)", "float[6,3,6,6] w1, float[4,6,1,1] w2")
    result = recovered(model, {"a": [0, 1]}, inputs=inputs)
    (layer,) = result.recovery.layers
    assert layer.method == "bias"
    assert layer.reason == "what it reads is constant, so only its bias can change"
    _, after = result.relative_errors(inputs)
    assert after < 1e-6


@pytest.mark.parametrize("method", ["bias", "reconstruct"])
def test_a_layer_that_is_not_finite_is_left_as_it_was(method: str) -> None:
    """c divides by zero, so nothing behind it can be compared; the other output is recovered."""
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        c = Conv(r, w2, b2)
        q = Div(r, zero)
        y = Conv(q, w3)
    """
    weights = """
        float[12,3,3,3] w1, float[12] b1, float[6,12,3,3] w2, float[6] b2, float[4,12,1,1] w3,
        float[1] zero = {0}
    """
    model = model_of(body, weights, outputs="c, y")
    result = recovered(model, GOING, method)
    layers = layers_of(result)
    assert layers["y"].method == "none"
    assert layers["y"].reason is not None
    assert "NaN or infinity" in layers["y"].reason
    assert result.recovery.method == "none"
    assert result.recovery.output_error_before is None
    assert "not finite" in result.recovery.notes[0]


@pytest.mark.parametrize("method", ["bias", "reconstruct"])
def test_a_layer_with_a_shared_weight_keeps_it(method: str) -> None:
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        c = Conv(r, w2)
        d = Conv<strides=[2,2]>(r, w2)
    """
    model = model_of(body, "float[12,3,3,3] w1, float[12] b1, float[6,12,3,3] w2", outputs="c, d")
    result = recovered(model, GOING, method, samples=96)
    assert "w2" not in result.recovery.weights.tensors
    assert set(result.recovery.weights.biases) == {"c", "d"}
    assert_never_worse(result)


def test_a_matmul_without_a_place_for_a_constant_is_said_to_have_none() -> None:
    body = "a = Conv(x, w1, b1)\nt = Transpose<perm=[0,2,3,1]>(a)\ny = MatMul(t, w2)"
    model = model_of(body, "float[8,3,3,3] w1, float[8] b1, float[8,4] w2")
    result = recovered(model, {"a": [1, 2]}, "bias")
    (layer,) = result.recovery.layers
    assert (layer.method, layer.reason) == ("none", "it has no bias and cannot be given one")
    assert result.recovery.notes == ("bias: no layer's error could be lowered",)


def test_channels_that_a_normalisation_multiplies_by_zero_keep_their_weights() -> None:
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1, b1)
        r = Relu(a)
        c = Conv(r, w2)
        y = BatchNormalization(c, g, o, mean, var)
    """
    weights = """
        float[12,3,3,3] w1, float[12] b1, float[6,12,3,3] w2,
        float[6] g, float[6] o, float[6] mean, float[6] var
    """
    model = model_of(body, weights)
    gamma = stored(model, "g").copy()
    gamma[2] = 0
    model = edited(model, g=gamma)
    result = recovered(model, GOING, samples=96)
    full = result.recovery.weights.tensors["w2"]
    np.testing.assert_array_equal(full[2], stored(model, "w2")[2])
    assert np.abs(full - stored(model, "w2")).max() > 1e-3
    assert np.isfinite(full).all()


@pytest.mark.parametrize(
    ("lost", "gained", "is_less"), [(0, 0, False), (3, 0, False), (9, 1, True), (30, 25, False)]
)
def test_agreement_is_lost_when_it_is_lost_by_more_than_chance(
    lost: int, gained: int, is_less: bool
) -> None:
    before = np.repeat([True, False, True], [lost, gained, 100])
    after = np.repeat([False, True, True], [lost, gained, 100])
    verdicts = [judge.Verdict(0.1, same) for same in (before, after)]
    assert verdicts[1].agrees_less(verdicts[0]) is is_less


def test_a_recovery_that_makes_the_outputs_worse_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layers may each get closer to the original while the outputs get further away."""
    refit = acceptance.refit

    def spoil(*arguments: Any) -> Any:
        weights, layers = refit(*arguments)
        model = arguments[0].model
        value = next(v for n, v in model.graph.initializers.items() if n == "w3")
        value.const_value = ir.tensor(value.const_value.numpy() * 50, name="w3")
        return weights, layers

    monkeypatch.setattr(acceptance, "refit", spoil)
    result = recovered(network(), GOING, samples=64)
    assert result.recovery.method == "none"
    assert len(result.recovery.notes) == 2
    assert result.recovery.notes[0].startswith("reconstruct: not kept, because")
    assert result.recovery.notes[1].startswith("bias: not kept, because")
    assert_never_worse(result)
