"""The mask of a Clip is exact next to its bounds, in and out of the blocked layout."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph_ops.rules.gradient_harness import (
    GradientSpec,
    build_model,
    gradient_name,
    open_session,
    with_loss_and_gradients,
)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("high", [6.0, 1.0, 0.1, 1.7, 3e5])
def test_a_gradient_passes_between_the_bounds_and_nowhere_else(channels: int, high: float) -> None:
    h = np.float32(high)
    edges = [0.0, -1e-20, 1e-20, h, np.nextafter(h, 0), np.nextafter(h, 2 * h), h / 2, -h, 2 * h]
    rng = np.random.default_rng(0)
    shape = (1, channels, 8, 8)
    x = rng.uniform(-0.5 * high, 1.5 * high, shape).astype(np.float32)
    x.reshape(-1)[: len(edges)] = edges
    weights = {"lo": np.float32(0), "hi": h}
    spec = GradientSpec("mask", "y = Clip(x, lo, hi)", {"x": shape}, _arrays(weights))
    _, backward = with_loss_and_gradients(spec, build_model(spec), rng)
    (gradient,) = open_session(backward).run([gradient_name("x")], {"x": x})
    np.testing.assert_array_equal(gradient != 0, (x > 0) & (x < h))
    assert np.abs(gradient[gradient != 0]).min() >= 0.5  # the harness' weights, none diminished


def _arrays(numbers: dict[str, np.float32]) -> dict[str, np.ndarray]:
    return {name: np.asarray(number) for name, number in numbers.items()}
