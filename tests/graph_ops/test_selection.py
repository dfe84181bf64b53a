"""Which filters a target takes: multiples that suit runtimes, floors, and the last unit."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graph_ops.pruning import prune
from graph_ops.result import PruneResult

WIDTHS = (12, 32, 96, 128)
"""Filters of the convolutions; one layer below 16, one below 64, two above."""


def chain(widths: tuple[int, ...] = WIDTHS) -> bytes:
    """Convolutions of 3×3 with Relu between them, then a mean and ten logits."""
    rng = np.random.default_rng(1)
    nodes, initializers, before, value = [], [], 3, "image"
    for number, width in enumerate(widths):
        weight = rng.standard_normal((width, before, 3, 3)).astype(np.float32) / before
        initializers.append(numpy_helper.from_array(weight, f"w{number}"))
        nodes += [
            helper.make_node(
                "Conv", [value, f"w{number}"], [f"c{number}"], f"conv{number}", pads=[1] * 4
            ),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
        ]
        before, value = width, f"r{number}"
    weight = rng.standard_normal((before, 10)).astype(np.float32)
    initializers.append(numpy_helper.from_array(weight, "w"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def run(widths: tuple[int, ...] = WIDTHS, **options: Any) -> PruneResult:
    rng = np.random.default_rng(2)
    stream = io.BytesIO()
    np.savez(
        stream,
        image=rng.standard_normal((20, 3, 8, 8)).astype(np.float32),
        labels=rng.integers(0, 10, 20),
    )
    given = {"batch_size": 10, "recovery": "none", **options}
    return prune(chain(widths), stream.getvalue(), given)


def filters_of(result: PruneResult) -> list[int]:
    return [entry["filters_after"] for entry in result.report["convolutions"]]


@pytest.mark.parametrize("ratio", [0.9, 0.7, 0.5, 0.3])
def test_without_a_multiple_wide_layers_keep_counts_that_runtimes_like(ratio: float) -> None:
    narrow, fours, *eights = filters_of(run(target={"max_macs_ratio": ratio}))
    assert narrow <= 12
    assert fours % 4 == 0
    assert all(count % 8 == 0 for count in eights)
    assert (narrow, fours, *eights) != WIDTHS


@pytest.mark.parametrize(
    "options",
    [
        {"target": {"filters": 51}},
        {"target": {"filter_ratio": 0.811}},
        {"target": {"max_params_ratio": 0.777}},
        {"target": {"max_macs_ratio": 0.777}, "channel_multiple": 1},
        {"target": {"max_macs_ratio": 0.777}, "filters_per_step": 7},
    ],
    ids=["filters", "filter_ratio", "max_params_ratio", "channel_multiple", "filters_per_step"],
)
def test_counts_and_sizes_are_met_to_the_filter(options: dict[str, Any]) -> None:
    counts = filters_of(run(**options))
    assert any(count % 4 for count in counts[1:])


def test_a_multiple_that_nobody_asked_for_puts_no_target_out_of_reach() -> None:
    unreachable = {"target": {"max_macs_ratio": 1e-6}, "on_unreachable": "best"}
    least = run(**unreachable, channel_multiple=1)
    assert filters_of(least) == [4, 4, 4, 4]
    cost = least.report["cost"]
    ratio = cost["after"]["macs"] / cost["before"]["macs"]
    result = run(target={"max_macs_ratio": ratio + 1e-9})
    assert result.report["stop_reason"] == "target_reached"
    assert filters_of(result) == [4, 4, 4, 4]
    asked = run(**unreachable, channel_multiple=8)
    assert asked.report["stop_reason"] == "nothing_more_to_prune"
    assert filters_of(asked) == [8, 8, 8, 8]


def test_a_network_of_narrow_layers_is_cut_to_the_filter() -> None:
    counts = filters_of(run((20, 40, 60), target={"max_macs_ratio": 0.777}))
    assert any(count % 4 for count in counts)


def test_the_last_unit_is_the_cheapest_that_is_enough() -> None:
    """A few MACs are missing: the wide layers' eight filters would be the lowest by rank."""
    first = run((12, 96, 96), target={"max_macs_ratio": 0.8}, channel_multiple=8)
    cost = first.report["cost"]
    left = cost["after"]["macs"] / cost["before"]["macs"]
    result = run((12, 96, 96), target={"max_macs_ratio": left - 1e-4})
    after = result.report["cost"]["after"]["macs"] / cost["before"]["macs"]
    assert left - 1e-4 - 0.02 < after <= left - 1e-4
