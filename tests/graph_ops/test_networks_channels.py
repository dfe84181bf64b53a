"""Channels of real architectures: what a person expects to shrink may shrink, and exactly."""

from __future__ import annotations

import numpy as np
import pytest

from graph_ops.graph import graph_inputs
from tests.support.cutting import analyse_bytes, assert_masked_equals_pruned
from tests.support.models import light_network

SHRINK = 16
CONVOLUTIONS = {
    "bvlc_alexnet": 5,
    "densenet121": 121,
    "inception_v1": 57,
    "inception_v2": 69,
    "resnet50": 53,
    "shufflenet": 49,
    "squeezenet": 26,
    "vgg19": 16,
    "zfnet512": 5,
}
FROZEN = {
    "bvlc_alexnet": {"LRN": 2},
    "densenet121": {"graph output": 1},
    "inception_v1": {"LRN": 2},
    "squeezenet": {"Softmax": 1},
    "zfnet512": {"LRN": 2},
}
"""Convolutions that a person would not expect to shrink, by a word of the reason."""


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution_may_shrink_but_those_beside_a_mixing_operator(name: str) -> None:
    analysis = analyse_bytes(light_network(name, shrink=SHRINK))
    names = [c.name for c in analysis.classes.channels.convolutions]
    assert len(names) == CONVOLUTIONS[name]
    frozen = {n: analysis.reasons(n) for n in names if not analysis.is_prunable(n)}
    expected = FROZEN.get(name, {})
    found = {
        word: sum(all(word in reason for reason in reasons) for reasons in frozen.values())
        for word in expected
    }
    assert found == expected
    assert len(frozen) == sum(expected.values()), frozen


def test_residual_stages_are_coupled_and_bottlenecks_are_not() -> None:
    analysis = analyse_bytes(light_network("resnet50", shrink=SHRINK))
    classes = analysis.classes
    members: dict[int, int] = {}
    for convolution in classes.channels.convolutions:
        first = int(classes.of_filters(convolution)[0])
        members[first] = members.get(first, 0) + 1
    # A stage of b blocks sums b convolutions and its projection; each block has two of its own.
    stages = (3, 4, 6, 3)
    assert sorted(members.values()) == sorted([b + 1 for b in stages] + [1] * (2 * sum(stages) + 1))


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "densenet121", "resnet50"])
def test_random_cuts_are_exact(name: str) -> None:
    model = light_network(name, shrink=SHRINK)
    cut = assert_masked_equals_pruned(model, np.random.default_rng(0), share=0.3, batch=1)
    assert len(cut.dropped_filters) > 20
    assert len(graph_inputs(cut.pruned.graph)) == 1
