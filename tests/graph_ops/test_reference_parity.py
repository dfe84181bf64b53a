"""Parity with MATLAB's reference example (DESIGN section 10) and with finite differences."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graph_ops.network import TaylorPrunableNetwork
from tests.support import digits


@pytest.fixture
def network() -> TaylorPrunableNetwork:
    return TaylorPrunableNetwork(digits.MODEL)


def test_forty_eight_filters_are_prunable(network: TaylorPrunableNetwork) -> None:
    assert network.num_prunables == 48
    assert network.count_filters() == 60


def test_one_default_update_leaves_forty_and_the_next_layers_inputs_match(
    network: TaylorPrunableNetwork,
) -> None:
    network.update_score(digits.batch(0, 128))
    network.update_prunables()
    assert network.num_prunables == 40
    model = onnx.load(io.BytesIO(network.to_model()))
    onnx.checker.check_model(model, full_check=True)
    shape = {i.name: tuple(numpy_helper.to_array(i).shape) for i in model.graph.initializer}
    counts = [shape[f"{name}.weight"][0] for name in digits.CONVOLUTIONS]
    assert sum(counts) == 60 - 8
    assert shape["conv2.weight"][1] == counts[0]
    assert shape["conv3.weight"][1] == counts[1]
    assert shape["fc.weight"][1] == counts[2] * 24 * 24
    for number, count in enumerate(counts, start=1):
        for vector in ("weight", "bias", "running_mean", "running_var"):
            assert shape[f"bn{number}.{vector}"] == (count,)
        assert shape[f"conv{number}.bias"] == (count,)


def test_updating_until_nothing_is_left_keeps_the_floor(network: TaylorPrunableNetwork) -> None:
    batch = digits.batch(0, 16)
    while network.num_prunables:
        network.update_score(batch)
        network.update_prunables(max_to_prune=16)
    assert [network.kept(c).size for c in network.convolutions] == [4, 4, 4]


@pytest.mark.parametrize("gate", ["batch_norm", "convolution"])
def test_the_two_ways_to_update_scores_agree(gate: str) -> None:
    network = TaylorPrunableNetwork(digits.MODEL, {"gate": gate})
    batch = digits.batch()
    activations, gradients = network.forward_backward(batch)
    assert {n: a.shape for n, a in activations.items()} == {
        n: g.shape for n, g in gradients.items()
    }
    network.update_score(activations, gradients)
    explicit = network.scores()
    fast = TaylorPrunableNetwork(digits.MODEL, {"gate": gate})
    fast.update_score(batch)
    scored = ~np.isnan(explicit)
    assert scored.sum() == 60
    np.testing.assert_allclose(fast.scores()[scored], explicit[scored], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("gate", ["batch_norm", "convolution"])
def test_scores_are_the_derivative_of_the_loss_in_a_gate(gate: str) -> None:
    """d loss_n / d gate_k by central differences of an independent float64 forward.

    The gate multiplies the convolution's output, or the output of its BatchNormalization.
    """
    network = TaylorPrunableNetwork(digits.MODEL, {"gate": gate})
    count, step = 3, 1e-6
    batch = digits.batch(0, count)
    weights = digits.weights()
    _, parts = _contributions(network, batch)
    for name, found in zip(digits.CONVOLUTIONS, parts, strict=True):
        scale = np.abs(found).max()
        for filter_index in range(0, 20, 3):
            ends = []
            for sign in (1, -1):
                factors = np.ones(20)
                factors[filter_index] += sign * step
                place = {name if gate == "convolution" else f"bn{name[-1]}": factors}
                ends.append(digits.losses(weights, batch["image"], batch["labels"], place))
            expected = (ends[0] - ends[1]) / (2 * step)
            np.testing.assert_allclose(
                found[:, filter_index], expected, rtol=2e-3, atol=2e-4 * scale
            )


def _contributions(
    network: TaylorPrunableNetwork, batch: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    activations, gradients = network.forward_backward(batch)
    explicit = network.scorer.reduce(activations, gradients)
    losses, fast = network.scorer.contributions(network.scorer.as_batch(batch))
    for a, b in zip(explicit, fast, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())
    return losses, fast


def test_half_the_batches_merged_equal_all_of_them() -> None:
    whole, first, second = (TaylorPrunableNetwork(digits.MODEL) for _ in range(3))
    whole.update_score(digits.batch(0, 16))
    whole.update_score(digits.batch(16, 16))
    first.update_score(digits.batch(0, 16))
    second.update_score(digits.batch(16, 16))
    merged = first.state.merge(second.state)
    assert merged.samples == whole.state.samples == 32
    np.testing.assert_array_equal(merged.sum_abs, whole.state.sum_abs)


def test_the_mean_loss_is_known_from_batches_and_not_from_gradients(
    network: TaylorPrunableNetwork,
) -> None:
    batch = digits.batch(0, 8)
    network.update_score(batch)
    expected = digits.losses(digits.weights(), batch["image"], batch["labels"]).mean()
    assert network.state.mean_loss == pytest.approx(expected, rel=1e-4)
    network.update_score(*network.forward_backward(batch))
    assert network.state.mean_loss is None
