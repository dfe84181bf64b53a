"""Trials of `rank_by: error_per_mac`: moments, and what lies before a cut run once."""

from __future__ import annotations

import numpy as np
import pytest

from graph_ops.options import parse_options
from graph_ops.pruning import prune
from graph_ops.recovery import moments, trials, walk
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.moments import Moments
from graph_ops.recovery.refit import refit
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.trials import Trials
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.run import Run, opened
from graph_ops.surgery import cut
from tests.support import digits


def test_what_others_are_mixtures_of_is_made_up_for() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(2, 400, 3)) + 1.0
    rows = np.concatenate([few, few @ rng.normal(size=(2, 3, 2)) + 0.5], axis=2)
    matrix = rng.normal(size=(2, 5, 4))
    seen = Moments()
    seen.add(rows[:, :150])
    seen.add(rows[:, 150:])
    kept = np.asarray([[True, True, True, False, False]] * 2)
    outputs = np.asarray([[True, False, True, True]] * 2)
    change = seen.make_up(matrix, kept, outputs, with_weights=True)
    assert change is not None
    assert change.weights is not None
    wanted = (rows @ matrix)[:, :, [0, 2, 3]]
    now = rows[:, :, :3] @ (matrix[:, :3][:, :, [0, 2, 3]])
    gap = wanted - now
    left = gap - change.predict(rows[:, :, :3])
    assert np.square(left).sum() < 1e-4 * np.square(gap).sum()
    shift = seen.make_up(matrix, kept, outputs, with_weights=False)
    assert shift is not None
    assert shift.weights is None
    np.testing.assert_allclose(shift.bias, gap.mean(axis=1))


def test_rows_fewer_than_they_are_wide_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "WIDE_RIDGE", moments.RIDGE)
    rng = np.random.default_rng(0)
    rows, matrix = rng.normal(size=(1, 20, 30)) + 1.0, rng.normal(size=(1, 30, 4))
    kept = np.arange(30)[None] % 3 > 0
    changes = []
    for is_wide in (False, True):
        seen = Moments(is_wide=is_wide)
        seen.add(rows[:, :12])
        seen.add(rows[:, 12:])
        changes.append(seen.make_up(matrix, kept, np.ones((1, 4)) > 0, with_weights=True))
    plain, dual = changes
    assert plain is not None
    assert dual is not None
    assert plain.weights is not None
    assert dual.weights is not None
    np.testing.assert_allclose(dual.weights, plain.weights, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(dual.bias, plain.bias, rtol=1e-3, atol=1e-4)


def test_groups_of_different_sizes_and_empty_ones_have_no_change() -> None:
    seen, matrix = Moments(), np.ones((2, 3, 1))
    seen.add(np.random.default_rng(0).normal(size=(2, 50, 3)))
    outputs = np.ones((2, 1), dtype=np.bool_)
    uneven = np.asarray([[True, True, False], [True, False, False]])
    assert seen.make_up(matrix, uneven, outputs, with_weights=True) is None
    assert seen.make_up(matrix, uneven & False, outputs, with_weights=True) is None


@pytest.mark.parametrize("method", [None, "reconstruct"])
def test_a_trial_is_about_a_cut_and_a_refit(method: str | None) -> None:
    """The error of each layer without half of it, against cutting and refitting all that follows.

    Without a refit both are the same; after one they are as near as a shorter refit allows.
    """
    run = Run(parse_options({"target": {"max_macs_ratio": 0.5}, "max_samples": 200}))
    with opened(run, digits.MODEL, digits.BUNDLE, None, None) as work:
        network, classes = work.network, work.network.classes
        samples = RefitSamples.draw(work.dataset, 0)
        assert samples is not None
        judge = Judge(classes.channels.model, samples.checked, None)
        nothing = np.zeros(classes.count, dtype=np.bool_)
        weights = RefittedWeights()
        bench = Trials(classes, nothing, weights, samples, judge, method, 0)
        bench.observe(range(classes.count))
        orders = network.selector.orders(np.arange(classes.count, dtype=float), ~nothing)
        goings = [[c for u in o.units[: o.droppable // 2] for c in u] for o in orders]
        places = [bench.place(g) for g in goings]
        assert len(set(places)) > 1
        for place, going in sorted(zip(places, goings, strict=True)):
            found = bench.squared_error(going, place)
            dropped = nothing.copy()
            dropped[going] = True
            model = cut(classes, dropped)
            plain = judge.verdict(model).error ** 2
            if method is None:
                assert found == pytest.approx(min(1.0, plain), rel=1e-4)
                continue
            before = CutNetwork(classes, dropped, weights, model)
            refit(before, samples, method, 0, lambda *_: None)
            best = judge.verdict(model).error ** 2
            assert found < plain
            assert found < best + 0.5 * (plain - best)


def test_a_layer_whose_moments_find_no_room_is_not_refitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"target": {"max_macs_ratio": 0.6}, "rank_by": "error_per_mac", "max_samples": 100}
    roomy = prune(digits.MODEL, digits.BUNDLE, options)
    monkeypatch.setattr(trials, "MOMENTS_BYTES", 0)
    narrow = prune(digits.MODEL, digits.BUNDLE, options)
    assert narrow.report["score"]["rank_by"] == "error_per_mac"
    assert narrow.model != roomy.model


def test_samples_that_are_not_held_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"target": {"max_macs_ratio": 0.6}, "rank_by": "error_per_mac", "max_samples": 100}
    held = prune(digits.MODEL, digits.BUNDLE, options)
    monkeypatch.setattr(walk, "HELD_BYTES", 0)
    assert prune(digits.MODEL, digits.BUNDLE, options).model == held.model
