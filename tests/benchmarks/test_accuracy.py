"""The accuracy benchmark's parts on something small."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import tasks
from benchmarks.accuracy import __main__ as program
from benchmarks.accuracy import networks, ours
from benchmarks.accuracy.results import Measured, Results


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    whole = tasks.digits()
    return tasks.Task(
        whole.name,
        whole.model,
        whole.input_name,
        whole.is_softmaxed,
        whole.images[:60],
        whole.labels[:60],
        whole.test_images[:200],
        whole.test_labels[:200],
    )


def test_a_row_is_measured_once_and_kept(task: tasks.Task, tmp_path: Path) -> None:
    results = Results(tmp_path)
    first = ours.row(task, "Taylor", 0.7, results)
    assert first is not None
    assert first.accuracy is not None
    assert first.accuracy > 0.8
    assert first.macs_ratio is not None
    assert first.macs_ratio <= 0.7
    kept = Results(tmp_path, measures=False)
    assert ours.row(task, "Taylor", 0.7, kept) == first
    assert ours.row(task, "Taylor", 0.5, kept) is None


def test_cells_say_where_the_macs_are_not_the_targets() -> None:
    assert Measured(0.9, 0.7).cell(0.7) == "90.0"
    assert Measured(0.9, 0.65).cell(0.7) == "90.0 (at 0.65)"
    assert Measured(error="no such filter").cell(0.7) == "fails: no such filter"


def test_findings_hold_the_goals_against_the_losses() -> None:
    row: list[Measured | None] = [Measured(0.98, t) for t in program.TARGETS]
    found = program.findings(0.995, {ours.RECONSTRUCT: row})
    assert found == [
        "At 0.7: 1.5 points lost; at most 1 does not hold.",
        "At 0.5: 1.5 points lost; at most 3 holds.",
    ]


def test_the_networks_of_the_repository_are_there() -> None:
    for name in networks.OF_THE_REPOSITORY:
        assert networks.file_of(name, networks.SHARED).is_file()


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar10_8k"):
        networks.network("vgg_cifar10", tmp_path)
