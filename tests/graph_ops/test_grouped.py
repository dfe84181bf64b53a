"""Grouped convolutions between normalisations that tie the channels of a group to each other."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork, prune
from graph_ops.edits import NarrowGroups

GROUPS = 4
WIDTH = 4
TIED = "GroupNormalization <num_groups = 4>"
NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 3, 8, 8] x) => (float[N, 5] y)
{
  a = Conv (x, w0)
  b = %s
  c = Relu (b)
  d = Conv <group = 4, pads = [1, 1, 1, 1]> (c, w1)
  e = %s
  f = Relu (e)
  g = Conv (f, w2)
  h = GlobalAveragePool (g)
  y = Flatten (h)
}
"""


def model(is_input_tied: bool = True, is_output_tied: bool = True) -> bytes:
    """Convolution, normalisation, grouped convolution, normalisation, convolution."""
    rng = np.random.default_rng(0)
    first = f"{TIED} (a, s0, t0)" if is_input_tied else "Identity (a)"
    second = f"{TIED} (d, s1, t1)" if is_output_tied else "Identity (d)"
    parsed = onnx.parser.parse_model(NETWORK % (first, second))
    inputs, filters = GROUPS * WIDTH, GROUPS * 6
    shapes = {"w0": (inputs, 3, 1, 1), "w1": (filters, WIDTH, 3, 3), "w2": (5, filters, 1, 1)}
    shapes |= {"s0": (inputs,), "t0": (inputs,), "s1": (filters,), "t1": (filters,)}
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        parsed.graph.initializer.append(numpy_helper.from_array(array, name))
    return bytes(parsed.SerializeToString())


def bundle() -> bytes:
    rng = np.random.default_rng(1)
    stream = io.BytesIO()
    images = rng.standard_normal((40, 3, 8, 8)).astype(np.float32)
    np.savez(stream, x=images, labels=rng.integers(0, 5, 40))
    return stream.getvalue()


def frozen(content: bytes) -> dict[str, str | None]:
    """Why a convolution is left alone, by name of its output."""
    network = TaylorPrunableNetwork(content, {"min_filters": 1})
    return {
        str(c.node.outputs[0].name): network.reason(c)
        for c in network.classes.channels.convolutions
    }


@pytest.mark.parametrize("recovery", ["none", "reconstruct"])
def test_whole_groups_go_with_what_they_read(recovery: str) -> None:
    options: dict[str, Any] = {
        "target": {"max_macs_ratio": 0.55},
        "recovery": recovery,
        "min_filters": 1,
        "channel_multiple": 1,
    }
    result = prune(model(), bundle(), options)
    pruned = onnx.load_model_from_string(result.model)
    node = pruned.graph.node[3]
    (groups,) = (a.i for a in node.attribute if a.name == "group")
    weights = {t.name: tuple(t.dims) for t in pruned.graph.initializer}
    assert 0 < groups < GROUPS
    assert weights["w1"] == (groups * 6, WIDTH, 3, 3)
    assert weights["w0"][0] == groups * WIDTH
    assert result.report["proof"]["max_rel_diff"] <= 1e-4
    after = result.report["cost"]["after"]
    anew = TaylorPrunableNetwork(result.model)
    macs, parameters, _ = anew.cost.totals(anew.dropped)
    assert after["macs"] == macs
    assert recovery == "reconstruct" or after["parameters"] == parameters  # it may add a bias


def test_scores_of_a_group_come_again_when_it_is_cut() -> None:
    network = TaylorPrunableNetwork(model(), {"min_filters": 1, "engine": "standard"})
    with np.load(io.BytesIO(bundle())) as arrays:
        feeds = dict(arrays)
    network.update_score(feeds)
    network.update_prunables(WIDTH + 6)
    network.update_score(feeds)
    assert np.isfinite(network.scores()[network.alive]).any()


def test_a_side_that_is_tied_alone_stays_and_tells_why() -> None:
    both = frozen(model())
    assert both["a"] is None
    assert both["d"] is None
    only_input = frozen(model(is_output_tied=False))
    assert "equally many in every group" in str(only_input["a"])
    assert only_input["d"] is None
    only_output = frozen(model(is_input_tied=False))
    assert only_output["a"] is None
    assert "equally many in every group" in str(only_output["d"])


def test_free_channels_are_still_balanced() -> None:
    network = TaylorPrunableNetwork(model(False, False), {"min_filters": 1})
    assert network.classes.balances.is_bound.any()
    assert [type(edit) for edit in network.classes.channels.edits] == [NarrowGroups]
