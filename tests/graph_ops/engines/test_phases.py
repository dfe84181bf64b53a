"""What only a depthwise convolution of stride 2 reads is computed as its four phases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork
from graph_ops.engines.standard import StandardEngine

NARROW, WIDE = 4, 16
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[N, 3, %d, %d] x) => (float[N, 5] y)
<float low = {0.0}, float high = {1.5}, float three = {3.0}>
{
  n = Conv <pads = [1, 1, 1, 1]> (x, w0)
  a = Conv (n, w1, b1)
  %s
  d = Conv <group = 16, %s> (c, w2, b2)
  %s
  f = Conv (e, w3)
  g = Relu (f)
  h = GlobalAveragePool (g)
  y = Flatten (h)
}
"""
ACTIVATIONS = {
    "none": "c = Mul (a, three)",
    "relu": "c = Relu (a)",
    "clip": "c = Clip (a, low, high)",
    "swish": "s = Sigmoid (a) c = Mul (s, a)",
    "hardswish": "s = Add (a, three) t = Clip (s, low, high) c = Mul (a, t)",
    "batch_norm": "m = BatchNormalization (a, scale, b1, b1, var) c = LeakyRelu <alpha = 0.1> (m)",
}
PAIRS = "strides = [2, 2]"
SIDE = (10, 12)


def network(
    activation: str = "relu",
    window: str = f"{PAIRS}, pads = [1, 1, 1, 1]",
    *,
    kernel: tuple[int, int] = (3, 3),
    behind: str = "e = Relu (d)",
    side: tuple[int, int] = SIDE,
    narrow: int = NARROW,
    also: dict[str, tuple[int, ...]] | None = None,
) -> bytes:
    text = GRAPH % (*side, ACTIVATIONS.get(activation, activation), window, behind)
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"w0": (narrow, 3, 3, 3), "w1": (WIDE, narrow, 1, 1)}
    shapes |= {"w2": (WIDE, 1, *kernel), "w3": (5, WIDE, 1, 1)}
    shapes |= dict.fromkeys(("b1", "b2", "scale", "var"), (WIDE,))
    for name, shape in (shapes | (also or {})).items():
        array = rng.uniform(0.5, 1.5, shape) if name == "var" else rng.standard_normal(shape)
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def batch(side: tuple[int, int] = SIDE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((6, 3, *side)).astype(np.float32)
    return {"x": images, "labels": rng.integers(0, 5, 6)}


def opened(model: bytes, side: tuple[int, int] = SIDE, **options: Any) -> TaylorPrunableNetwork:
    scored = TaylorPrunableNetwork(model, {"engine": "standard", **options})
    scored.update_score(batch(side))
    return scored


def is_taken_apart(scored: TaylorPrunableNetwork) -> bool:
    """Whether the scoring graph splits a tensor, which these networks never do themselves."""
    graph = scored.scorer.graph
    assert graph is not None
    nodes = list(StandardEngine().build(graph).model.graph)
    windows = [n.attributes["strides"].as_ints() for n in nodes if "strides" in n.attributes]
    is_apart = any(node.op_type == "Split" for node in nodes)
    assert not (is_apart and [2, 2] in [list(w) for w in windows])
    return is_apart


def assert_scores_are_plain(scored: TaylorPrunableNetwork, side: tuple[int, int] = SIDE) -> None:
    """Those of activations and gradients, which are never taken apart."""
    found = scored.scores()
    scored.clear_scores()
    scored.update_score(*scored.forward_backward(batch(side)))
    expected = scored.scores()
    assert np.nanmax(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.nanmax(expected))


@pytest.mark.parametrize("gate", ["batch_norm", "convolution"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_scores_in_phases_are_those_of_the_whole(activation: str, gate: str) -> None:
    scored = opened(network(activation), gate=gate)
    assert is_taken_apart(scored)
    assert_scores_are_plain(scored)


WINDOWS = [
    ((3, 3), f"{PAIRS}, pads = [1, 1, 1, 1]"),
    ((3, 3), f"{PAIRS}, pads = [0, 0, 1, 1]"),
    ((3, 3), f'{PAIRS}, auto_pad = "SAME_UPPER"'),
    ((3, 3), f'{PAIRS}, auto_pad = "SAME_LOWER"'),
    ((5, 5), f"{PAIRS}, pads = [2, 2, 2, 2]"),
    ((5, 3), f"{PAIRS}, pads = [2, 1, 2, 1]"),
    ((2, 2), PAIRS),
    ((4, 4), f"{PAIRS}, pads = [1, 1, 1, 1]"),
    ((7, 7), f"{PAIRS}, pads = [3, 3, 3, 3]"),
    ((2, 6), f"{PAIRS}, pads = [0, 3, 0, 4]"),
]


@pytest.mark.parametrize(("kernel", "window"), WINDOWS)
def test_windows_of_every_kind(kernel: tuple[int, int], window: str) -> None:
    scored = opened(network("swish", window, kernel=kernel))
    assert is_taken_apart(scored)
    assert_scores_are_plain(scored)


@pytest.mark.parametrize("behind", ["e = Clip (d, low, high)", "s = Sigmoid (d) e = Mul (d, s)"])
def test_what_follows_reads_the_sum(behind: str) -> None:
    scored = opened(network(behind=behind))
    assert is_taken_apart(scored)
    assert_scores_are_plain(scored)


def test_a_region_that_begins_where_another_ends() -> None:
    behind = f"q = Conv (d, w4) r = Relu (q) e = Conv <group = 32, {PAIRS}> (r, w5)"
    weights = {"w3": (5, 32, 1, 1), "w4": (32, WIDE, 1, 1), "w5": (32, 1, 2, 2)}
    side = (8, 12)
    model = network("relu", PAIRS, kernel=(2, 2), behind=behind, side=side, also=weights)
    scored = opened(model, side)
    assert is_taken_apart(scored)
    assert_scores_are_plain(scored, side)


LEFT_WHOLE: dict[str, dict[str, Any]] = {
    "stride 1": {"window": "pads = [1, 1, 1, 1]"},
    "another stride": {"window": "strides = [2, 1], pads = [1, 1, 1, 1]"},
    "dilated": {"window": f"{PAIRS}, dilations = [2, 2], pads = [2, 2, 2, 2]"},
    "no taps in a phase": {"window": PAIRS, "kernel": (1, 1)},
    "the last phases are cut": {"window": PAIRS, "kernel": (2, 3)},
    "the last phases are cut behind padding": {"window": f"{PAIRS}, pads = [2, 1, 0, 1]"},
    "odd": {"side": (11, 12)},
    "hardly widened": {"narrow": 9},
    "another reader": {"behind": "i = GlobalAveragePool (c) j = Relu (d) e = Add (i, j)"},
    "another operator": {"activation": "t = MaxPool <kernel_shape = [1, 1]> (a) c = Relu (t)"},
    "a factor a channel": {"activation": "t = GlobalAveragePool (a) c = Mul (a, t)"},
    "two widened": {"activation": "t = Conv (n, w1) c = Add (a, t)"},
}


@pytest.mark.parametrize("case", LEFT_WHOLE)
def test_what_else_there_is_stays_whole(case: str) -> None:
    changes = LEFT_WHOLE[case]
    side = changes.get("side", SIDE)
    scored = opened(network(**changes), side)
    assert not is_taken_apart(scored)
    assert_scores_are_plain(scored, side)
