"""The drop as other samples would show it, estimated with soft values."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_ops.metrics import Comparison, Metric
from graph_ops.runtime import Array

BIAS = 0.005


def unused(found: Array, original: Array, targets: Array | None) -> NDArray[np.float64]:
    raise AssertionError


METRIC = Metric("accuracy", None, True, unused)


def drawn(rng: np.random.Generator, samples: int, drop: float) -> Comparison:
    """Two classifiers whose probabilities are right; the second's are lower by `drop`.

    Their answers hang together as those of a network and its cut do: of one draw per sample.
    """
    first = rng.beta(4, 1, samples) * (1 - drop) + drop
    second = np.clip(first - drop * rng.uniform(-9, 11, samples), 0, 1)
    draw = rng.random(samples)
    hard = [(draw < p).astype(np.float64) for p in (first, second)]
    return Comparison(METRIC, hard[0], hard[1], first, second)


def test_the_estimate_is_nearer_to_the_truth_than_the_drop_on_few_samples() -> None:
    rng = np.random.default_rng(0)
    few = [drawn(rng, 300, 0.01) for _ in range(300)]
    truth = drawn(rng, 1_000_000, 0.01).drop
    by_drop, by_estimate = (
        np.sqrt(np.mean(np.square(np.asarray(values) - truth)))
        for values in ([c.drop for c in few], [c.estimate_drop(BIAS) for c in few])
    )
    assert by_estimate < 0.75 * by_drop


def test_with_many_samples_the_drop_is_what_counts() -> None:
    many = drawn(np.random.default_rng(1), 200_000, 0.02)
    biased = Comparison(METRIC, many.before, many.after, many.soft_before, many.soft_before)
    assert biased.estimate_drop(BIAS) == pytest.approx(many.drop, rel=0.02)


def test_without_soft_values_the_estimate_is_the_drop() -> None:
    before, after = np.asarray([1.0, 1.0, 0.0, 1.0]), np.asarray([1.0, 0.0, 0.0, 1.0])
    nothing = np.empty(0)
    assert Comparison(METRIC, before, after, nothing, nothing).estimate_drop(BIAS) == 0.25


def test_where_nothing_differed_soft_values_are_not_silenced() -> None:
    right = np.ones(100)
    soft = np.full(100, 0.9)
    estimate = Comparison(METRIC, right, right, soft, soft - 0.02).estimate_drop(BIAS)
    assert 0.01 < estimate < 0.02
