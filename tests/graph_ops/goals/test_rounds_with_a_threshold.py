"""Rounds as MATLAB's one-call form has them: increment, score batches, threshold, stop reason."""

from __future__ import annotations

from typing import Any

import pytest

from graph_ops.pruning import Progress, prune
from tests.support import digits

QUICK: dict[str, Any] = {"max_samples": 300, "batch_size": 32, "recovery": "bias"}


def run(**options: Any) -> tuple[dict[str, Any], list[int]]:
    """The report, and the samples that each round scored."""
    scored: dict[str, int] = {}

    def watch(progress: Progress) -> None:
        if progress.phase == "score":
            scored[progress.message] = progress.done

    report = prune(digits.MODEL, digits.BUNDLE, QUICK | options, progress=watch).report
    return report, list(scored.values())


def test_an_increment_gives_rounds_of_that_share() -> None:
    report, scored = run(target={"max_macs_ratio": 0.65}, increment=0.1, score_batches=2)
    whole = report["cost"]["before"]["macs"]
    shares = [r["macs"] / whole for r in report["rounds"]]
    assert shares == pytest.approx([0.9, 0.8, 0.7, 0.65], abs=0.06)
    assert scored == [64] * 4
    assert report["stop_reason"] == "target_reached"


def test_the_round_that_crosses_the_threshold_is_taken_back() -> None:
    report, _ = run(target={"max_macs_ratio": 0.1}, increment=0.2, min_metric=0.9)
    assert report["stop_reason"] == "metric_threshold"
    rounds = report["rounds"]
    assert rounds[-1]["metric"] < 0.9
    assert all(r["metric"] >= 0.9 for r in rounds[:-1])
    assert len(rounds) > 1
    assert report["filters"]["after"] == rounds[-2]["filters"]


def test_a_threshold_that_holds_changes_nothing_else() -> None:
    report, _ = run(target={"max_macs_ratio": 0.8}, min_metric=0.5)
    assert report["stop_reason"] == "target_reached"
    assert report["rounds"][0]["metric"] >= 0.5
