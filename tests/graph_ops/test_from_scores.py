"""Cuts from saved scores without a bundle, and scores that add up to the bit."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graph_ops.errors import OptionsError, ScoreStateError, UnreachableTargetError
from graph_ops.from_scores import cut_from_scores, merge_states
from graph_ops.pruning import prune, score
from graph_ops.scores import ScoreState
from tests.support import digits

OPTIONS: dict[str, Any] = {"validation_fraction": 0.0, "batch_size": 32}


def bundle(begin: int, end: int) -> bytes:
    stream = io.BytesIO()
    with np.load(digits.BUNDLE) as data:
        np.savez(stream, image=data["image"][begin:end], labels=data["labels"][begin:end])
    return stream.getvalue()


@pytest.fixture(scope="module")
def whole() -> ScoreState:
    return score(digits.MODEL, bundle(0, 150), OPTIONS)


def test_parts_in_any_order_equal_the_whole_bit_for_bit(whole: ScoreState, tmp_path: Path) -> None:
    parts = [
        score(digits.MODEL, bundle(begin, end), OPTIONS)
        for begin, end in ((0, 61), (61, 75), (75, 150))
    ]
    whole.save(tmp_path / "whole.npz")
    for number, order in enumerate(((0, 1, 2), (2, 0, 1), (1, 2, 0))):
        paths = []
        for i in order:
            paths.append(tmp_path / f"part{i}.npz")
            parts[i].save(paths[-1])
        merged = merge_states(paths)
        merged.save(tmp_path / f"merged{number}.npz")
        assert (tmp_path / f"merged{number}.npz").read_bytes() == (
            tmp_path / "whole.npz"
        ).read_bytes()


def test_a_cut_from_scores_drops_what_a_run_drops(whole: ScoreState, tmp_path: Path) -> None:
    options = OPTIONS | {"target": {"max_macs_ratio": 0.5}, "recovery": "none"}
    whole.save(tmp_path / "s.npz")
    alone = cut_from_scores(digits.MODEL, ScoreState.load(tmp_path / "s.npz"), options)
    with_bundle = prune(digits.MODEL, bundle(0, 150), options)
    assert alone.model == with_bundle.model
    assert alone.report["proof"]["inputs"] == "random"
    assert alone.report["recovery"] is None
    assert alone.report["rounds"] == []


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 3},
        {"filters_per_step": 2},
        {"points": 3},
        {"target": {"max_metric_drop": 0.1}},
        {"criterion": "magnitude_l2"},
        {"min_metric": 0.5},
    ],
)
def test_what_needs_a_bundle_is_refused(whole: ScoreState, options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError):
        cut_from_scores(digits.MODEL, whole, OPTIONS | options)


def test_scores_of_another_definition_are_refused(whole: ScoreState) -> None:
    with pytest.raises(ScoreStateError):
        cut_from_scores(digits.MODEL, whole, OPTIONS | {"reduction": "mean"})


def test_a_target_out_of_reach_says_how_far_it_goes(whole: ScoreState) -> None:
    with pytest.raises(UnreachableTargetError):
        cut_from_scores(digits.MODEL, whole, OPTIONS | {"target": {"filters": 59}})
