"""What a result is proven and measured on: samples of a bundle, or random inputs without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graph_ops.bundle import Dataset, InputSpec
from graph_ops.errors import OptionsError
from graph_ops.metrics import Examiner
from graph_ops.runtime import Array

PROOF_SAMPLES = 32


@dataclass(frozen=True)
class BundleEvidence:
    """Samples of a bundle."""

    dataset: Dataset
    bundle_sha256: str
    examiner: Examiner
    inputs: Literal["bundle"] = "bundle"

    @property
    def samples(self) -> int:
        """Samples used, scored and held out together."""
        return self.dataset.samples

    @property
    def held_out(self) -> int:
        """Samples held out."""
        return len(self.dataset.held_out)

    def proof_batches(self) -> Iterator[tuple[dict[str, Array], int]]:
        """Batches of the scored samples."""
        seen = 0
        for batch in self.dataset.batches("scored"):
            yield batch.inputs, batch.size
            seen += batch.size
            if seen >= PROOF_SAMPLES:
                return

    def latency_feeds(self) -> tuple[int, dict[str, Array]]:
        """The first sample, or the first batch."""
        batch = next(iter(self.dataset.batches("scored")))
        if self.dataset.has_fixed_batch:
            return self.dataset.batch_size, batch.inputs
        return 1, {n: a[:1] for n, a in batch.inputs.items()}


class RandomEvidence:
    """Seeded random inputs: standard normal floats, integers 0 and 1.

    They show that the surgery is exact, which does not depend on what is fed; they say nothing of
    accuracy.

    Args:
        specs: The model's inputs.
        sample_shapes: Shape of one sample by input name.
        seed: Of the draw.

    Raises:
        OptionsError: an input's shape is not known.
    """

    inputs: Literal["random"] = "random"
    bundle_sha256: None = None
    examiner: None = None
    dataset: None = None
    samples = held_out = 0

    def __init__(
        self,
        specs: list[InputSpec],
        sample_shapes: Mapping[str, tuple[int, ...]],
        seed: int,
    ) -> None:
        for spec in specs:
            if spec.name not in sample_shapes:
                raise OptionsError(
                    f"The shape of input {spec.name!r} is open: give sample_shapes, or a bundle.",
                    field="sample_shapes",
                    input=spec.name,
                )
        fixed = [s.dims[0] for s in specs if s.dims and s.dims[0] is not None]
        self._batch = fixed[0] if fixed else None
        self._specs, self._shapes, self._seed = specs, sample_shapes, seed

    def proof_batches(self) -> Iterator[tuple[dict[str, Array], int]]:
        """One batch of 32, or as many of the fixed batch size as it takes."""
        rows = self._batch or PROOF_SAMPLES
        for number in range(-(-PROOF_SAMPLES // rows)):
            yield self._draw(rows, number), rows

    def latency_feeds(self) -> tuple[int, dict[str, Array]]:
        """One random sample, or one batch."""
        rows = self._batch or 1
        return rows, self._draw(rows, 0)

    def _draw(self, rows: int, number: int) -> dict[str, Array]:
        rng = np.random.default_rng([self._seed, number])
        feeds = {}
        for spec in self._specs:
            shape = (rows, *self._shapes[spec.name])
            is_counted = spec.dtype.kind in "iub"
            values = rng.integers(0, 2, shape) if is_counted else rng.standard_normal(shape)
            feeds[spec.name] = values.astype(spec.dtype)
        return feeds


Evidence = BundleEvidence | RandomEvidence
