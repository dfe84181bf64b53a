"""The properties of the split into scored and held-out samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph_ops.bundle import Dataset, InputSpec, open_bundle
from graph_ops.bundle.split import Split, split_samples
from graph_ops.errors import EmptyBundleError
from tests.support.bundles import Array, write_npz


@dataclass(frozen=True)
class Draw:
    samples: int
    classes: Array | None
    max_samples: int | None
    validation_fraction: float
    seed: int

    def split(self) -> Split:
        return split_samples(
            self.samples,
            self.classes,
            max_samples=self.max_samples,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
        )

    @property
    def used(self) -> int:
        return min(self.samples, self.max_samples or self.samples)


@st.composite
def draws(draw: st.DrawFn, *, labelled: bool | None = None) -> Draw:
    samples = draw(st.integers(1, 300))
    if labelled is None:
        labelled = draw(st.booleans())
    classes = None
    if labelled:
        rng = np.random.default_rng(draw(st.integers(0, 1000)))
        # Powers of a uniform number make some classes rare.
        kinds = draw(st.integers(1, 40))
        classes = (rng.random(samples) ** 3 * kinds).astype(np.int64) - 2
    fraction = draw(st.floats(0, 0.9))
    limit = draw(st.none() | st.integers(1, 400))
    result = Draw(samples, classes, limit, fraction, draw(st.integers(0, 2**32 - 1)))
    if round(fraction * result.used) == result.used:
        result = Draw(samples, classes, limit, 0.0, result.seed)
    return result


@given(draws())
def test_disjoint_sorted_and_of_the_size_asked_for(draw: Draw) -> None:
    split = draw.split()
    both = np.concatenate([split.scored, split.held_out])
    assert np.unique(both).size == both.size == draw.used
    assert split.held_out.size == round(draw.validation_fraction * draw.used)
    assert both.min() >= 0
    assert both.max() < draw.samples
    for part in (split.scored, split.held_out):
        assert part.dtype == np.int64
        np.testing.assert_array_equal(part, np.sort(part))


@given(draws())
def test_the_same_seed_gives_the_same_split(draw: Draw) -> None:
    np.testing.assert_array_equal(draw.split().scored, draw.split().scored)
    np.testing.assert_array_equal(draw.split().held_out, draw.split().held_out)


@given(draws(labelled=True))
def test_each_class_gives_its_share_within_one(draw: Draw) -> None:
    assert draw.classes is not None
    split = draw.split()
    used = np.sort(np.concatenate([split.scored, split.held_out]))
    for part, whole in ((used, np.arange(draw.samples)), (split.held_out, used)):
        for kind in np.unique(draw.classes):
            share = np.sum(draw.classes[whole] == kind) * part.size / whole.size
            assert abs(np.sum(draw.classes[part] == kind) - share) < 1


@given(draws(labelled=True))
def test_only_the_partition_into_classes_counts_not_their_ids(draw: Draw) -> None:
    assert draw.classes is not None
    renamed = Draw(
        draw.samples,
        draw.classes.astype(np.int32) * 3 + 7,
        draw.max_samples,
        draw.validation_fraction,
        draw.seed,
    )
    np.testing.assert_array_equal(renamed.split().held_out, draw.split().held_out)


def test_another_seed_gives_another_split() -> None:
    held_out = {tuple(Draw(200, None, None, 0.1, seed).split().held_out) for seed in range(10)}
    assert len(held_out) == 10


def test_samples_of_their_own_class_each_are_not_held_out_from_the_front() -> None:
    split = Draw(1000, np.arange(1000), None, 0.1, 0).split()
    assert 300 < split.held_out.mean() < 700


def test_a_split_without_scored_samples_is_refused() -> None:
    with pytest.raises(EmptyBundleError):
        Draw(1, None, None, 0.6, 0).split()


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_class_ids_stratify_in_either_shape(
    tmp_path: Path, shape: tuple[int, ...], dtype: type
) -> None:
    labels: Array = np.repeat(np.arange(10), 20).astype(dtype)
    path = write_npz(tmp_path / "b", x=np.zeros((200, 1), "f4"), labels=labels.reshape(shape))
    with open_bundle(path) as bundle:
        dataset = Dataset.bind(bundle, [InputSpec("x", np.dtype("f4"), (None, 1))])
    assert np.bincount(labels[dataset.held_out]).tolist() == [2] * 10
