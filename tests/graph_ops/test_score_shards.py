"""A scoring in shards, on however many processes, gives the scores of an undivided one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graph_ops.bundle import open_bundle
from graph_ops.checkpoint import Checkpoint
from graph_ops.errors import ScoreStateError, StaleShardError
from graph_ops.machine import gpu_name, machine_kind, processor
from graph_ops.model import load_model
from graph_ops.options import parse_options
from graph_ops.pruning import PruneResult, help_score, prune, score
from graph_ops.run import bind, input_specs
from graph_ops.score_shards import ScoredShard, SharedScoring, split
from tests.support import digits
from tests.support.reports import without_timings

OPTIONS: dict[str, Any] = {
    "max_samples": 300,
    "steps": 3,
    "target": {"filters": 9},
    "recovery": "bias",
}
"""Recovered weights pass from round to round, and to helpers; biases are the quickest."""


class Helper:
    """Asks for one shard."""

    def __init__(self, shard: int) -> None:
        self._shards: list[int | None] = [None, shard]
        self.scored: ScoredShard | None = None

    def claim(self) -> int | None:
        return self._shards.pop(0)

    def hand_in(self, shard: int, scored: ScoredShard) -> None:
        self.scored = scored

    def is_over(self) -> bool:
        return not self._shards

    def wait(self) -> None:
        assert self._shards


class Helpers:
    """Other processes that score some shards, from the checkpoint that the run keeps."""

    def __init__(self, folder: Path, count: int, theirs: Iterable[int]) -> None:
        self.count = count
        self.folder, self._theirs = folder, tuple(theirs)
        self.handed_in: list[tuple[int, int]] = []
        self.offered: list[tuple[int, int]] = []
        self._number, self._waiting, self._arrived = 0, [0], [0]

    def begin(self, number: int, count: int) -> None:
        self._number = number
        self.offered.append((number, count))
        self._waiting = [n for n in range(count) if n not in self._theirs]
        self._arrived = [n for n in self._theirs if n < count]
        self._of = count

    def claim(self) -> int | None:
        return self._waiting.pop() if self._waiting else None

    def hand_in(self, shard: int, scored: ScoredShard) -> None:
        self.handed_in.append((self._number, shard))

    def arrived(self) -> Iterable[tuple[int, ScoredShard]]:
        while self._arrived and not self._waiting:
            shard = self._arrived.pop()
            yield shard, self.scored(SharedScoring(self._number, self._of), shard)

    def scored(self, scoring: SharedScoring, shard: int) -> ScoredShard:
        """What another process makes of a shard."""
        helper = Helper(shard)
        help_score(
            digits.MODEL,
            digits.BUNDLE,
            OPTIONS,
            scoring,
            exchange=helper,
            checkpoint=Checkpoint(self.folder),
        )
        assert helper.scored is not None
        helper.scored.save(self.folder / "shard")
        return ScoredShard.load(self.folder / "shard")

    def wait(self) -> None:
        assert not self._waiting


def content(result: PruneResult, folder: Path) -> tuple[bytes, str, object]:
    result.write_scores(folder / "scores.npz")
    digest = hashlib.sha256((folder / "scores.npz").read_bytes()).hexdigest()
    return result.model, digest, without_timings(result.report)


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str, object]:
    folder = tmp_path_factory.mktemp("undivided")
    return content(prune(digits.MODEL, digits.BUNDLE, OPTIONS), folder)


@pytest.mark.parametrize(
    ("count", "theirs"), [(2, []), (3, [0, 2]), (5, [0, 1, 2, 3, 4]), (256, [1])]
)
def test_shards_give_the_bytes_of_an_undivided_run(
    tmp_path: Path, undivided: tuple[bytes, str, object], count: int, theirs: list[int]
) -> None:
    helpers = Helpers(tmp_path / "checkpoint", count, theirs)
    helpers.folder.mkdir()
    result = prune(
        digits.MODEL,
        digits.BUNDLE,
        OPTIONS,
        checkpoint=Checkpoint(helpers.folder),
        exchange=helpers,
    )
    assert content(result, tmp_path) == undivided
    shards = min(count, 9)  # 270 scored samples are nine batches
    assert helpers.offered == [(number, shards) for number in (1, 2, 3)]
    assert len(helpers.handed_in) == 3 * (shards - len(theirs))


@pytest.mark.parametrize("change", ["machine", "engine"])
def test_what_another_machine_or_engine_scored_is_scored_again(
    tmp_path: Path, undivided: tuple[bytes, str, object], change: str
) -> None:
    def changed(scored: ScoredShard) -> ScoredShard:
        facts = replace(scored.engine, version="0.1")
        return (
            replace(scored, machine="other")
            if change == "machine"
            else replace(scored, engine=facts)
        )

    class Others(Helpers):
        def scored(self, scoring: SharedScoring, shard: int) -> ScoredShard:
            scored = changed(super().scored(scoring, shard))
            scored.state.samples += 1000  # what nobody may notice
            return scored

    helpers = Others(tmp_path / "checkpoint", 3, [1])
    helpers.folder.mkdir()
    checkpoint = Checkpoint(helpers.folder)
    result = prune(digits.MODEL, digits.BUNDLE, OPTIONS, checkpoint=checkpoint, exchange=helpers)
    assert content(result, tmp_path) == undivided
    assert sorted(helpers.handed_in)[:3] == [(1, 0), (1, 1), (1, 2)]


def test_scores_alone_are_shared_too(tmp_path: Path) -> None:
    alone = score(digits.MODEL, digits.BUNDLE, OPTIONS)
    helpers = Helpers(tmp_path, 4, [0, 3])
    together = score(digits.MODEL, digits.BUNDLE, OPTIONS, exchange=helpers)
    assert together.samples == alone.samples == 270
    np.testing.assert_array_equal(together.sum_abs, alone.sum_abs)
    assert together.mean_loss == alone.mean_loss


def test_a_shard_of_a_round_that_is_not_next_is_refused(tmp_path: Path) -> None:
    helpers = Helpers(tmp_path, 2, [])
    checkpoint = Checkpoint(tmp_path)
    prune(digits.MODEL, digits.BUNDLE, OPTIONS, checkpoint=checkpoint, exchange=helpers)
    for scoring in (SharedScoring(3, 2), SharedScoring(1, 400)):
        with pytest.raises(StaleShardError):
            helpers.scored(scoring, 0)


@pytest.mark.parametrize(
    ("samples", "count", "sizes"),
    [
        (300, 2, [128, 142]),
        (300, 4, [64, 64, 64, 78]),
        (40, 8, [32, 4]),
        (20, 3, [18]),
    ],
)
def test_shards_are_whole_batches(samples: int, count: int, sizes: list[int]) -> None:
    options = parse_options({"max_samples": samples})
    specs = input_specs(load_model(digits.MODEL).model)
    with open_bundle(digits.BUNDLE, inputs=specs) as file:
        dataset = bind(file, specs, options)
        parts = split(dataset, count)
        assert [part.scored.size for part in parts] == sizes
        np.testing.assert_array_equal(np.concatenate([p.scored for p in parts]), dataset.scored)


def test_what_is_no_scored_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"PK\x03\x04")
    for name in ("shard", "missing"):
        with pytest.raises(ScoreStateError):
            ScoredShard.load(tmp_path / name)


def test_machines_are_told_apart_by_model_and_vector_units(tmp_path: Path) -> None:
    def kind(text: str) -> str:
        (tmp_path / "cpuinfo").write_text(text)
        return processor(tmp_path / "cpuinfo")

    one = kind("model name\t: One\nflags\t\t: fpu avx2 fma\n")
    assert one == kind("processor : 0\nmodel name : One\nflags : fma avx2 ht\ncpu MHz : 9\n")
    others = ["model name : Two\nflags : avx2 fma", "model name : One\nflags : avx2", ""]
    assert len({one, *map(kind, others)}) == 4
    assert machine_kind("cpu") == machine_kind("cpu") != ""


def test_a_gpu_is_known_by_its_name() -> None:
    def name_of(name: Any, size: int, device: Any) -> int:
        name.value = b"H100"
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGet=lambda device, number: int(number > 0),
        cuDeviceGetName=name_of,
    )
    assert gpu_name(0, lambda _: driver) == "H100"
    assert gpu_name(1, lambda _: driver) == ""
