"""Confidence intervals of a change: coverage, symmetry, and what little samples leave open."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_ops.metrics.intervals import paired_interval


def pair(both: int, gained: int, lost: int, neither: int) -> tuple[NDArray[np.float64], ...]:
    """Values before and after with these counts."""
    first = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    second = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    return np.asarray(first), np.asarray(second)


def test_no_change_on_few_samples_is_still_open() -> None:
    few, many = (paired_interval(*pair(n, 0, 0, 0)) for n in (30, 3000))
    assert few is not None
    assert many is not None
    assert few.change == many.change == 0
    assert few.high > 0.05
    assert many.high < 0.002


def test_swapping_the_models_mirrors_the_interval() -> None:
    there, back = paired_interval(*pair(80, 2, 7, 11)), paired_interval(*pair(80, 7, 2, 11))
    assert there is not None
    assert back is not None
    assert (there.change, there.low, there.high) == pytest.approx(
        (-back.change, -back.high, -back.low)
    )


def test_pairing_narrows_the_interval() -> None:
    together = paired_interval(*pair(88, 2, 4, 6))
    apart = paired_interval(*pair(84, 6, 8, 2))
    assert together is not None
    assert apart is not None
    assert together.change == pytest.approx(apart.change)
    assert together.high - together.low < apart.high - apart.low


@pytest.mark.parametrize("kind", ["binary", "continuous"])
def test_the_true_change_is_inside_as_often_as_promised(kind: str) -> None:
    rng = np.random.default_rng(3)
    inside = 0
    trials = 1000
    for _ in range(trials):
        if kind == "binary":
            cells = rng.choice(4, size=120, p=[0.88, 0.02, 0.05, 0.05])
            first = np.isin(cells, (0, 2)).astype(float)
            second = np.isin(cells, (0, 1)).astype(float)
        else:
            first = rng.normal(size=60)
            second = first + rng.normal(-0.03, 0.4, size=60)
        found = paired_interval(first, second)
        assert found is not None
        inside += found.low <= -0.03 <= found.high
    assert 0.93 <= inside / trials <= 0.985


def test_one_sample_says_nothing() -> None:
    assert paired_interval(np.ones(1), np.ones(1)) is None
