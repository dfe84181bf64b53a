"""A bundle bound to a model: checked once from end to end, split, and read as mini-batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graph_ops.bundle.arrays import Array, ArrayInfo, DType, Indices
from graph_ops.bundle.checks import (
    check_dtype,
    check_finite,
    check_label_range,
    check_lengths,
    check_names,
    check_shape,
    check_targets,
    is_class_id,
)
from graph_ops.bundle.source import Bundle
from graph_ops.bundle.specs import InputSpec
from graph_ops.bundle.split import split_samples
from graph_ops.errors import ShapeMismatchError

__all__ = ["Batch", "Dataset", "InputSpec"]


@dataclass(frozen=True)
class Batch:
    """Samples to feed a model with.

    Attributes:
        inputs: By input name, in the model's element type, shape [n, ...]. A model of fixed batch
            size always gets that many rows.
        targets: Of the same rows, shape [n, ...], as stored; None without targets.
        size: How many rows count; the others repeat the last of them.
        indices: Positions of those rows in the bundle, shape [size], int64.
    """

    inputs: dict[str, Array]
    targets: Array | None
    size: int
    indices: Indices


@dataclass(frozen=True)
class Dataset:
    """The samples of a bundle that a run uses. Valid as long as the bundle is open.

    Attributes:
        bundle: Where the samples are read from.
        scored: Positions of the samples that are scored on; sorted.
        held_out: Positions of the samples kept for the metric; sorted, disjoint from `scored`.
        target_info: The array of targets; None when the bundle has none.
        input_shapes: Extents of one sample of each input (no batch axis).
        batch_size: Rows of a batch.
        has_fixed_batch: Whether the model takes exactly `batch_size` rows, so that a last short
            batch is padded.
    """

    bundle: Bundle
    scored: Indices
    held_out: Indices
    target_info: ArrayInfo | None
    input_shapes: Mapping[str, tuple[int, ...]]
    input_dtypes: Mapping[str, DType]
    batch_size: int
    has_fixed_batch: bool

    @classmethod
    def bind(
        cls,
        bundle: Bundle,
        inputs: Sequence[InputSpec],
        *,
        targets: str = "labels",
        targets_required: bool = False,
        batch_size: int = 32,
        max_samples: int | None = None,
        validation_fraction: float = 0.1,
        seed: int = 0,
    ) -> Dataset:
        """Check a bundle against a model's inputs and split its samples.

        Float arrays are read once from end to end to find NaN and infinity. Arrays that are
        neither an input nor the targets are ignored.

        Args:
            bundle: The open bundle.
            inputs: The model's inputs.
            targets: Name of the array of targets.
            targets_required: Whether their absence is an error.
            batch_size: Rows per batch, unless the model fixes them.
            max_samples: Samples to use, drawn by the seed; None for all.
            validation_fraction: Share of them to hold out.
            seed: Seed of both draws.

        Raises:
            MissingInputError: an input (or a required target) has no array.
            ShapeMismatchError: rank or extents do not fit, or inputs fix different batch sizes.
            DtypeMismatchError: an array cannot be cast to its input's type without loss.
            LengthMismatchError: arrays hold different numbers of samples.
            EmptyBundleError: there are no samples, or none left to score on.
            BundleTooLargeError: there are more samples than the bundle's limits allow.
            NotFiniteError: NaN or infinity in an input or in the targets.
        """
        names = [spec.name for spec in inputs]
        check_names(bundle, [*names, targets] if targets_required else names)
        for spec in inputs:
            check_shape(bundle.arrays[spec.name], spec)
            check_dtype(bundle.arrays[spec.name], spec)
        target_info = bundle.arrays.get(targets)
        used = [bundle.arrays[name] for name in names]
        if target_info is not None:
            check_targets(target_info)
            used.append(target_info)
        samples = check_lengths(used)
        bundle.limits.check_samples(used[0].name, samples)
        for name in dict.fromkeys(info.name for info in used):
            check_finite(bundle, name)
        fixed = _fixed_batch(inputs)
        split = split_samples(
            samples,
            _class_ids(bundle, target_info),
            max_samples=max_samples,
            validation_fraction=validation_fraction,
            seed=seed,
        )
        return cls(
            bundle=bundle,
            scored=split.scored,
            held_out=split.held_out,
            target_info=target_info,
            input_shapes={name: bundle.arrays[name].shape[1:] for name in names},
            input_dtypes={spec.name: spec.dtype for spec in inputs},
            batch_size=batch_size if fixed is None else fixed,
            has_fixed_batch=fixed is not None,
        )

    @property
    def samples(self) -> int:
        """How many samples are used, scored and held out together."""
        return self.scored.size + self.held_out.size

    @property
    def has_targets(self) -> bool:
        """Whether the bundle holds targets."""
        return self.target_info is not None

    def batches(self, split: Literal["scored", "held_out"]) -> Iterator[Batch]:
        """Batches of one split in the order of the bundle; only one is in memory at a time."""
        indices = self.scored if split == "scored" else self.held_out
        for begin in range(0, indices.size, self.batch_size):
            yield self._read(indices[begin : begin + self.batch_size])

    def check_labels(self, classes: int) -> None:
        """Hold integer targets against the number of classes; other targets pass.

        Raises:
            LabelRangeError: a class id is not in [0, classes); names its index and value.
        """
        if self.target_info is not None:
            check_label_range(self.bundle, self.target_info.name, classes)

    def _read(self, indices: Indices) -> Batch:
        padding = self.batch_size - indices.size if self.has_fixed_batch else 0
        inputs = {
            name: _pad(self.bundle.read(name, indices), padding).astype(dtype, copy=False)
            for name, dtype in self.input_dtypes.items()
        }
        targets = None
        if self.target_info is not None:
            targets = _pad(self.bundle.read(self.target_info.name, indices), padding)
        return Batch(inputs, targets, indices.size, indices)


def _pad(rows: Array, count: int) -> Array:
    """Append the last row `count` times."""
    return np.concatenate([rows, np.repeat(rows[-1:], count, axis=0)]) if count else rows


def _fixed_batch(inputs: Sequence[InputSpec]) -> int | None:
    """The batch size that the model fixes; None where it is free."""
    fixed = {spec.name: spec.dims[0] for spec in inputs if spec.dims[0] is not None}
    sizes = set(fixed.values())
    if len(sizes) > 1 or 0 in sizes:
        raise ShapeMismatchError(
            "The model's inputs do not have one batch size on axis 0: "
            + ", ".join(f"{name!r} has {size}" for name, size in fixed.items())
            + ". Make the batch axis symbolic, or the same and at least 1 in all inputs.",
            array=next(iter(fixed)),
            found=fixed,
        )
    return sizes.pop() if sizes else None


def _class_ids(bundle: Bundle, info: ArrayInfo | None) -> Array | None:
    """The targets as [N] class ids, when that is what they are."""
    if info is None or not is_class_id(info):
        return None
    return bundle.read(info.name, np.arange(info.samples)).reshape(-1)
