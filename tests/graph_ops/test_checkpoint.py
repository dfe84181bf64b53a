"""A run that is cut short after any round goes on from it, to the same bytes."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from graph_ops.checkpoint import Checkpoint, rounds_done
from graph_ops.pruning import Progress, PruneResult, prune
from tests.support import digits
from tests.support.reports import without_timings

OPTIONS: dict[str, Any] = {
    "max_samples": 128,
    "batch_size": 64,
    "steps": 4,
    "target": {"filters": 12},
    "recovery": "none",
}


class CutShortError(Exception):
    """What a test ends a run with."""


def scored_rounds(seen: list[Progress]) -> list[str]:
    return sorted({p.message for p in seen if p.phase == "score"})


def run(folder: Path | None, cut_at: str = "", **options: Any) -> tuple[PruneResult, list[str]]:
    """The result, and which rounds were scored; ends early at the progress `phase message`."""
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        if cut_at and f"{progress.phase} {progress.message}".strip() == cut_at:
            raise CutShortError
        seen.append(progress)

    checkpoint = None if folder is None else Checkpoint(folder)
    result = prune(
        digits.MODEL, digits.BUNDLE, OPTIONS | options, progress=watch, checkpoint=checkpoint
    )
    return result, scored_rounds(seen)


def content(result: PruneResult, folder: Path) -> tuple[bytes, bytes, str]:
    """All that a run leaves; the report without its timings."""
    folder.mkdir(exist_ok=True)
    result.write_scores(folder / "scores.npz")
    report = json.dumps(without_timings(result.report))
    return result.model, (folder / "scores.npz").read_bytes(), report


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, str]:
    return content(run(None)[0], tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a run that came to its end."""
    folder = tmp_path_factory.mktemp("finished") / "checkpoint"
    run(folder)
    return folder


@pytest.mark.parametrize(
    ("cut_at", "done", "left"),
    [
        ("score round 1", 0, ["round 1", "round 2", "round 3", "round 4"]),
        ("score round 2", 1, ["round 2", "round 3", "round 4"]),
        ("score round 4", 3, ["round 4"]),
        ("cut", 4, []),
        ("measure", 4, []),
    ],
)
def test_a_run_goes_on_from_its_last_round_to_the_same_bytes(
    undisturbed: tuple[bytes, bytes, str], tmp_path: Path, cut_at: str, done: int, left: list[str]
) -> None:
    folder = tmp_path / "checkpoint"
    with pytest.raises(CutShortError):
        run(folder, cut_at)
    assert rounds_done(folder) == done
    result, scored = run(folder)
    assert scored == left
    assert content(result, tmp_path) == undisturbed


def test_only_the_newest_round_is_kept(finished: Path) -> None:
    assert [path.name for path in finished.iterdir()] == ["round-0004.npz"]


def test_filters_per_step_goes_on_too(tmp_path: Path) -> None:
    options = {"steps": None, "filters_per_step": 5}
    with pytest.raises(CutShortError):
        run(tmp_path / "c", "score round 3", **options)
    result, scored = run(tmp_path / "c", **options)
    assert scored == ["round 3"]
    assert result.model == run(None, **options)[0].model


@pytest.mark.parametrize("options", [{"seed": 3}, {"target": {"filters": 11}}, {"batch_size": 32}])
def test_a_checkpoint_of_another_run_is_not_used(
    finished: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    shutil.copytree(finished, tmp_path / "c")
    _, scored = run(tmp_path / "c", **options)
    assert scored[0] == "round 1"


def test_a_damaged_checkpoint_is_as_good_as_none(
    undisturbed: tuple[bytes, bytes, str], tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    with pytest.raises(CutShortError):
        run(folder, "score round 3")
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-200])
    result, scored = run(folder)
    assert scored[0] == "round 1"
    assert content(result, tmp_path) == undisturbed


def test_criteria_without_scores_have_checkpoints(tmp_path: Path) -> None:
    options = {"criterion": "magnitude_l2"}
    with pytest.raises(CutShortError):
        run(tmp_path / "c", "cut", **options)
    assert rounds_done(tmp_path / "c") == 4
    assert run(tmp_path / "c", **options)[0].model == run(None, **options)[0].model


@functools.cache
def recovered(recovery: str) -> PruneResult:
    """The result of a run that nothing disturbs."""
    return run(None, recovery=recovery)[0]


@pytest.mark.parametrize("recovery", ["bias", "reconstruct"])
@pytest.mark.parametrize("cut_at", ["score round 3", "prove"])
def test_refitted_weights_are_part_of_a_round(tmp_path: Path, recovery: str, cut_at: str) -> None:
    options = {"recovery": recovery}
    with pytest.raises(CutShortError):
        run(tmp_path / "c", cut_at, **options)
    result, _ = run(tmp_path / "c", **options)
    assert content(result, tmp_path / "a") == content(recovered(recovery), tmp_path / "b")
    assert any(layer["method"] != "none" for layer in result.report["recovery"]["layers"])
