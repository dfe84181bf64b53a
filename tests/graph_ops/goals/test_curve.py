"""Option `points`: many sizes in one run, each like a result of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from graph_ops.checkpoint import Checkpoint
from graph_ops.pruning import Progress, PruneResult, prune
from tests.support import digits
from tests.support.reports import without_timings

OPTIONS: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.4},
    "points": 4,
    "max_samples": 200,
    "recovery": "bias",
}


class CutShortError(Exception):
    """What a test ends a run with."""


def run(folder: Path | None = None, cut_at: str = "") -> tuple[PruneResult, int]:
    """The result, and how many samples were scored."""
    scored = 0

    def watch(progress: Progress) -> None:
        nonlocal scored
        if progress.phase == "score":
            scored = progress.done
        if cut_at and progress.message.startswith(cut_at):
            raise CutShortError

    checkpoint = None if folder is None else Checkpoint(folder)
    result = prune(digits.MODEL, digits.BUNDLE, OPTIONS, progress=watch, checkpoint=checkpoint)
    return result, scored


@pytest.fixture(scope="module")
def curve() -> tuple[PruneResult, int]:
    return run()


def test_sizes_are_spaced_evenly_and_the_bundle_is_scored_once(
    curve: tuple[PruneResult, int],
) -> None:
    result, scored = curve
    assert scored == 180
    whole = result.report["cost"]["before"]["macs"]
    shares = [entry["macs"] / whole for entry in result.report["curve"]]
    assert shares == pytest.approx([0.85, 0.7, 0.55, 0.4], abs=0.06)
    assert all(
        share <= wanted for share, wanted in zip(shares, (0.85, 0.7, 0.55, 0.4), strict=True)
    )
    assert [entry["point"] for entry in result.report["curve"]] == [1, 2, 3, 4]


def test_every_point_is_proven_and_runs(curve: tuple[PruneResult, int]) -> None:
    result, _ = curve
    assert len(result.points) == 4
    with np.load(digits.BUNDLE) as data:
        images = data["image"][:4]
    for entry, point in zip(result.report["curve"], result.points, strict=True):
        assert entry["max_rel_diff"] == point.report["proof"]["max_rel_diff"] <= 1e-4
        assert entry["bytes"] == len(point.model)
        session = ort.InferenceSession(point.model, providers=["CPUExecutionProvider"])
        assert session.run(None, {"image": images})[0].shape == (4, 10)
    assert result.points[-1].model == result.model


def test_a_point_is_what_a_run_to_its_size_returns(curve: tuple[PruneResult, int]) -> None:
    single = {k: v for k, v in OPTIONS.items() if k != "points"}
    alone = prune(digits.MODEL, digits.BUNDLE, single)
    last = curve[0].points[-1].report
    assert alone.report["convolutions"] == last["convolutions"]
    assert alone.report["metric"] == last["metric"]


def test_a_curve_that_is_cut_short_goes_on(curve: tuple[PruneResult, int], tmp_path: Path) -> None:
    with pytest.raises(CutShortError):
        run(tmp_path, "point 3 of 4")
    resumed, scored = run(tmp_path)
    assert scored == 0
    assert [p.model for p in resumed.points] == [p.model for p in curve[0].points]
    plain = [without_timings(p.report) for p in curve[0].points]
    assert [without_timings(p.report) for p in resumed.points] == plain
