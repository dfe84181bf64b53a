"""What every operator does to channels, from one table: what may go, and what freezes and why.

A row is a piece of graph between two convolutions. Its expectation is what a person would say; the
pruned model is compared with the masked original for several random drops. The rows stand in the
`coupling_specs_*` modules.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graph_ops.rules import COUPLINGS
from graph_ops.rules.registry import MIXINGS
from tests.graph_ops.rules.coupling_rows import CouplingSpec, two
from tests.graph_ops.rules.coupling_specs_joining import (
    BROADCAST_SPECS,
    JOINING_SPECS,
    UNARY_SPECS,
)
from tests.graph_ops.rules.coupling_specs_shaping import (
    CONVOLUTION_SPECS,
    FROZEN_SPECS,
    RESHAPE_SPECS,
    SPATIAL_SPECS,
)
from tests.support.cutting import analyse_bytes, assert_masked_equals_pruned

SEEDS = (0, 1, 2)

COUPLING_SPECS = [
    *UNARY_SPECS,
    *BROADCAST_SPECS,
    *JOINING_SPECS,
    *CONVOLUTION_SPECS,
    *RESHAPE_SPECS,
    *SPATIAL_SPECS,
    *FROZEN_SPECS,
]

by_spec = pytest.mark.parametrize("spec", COUPLING_SPECS, ids=lambda spec: spec.id)


@by_spec
def test_what_may_go_is_what_a_person_expects(spec: CouplingSpec) -> None:
    analysis = analyse_bytes(spec.model)
    found = {
        name: analysis.class_count(name) if analysis.is_prunable(name) else 0
        for name in spec.prunable
    }
    reasons = {name: analysis.reasons(name) for name in spec.prunable}
    assert found == spec.prunable, reasons
    if spec.reason:
        names = [c.name for c in analysis.classes.channels.convolutions]
        all_reasons = set().union(*(analysis.reasons(name) for name in names))
        assert any(spec.reason in reason for reason in all_reasons), all_reasons


@by_spec
def test_pruned_equals_masked(spec: CouplingSpec) -> None:
    for seed in SEEDS:
        assert_masked_equals_pruned(
            spec.model, np.random.default_rng(seed), share=(0.3, 0.6, 1.0)[seed]
        )


@by_spec
def test_what_a_node_mixes_is_frozen(spec: CouplingSpec) -> None:
    classes = analyse_bytes(spec.model).classes
    channels = classes.channels
    for node in channels.model.graph:
        rule = MIXINGS.find(node.domain, node.op_type, channels.opset)
        if rule is None:
            continue
        for axis in rule(node, channels):
            labels = channels.axis(node.inputs[0], axis)
            assert labels is None or classes.is_frozen[classes.class_of[labels]].all()


def test_every_rule_has_a_row() -> None:
    covered = {
        node.op_type
        for spec in COUPLING_SPECS
        for node in onnx.ModelProto.FromString(spec.model).graph.node
    }
    assert set(COUPLINGS.op_types) - covered == set()


def test_what_meets_frozen_channels_is_frozen_for_their_reason() -> None:
    spec = two(
        "a gate of neighbours, then a sum",
        "c = CumSum(a, k)\nd = Mul(a, c)\nm = Add(d, b)",
        "int64 k = {1}",
    )
    reasons = analyse_bytes(spec.model).reasons("conv1b")
    assert reasons == {"CumSum 'c' runs along it"}
