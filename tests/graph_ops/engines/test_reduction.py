"""Scores summed inside the graph are those of plain activations and gradients."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from graph_ops import TaylorPrunableNetwork

GRAPH = """
<ir_version: 9, opset_import: ["" : 17]>
agraph (float[N, 3, 8, 8] x) => (float[N, 5] y)
<float low = {%s}, float high = {%s}>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  b = BatchNormalization (a, scale, bias, mean, var)
  c = Clip (b, low, high)
  d = Conv (c, w2)
  e = GlobalAveragePool (d)
  y = Flatten (e)
}
"""


def clipped(low: float, high: float) -> bytes:
    """Conv, BatchNormalization, Clip, Conv; with gradients on both sides of both bounds."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH % (low, high))
    shapes = {"w1": (16, 3, 3, 3), "w2": (5, 16, 1, 1)}
    shapes |= dict.fromkeys(("scale", "bias", "mean", "var"), (16,))
    for name, shape in shapes.items():
        array = rng.uniform(0.5, 1.5, shape) if name == "var" else rng.standard_normal(shape)
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return model.SerializeToString()


def batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((size, 3, 8, 8)).astype(np.float32)
    return {"x": images, "labels": rng.integers(0, 5, size)}


@pytest.mark.parametrize("gate", ["batch_norm", "convolution"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-0.5, 0.75), (0.25, 2.0)])
@pytest.mark.parametrize("engine", ["standard", "ort-training"])
def test_a_filter_before_a_clip_has_its_score(
    engine: str, low: float, high: float, gate: str
) -> None:
    networks = []
    for _ in range(2):
        options = {"engine": engine, "gate": gate}
        networks.append(TaylorPrunableNetwork(clipped(low, high), options))
    summed, plain = networks
    summed.update_score(batch(6))
    plain.update_score(*plain.forward_backward(batch(6)))
    found, expected = summed.scores(), plain.scores()
    for network in networks:
        network.close()
    assert np.nanmax(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.nanmax(expected))


def test_what_comes_of_a_batch_does_not_depend_on_those_before_it() -> None:
    alone, later = (TaylorPrunableNetwork(clipped(0.0, 6.0)) for _ in range(2))
    for size in (7, 3):
        later.update_score(batch(size))
    later.drop_classes(np.zeros_like(later.dropped))  # scores start again, the graph as well
    for size in (7, 3, 5, 7):
        later.update_score(batch(size))
    for size in (7, 5, 7, 3):
        alone.update_score(batch(size))
    np.testing.assert_array_equal(later.scores(), alone.scores())
