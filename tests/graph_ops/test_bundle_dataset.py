"""Binding a bundle to a model's inputs: what fits, what does not, and what the batches hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from graph_ops.bundle import BundleLimits, Dataset, InputSpec, open_bundle
from graph_ops.errors import (
    BundleError,
    BundleTooLargeError,
    DtypeMismatchError,
    EmptyBundleError,
    LabelRangeError,
    LengthMismatchError,
    MissingInputError,
    NotFiniteError,
    ShapeMismatchError,
)
from tests.support.bundles import Array, write_deflated_npz, write_npz, write_safetensors

F32 = np.dtype(np.float32)
IMAGE = InputSpec("image", F32, (None, 3, 4, 5))
IMAGES = np.random.default_rng(0).standard_normal((23, 3, 4, 5)).astype(np.float32)
LABELS = np.arange(23) % 4


def images(**changes: Any) -> dict[str, Array]:
    return {"image": IMAGES, "labels": LABELS, **changes}


def poisoned(value: float, index: tuple[int, ...] = (17, 2, 0, 3)) -> Array:
    array = IMAGES.copy()
    array[index] = value
    array[-1, -1, -1, -1] = np.nan
    return array


# What is wrong, the arrays, the model's dims, the error, and what the message or details say.
MISFITS: list[tuple[str, dict[str, Array], tuple[int | None, ...], type[BundleError], str]] = [
    ("no input", {"labels": LABELS}, IMAGE.dims, MissingInputError, "Needed: image; found: labels"),
    ("rank", images(image=IMAGES[:, 0, 0]), IMAGE.dims, ShapeMismatchError, "[23, 5]"),
    ("extent", images(image=IMAGES[:, :2]), IMAGE.dims, ShapeMismatchError, "[N, 3, 4, 5]"),
    ("one of many", images(image=IMAGES[0]), IMAGE.dims, ShapeMismatchError, "batch axis is miss"),
    ("grey", images(image=IMAGES[:, 0]), (None, 1, 4, 5), ShapeMismatchError, "channel axis is"),
    ("grey last", images(image=IMAGES[:, 0]), (1, 4, 5, 1), ShapeMismatchError, "..., np.newaxis"),
    (
        "channels last",
        images(image=np.moveaxis(IMAGES, 1, -1)),
        IMAGE.dims,
        ShapeMismatchError,
        "np.moveaxis(array, -1, 1)",
    ),
    ("channels first", images(), (None, 4, 5, 3), ShapeMismatchError, "np.moveaxis(array, 1, -1)"),
    ("scalar input", images(), (), ShapeMismatchError, "scalar"),
    ("scalar array", images(image=np.float32(1)), IMAGE.dims, ShapeMismatchError, "[]"),
    ("scalar targets", images(labels=np.int64(1)), IMAGE.dims, ShapeMismatchError, "scalar"),
    ("no batch", images(), (0, 3, 4, 5), ShapeMismatchError, "batch size"),
    ("double", images(image=IMAGES.astype("f8")), IMAGE.dims, DtypeMismatchError, "float64"),
    ("int64", images(image=IMAGES.astype("i8")), IMAGE.dims, DtypeMismatchError, "astype('float32"),
    ("text", images(image=IMAGES.astype("U3")), IMAGE.dims, DtypeMismatchError, "<U3"),
    ("targets text", images(labels=LABELS.astype("U3")), IMAGE.dims, DtypeMismatchError, "labels"),
    ("complex", images(labels=LABELS.astype("c8")), IMAGE.dims, DtypeMismatchError, "complex64"),
    ("fewer labels", images(labels=LABELS[1:]), IMAGE.dims, LengthMismatchError, "22"),
    ("no samples", images(image=IMAGES[:0], labels=LABELS[:0]), IMAGE.dims, EmptyBundleError, "0"),
    (
        "no elements",
        images(image=np.zeros((23, 3, 0, 5), np.float32)),
        (None, 3, None, 5),
        EmptyBundleError,
        "image",
    ),
    ("nan", images(image=poisoned(np.nan)), IMAGE.dims, NotFiniteError, "[17, 2, 0, 3]"),
    ("inf", images(image=poisoned(-np.inf)), IMAGE.dims, NotFiniteError, "-inf"),
    (
        "nan target",
        images(labels=np.where(LABELS == 3, np.nan, 0)),
        IMAGE.dims,
        NotFiniteError,
        "[3]",
    ),
]


@pytest.mark.parametrize(
    ("arrays", "dims", "error", "says"), [row[1:] for row in MISFITS], ids=[r[0] for r in MISFITS]
)
def test_misfits(
    tmp_path: Path,
    arrays: dict[str, Array],
    dims: tuple[int | None, ...],
    error: type[BundleError],
    says: str,
) -> None:
    with open_bundle(write_npz(tmp_path / "b", **arrays)) as bundle:
        with pytest.raises(error) as caught:
            Dataset.bind(bundle, [InputSpec("image", F32, dims)])
        assert type(caught.value) is error
        assert says in caught.value.message


def test_the_first_bad_element_is_named_in_any_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph_ops.bundle.source.STREAM_BYTES", 3 * 240)
    for array, dtype in ((poisoned(np.inf), "f4"), (poisoned(np.inf), ml_dtypes.bfloat16)):
        path = write_safetensors(tmp_path / "b", image=array.astype(dtype))
        with open_bundle(path) as bundle:
            with pytest.raises(NotFiniteError) as caught:
                Dataset.bind(bundle, [IMAGE])
            assert caught.value.details["array"] == "image"
            assert caught.value.details["index"] == [17, 2, 0, 3]


def test_missing_targets_are_an_error_only_where_they_are_required(tmp_path: Path) -> None:
    with open_bundle(write_npz(tmp_path / "b", image=IMAGES, other=LABELS[:3])) as bundle:
        dataset = Dataset.bind(bundle, [IMAGE])
        assert not dataset.has_targets
        assert dataset.target_info is None
        assert next(dataset.batches("scored")).targets is None
        dataset.check_labels(2)
        with pytest.raises(MissingInputError) as caught:
            Dataset.bind(bundle, [IMAGE], targets="truth", targets_required=True)
        assert caught.value.details["missing"] == ["truth"]


def test_inputs_that_fix_different_batch_sizes(tmp_path: Path) -> None:
    specs = [InputSpec("a", F32, (2, 4)), InputSpec("b", F32, (3, 4))]
    array = np.zeros((6, 4), np.float32)
    with (
        open_bundle(write_npz(tmp_path / "b", a=array, b=array)) as bundle,
        pytest.raises(ShapeMismatchError, match="'a' has 2, 'b' has 3"),
    ):
        Dataset.bind(bundle, specs)


def test_nothing_left_to_score(tmp_path: Path) -> None:
    with (
        open_bundle(write_npz(tmp_path / "b", image=IMAGES[:1])) as bundle,
        pytest.raises(EmptyBundleError, match="validation_fraction"),
    ):
        Dataset.bind(bundle, [IMAGE], validation_fraction=0.9)


def test_too_many_samples(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "b", image=IMAGES)
    with (
        open_bundle(path, limits=BundleLimits(max_samples=22)) as bundle,
        pytest.raises(BundleTooLargeError),
    ):
        Dataset.bind(bundle, [IMAGE])


@pytest.mark.parametrize("stored", ["u1", "i1", "i2", "u2", "f2", "f4", "?", ">f4", ">i2"])
def test_safe_casts(tmp_path: Path, stored: str) -> None:
    array = np.arange(24).reshape(6, 4).astype(stored)
    with open_bundle(write_npz(tmp_path / "b", x=array)) as bundle:
        dataset = Dataset.bind(bundle, [InputSpec("x", F32, (None, 4))], validation_fraction=0)
        (batch,) = dataset.batches("scored")
        assert batch.inputs["x"].dtype == F32
        np.testing.assert_array_equal(batch.inputs["x"], array.astype(np.float32))


class TestLabels:
    @pytest.mark.parametrize(("value", "at"), [(4, 5), (-1, 7), (2**40, 22)])
    def test_an_id_out_of_range_is_named(self, tmp_path: Path, value: int, at: int) -> None:
        labels = LABELS.copy()
        labels[at] = value
        with open_bundle(write_npz(tmp_path / "b", **images(labels=labels))) as bundle:
            dataset = Dataset.bind(bundle, [IMAGE])
            with pytest.raises(LabelRangeError) as caught:
                dataset.check_labels(4)
            details = caught.value.details
            assert (details["array"], details["index"], details["found"]) == ("labels", [at], value)

    @pytest.mark.parametrize(
        "labels", [LABELS, LABELS.astype("u1")[:, None], np.eye(4)[LABELS], np.ones(23) * 99.5]
    )
    def test_ids_in_range_and_other_targets_pass(self, tmp_path: Path, labels: Array) -> None:
        with open_bundle(write_npz(tmp_path / "b", **images(labels=labels))) as bundle:
            Dataset.bind(bundle, [IMAGE]).check_labels(4)


class TestBatches:
    @pytest.mark.parametrize("split", ["scored", "held_out"])
    def test_they_cover_the_split_in_order(self, tmp_path: Path, split: Any) -> None:
        with open_bundle(write_npz(tmp_path / "b", **images())) as bundle:
            dataset = Dataset.bind(bundle, [IMAGE], batch_size=3, validation_fraction=0.3)
            batches = list(dataset.batches(split))
        positions = getattr(dataset, split)
        np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), positions)
        assert [b.size for b in batches[:-1]] == [3] * (len(batches) - 1)
        for batch in batches:
            assert batch.targets is not None
            assert batch.size == len(batch.indices) == len(batch.targets)
            np.testing.assert_array_equal(batch.inputs["image"], IMAGES[batch.indices])
            np.testing.assert_array_equal(batch.targets, LABELS[batch.indices])

    def test_a_fixed_batch_size_is_filled_with_the_last_sample(self, tmp_path: Path) -> None:
        spec = InputSpec("image", F32, (5, 3, None, 5))
        with open_bundle(write_npz(tmp_path / "b", **images())) as bundle:
            dataset = Dataset.bind(bundle, [spec], batch_size=32, validation_fraction=0)
            assert dataset.batch_size == 5
            batches = list(dataset.batches("scored"))
        assert [b.size for b in batches] == [5, 5, 5, 5, 3]
        last = batches[-1]
        assert last.targets is not None
        assert last.indices.tolist() == [20, 21, 22]
        np.testing.assert_array_equal(last.inputs["image"], IMAGES[[20, 21, 22, 22, 22]])
        np.testing.assert_array_equal(last.targets, LABELS[[20, 21, 22, 22, 22]])

    def test_a_symbolic_batch_is_not_padded(self, tmp_path: Path) -> None:
        with open_bundle(write_npz(tmp_path / "b", **images())) as bundle:
            dataset = Dataset.bind(bundle, [IMAGE], batch_size=5, validation_fraction=0)
            assert [len(b.inputs["image"]) for b in dataset.batches("scored")] == [5, 5, 5, 5, 3]

    def test_every_container_gives_equal_batches(self, tmp_path: Path) -> None:
        sources = [
            write_npz(tmp_path / "a", **images()),
            write_deflated_npz(tmp_path / "b", **images()),
            write_npz(tmp_path / "c", **images(image=np.asfortranarray(IMAGES))),
            write_npz(tmp_path / "d", **images(image=IMAGES.astype(">f4"))),
            write_safetensors(tmp_path / "e", **images()),
        ]
        seen = []
        for source in sources:
            with open_bundle(source) as bundle:
                dataset = Dataset.bind(bundle, [IMAGE], batch_size=4, max_samples=17, seed=3)
                seen.append(list(dataset.batches("scored")))
        for batches in seen[1:]:
            assert len(batches) == len(seen[0])
            for batch, first in zip(batches, seen[0], strict=True):
                np.testing.assert_array_equal(batch.indices, first.indices)
                np.testing.assert_array_equal(batch.inputs["image"], first.inputs["image"])
                np.testing.assert_array_equal(batch.targets, first.targets)

    def test_several_inputs(self, tmp_path: Path) -> None:
        mask = np.random.default_rng(1).random((23, 2)) < 0.5
        specs = [IMAGE, InputSpec("mask", np.dtype(np.bool_), (None, None))]
        with open_bundle(write_npz(tmp_path / "b", **images(mask=mask))) as bundle:
            dataset = Dataset.bind(bundle, specs)
            assert dataset.input_shapes == {"image": (3, 4, 5), "mask": (2,)}
            for batch in dataset.batches("scored"):
                np.testing.assert_array_equal(batch.inputs["mask"], mask[batch.indices])

    def test_samples_counts_what_is_used(self, tmp_path: Path) -> None:
        with open_bundle(write_npz(tmp_path / "b", **images())) as bundle:
            dataset = Dataset.bind(bundle, [IMAGE], max_samples=10)
        assert (dataset.samples, dataset.scored.size, dataset.held_out.size) == (10, 9, 1)
