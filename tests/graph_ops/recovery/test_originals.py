"""The original's values are drawn once for the refits of a search or a curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_ops.network import TaylorPrunableNetwork
from graph_ops.pruning import prune
from graph_ops.recovery import originals, refit
from graph_ops.recovery.rows import draw
from graph_ops.recovery.walk import Walker
from tests.support import digits

CURVE: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.4},
    "points": 3,
    "rank_by": "score_per_mac",  # every point then refits the same layers
    "max_samples": 150,
    "on_unreachable": "best",
}


@pytest.mark.parametrize("count", [1, 7, 29, 30])
def test_a_smaller_draw_is_the_beginning_of_a_larger_one(count: int) -> None:
    few = draw(np.random.default_rng(3), 4, (5, 6), count)
    many = draw(np.random.default_rng(3), 4, (5, 6), count, pool=40)
    assert np.array_equal(few.first(count), many.first(count))
    assert few.is_whole == many.is_whole == (count == 30)


def test_values_are_picked_at_the_positions() -> None:
    drawn = draw(np.random.default_rng(3), 4, (5, 6), 7, pool=20)
    y = np.random.default_rng(4).normal(size=(4, 3, 5, 6))
    at = drawn.positions
    values = y[at[:, 0], :, at[:, 1], at[:, 2]].reshape(4, 20, 3)
    first = drawn.first(7)
    wanted = y[first[:, 0], :, first[:, 1], first[:, 2]]
    assert np.array_equal(drawn.pick(values, 7), wanted)


def test_the_original_is_run_for_the_first_point_of_a_curve_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked: list[object] = []

    class Counting(Walker):
        def run(self, *arguments: Any) -> Any:
            walked.append(self._model)
            return super().run(*arguments)

    monkeypatch.setattr(refit, "Walker", Counting)
    kept = prune(digits.MODEL, digits.BUNDLE, CURVE)
    with_kept = len(walked)
    walked.clear()
    monkeypatch.setattr(originals, "KEPT_BYTES", 0)
    again = prune(digits.MODEL, digits.BUNDLE, CURVE)
    assert [p.model for p in again.points] == [p.model for p in kept.points]
    layers = len(walked) // 6
    assert len(walked) == 6 * layers  # two networks, three points
    assert with_kept == 4 * layers


def test_a_run_with_one_recovery_keeps_nothing() -> None:
    assert TaylorPrunableNetwork(digits.MODEL, {}).originals is None
