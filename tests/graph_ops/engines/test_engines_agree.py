"""Both engines give the same gradients for every row of the spec tables, and the same scores.

The rows are checked against finite differences elsewhere (`test_gradients_*`), so what agrees with
the `standard` engine here is right.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from graph_ops.canonical import SCORING_OPSET
from graph_ops.engines.ort_training.engine import OrtTrainingEngine
from graph_ops.engines.ort_training.lowering import NEWEST_OPSET
from graph_ops.engines.ort_training.rewrites import NATIVE, REWRITES
from graph_ops.engines.standard import StandardEngine
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.rules import GRADIENTS
from graph_ops.rules.zero import zero_gradient
from graph_ops.targets import goal_of
from tests.graph_ops.engines.spec_graphs import every_spec, spec_graph
from tests.graph_ops.rules.gradient_harness import GradientSpec
from tests.support import digits
from tests.support.models import each_network, light_input, light_network
from tests.support.training import needs_training

RELATIVE = 1e-4
RELATIVE_IN_DEPTH = 1e-3
"""Roundings of a hundred layers add up, in ways that differ between processors."""

pytestmark = needs_training


@pytest.fixture(scope="module")
def training() -> Iterator[OrtTrainingEngine]:
    """One child for all rows."""
    engine = OrtTrainingEngine()
    yield engine
    engine.close()


@pytest.mark.parametrize("spec", every_spec(), ids=str)
def test_gradients_agree(spec: GradientSpec, training: OrtTrainingEngine) -> None:
    graph, feeds = spec_graph(spec)
    expected_loss, _, expected = StandardEngine().open_activations(graph).run(feeds)
    loss, _, found = training.open_activations(graph).run(feeds)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-4)
    for name, gradient in expected.items():
        largest = np.abs(gradient).max()
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=RELATIVE * largest + 1e-30)


def test_every_differentiable_operator_is_native_or_rewritten() -> None:
    differentiable = {
        op_type
        for op_type in GRADIENTS.op_types
        for opset in (SCORING_OPSET, NEWEST_OPSET)
        if GRADIENTS.find("", op_type, opset) not in (None, zero_gradient)
    }
    differentiable.discard("Upsample")  # the scoring copy has Resize instead
    assert differentiable == NATIVE | set(REWRITES.op_types)
    assert not NATIVE & set(REWRITES.op_types)


def _scores_and_drops(network: TaylorPrunableNetwork) -> tuple[list[np.ndarray], list[list[int]]]:
    selection = network.select(goal_of(network, network.options, 1.0, 0))
    scores = [network.filter_scores(c) for c in network.convolutions]
    network.apply(selection)
    kept = [network.kept(c).tolist() for c in network.convolutions]
    network.close()
    return [np.zeros(0) if s is None else s for s in scores], kept


def _assert_equal_runs(
    first: tuple[list[np.ndarray], list[list[int]]],
    second: tuple[list[np.ndarray], list[list[int]]],
    relative: float = RELATIVE,
) -> None:
    assert len(first[0]) == len(second[0])
    compared = 0
    for expected, found in zip(first[0], second[0], strict=True):
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(known, ~np.isnan(found))
        if known.any():
            largest = expected[known].max()
            np.testing.assert_allclose(
                found[known], expected[known], rtol=0, atol=relative * largest
            )
            compared += int(largest > 0)
    assert compared > 0
    assert first[1] == second[1], "the engines drop different filters"


@pytest.mark.parametrize("gate", ["batch_norm", "convolution"])
def test_digits_scores_agree_and_the_same_filters_go(gate: str) -> None:
    runs = []
    for engine in ("standard", "ort-training"):
        options = {"engine": engine, "gate": gate, "target": {"max_macs_ratio": 0.6}}
        network = TaylorPrunableNetwork(digits.MODEL, options)
        for start in range(0, 256, 64):
            network.update_score(digits.batch(start, 64))
        runs.append(_scores_and_drops(network))
    _assert_equal_runs(*runs)


@pytest.mark.parametrize("name", each_network())
def test_network_scores_agree_and_the_same_filters_go(name: str) -> None:
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    model = light_network(name, shrink=16)
    runs = []
    for engine in ("standard", "ort-training"):
        options = {
            "engine": engine,
            "loss": "unlabelled",
            "target": {"max_macs_ratio": 0.8},
            "on_unreachable": "best",
        }
        network = TaylorPrunableNetwork(model, options, targets=None)
        network.update_score({light_input(name): images})
        runs.append(_scores_and_drops(network))
    _assert_equal_runs(*runs, RELATIVE_IN_DEPTH)
