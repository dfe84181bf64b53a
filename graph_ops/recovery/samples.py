"""The samples a refit reads: most are fitted, some are set aside to choose and to check."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from graph_ops.bundle import Batch, Dataset
from graph_ops.bundle.checks import is_class_id

MAX_SAMPLES = 1024
"""Samples a refit reads at most; more move the solution little and cost a forward pass each."""
INTERIM_SAMPLES = 256
"""The same for a refit that another round follows: it only has to steer the next scores."""
MIN_SAMPLES = 8
"""With fewer there is nothing to set aside."""
CHECK_SHARE = 0.2


@dataclass(frozen=True)
class RefitSamples:
    """Two disjoint parts of the samples that are scored on.

    The samples held out for the report's metric are in neither.

    Attributes:
        fitted: What the regressions are fitted on.
        checked: What chooses ridge weights and decides whether a change is kept.
    """

    fitted: Dataset
    checked: Dataset

    @classmethod
    def draw(cls, dataset: Dataset, seed: int, limit: int = MAX_SAMPLES) -> RefitSamples | None:
        """Draw both parts; None where there are fewer than `MIN_SAMPLES` samples.

        Args:
            dataset: The bundle bound to the model.
            seed: Of the draw.
            limit: Samples of both parts together, at most.
        """
        rng = np.random.default_rng([seed, dataset.scored.size])
        order = rng.permutation(dataset.scored)[:limit]
        if order.size < MIN_SAMPLES:
            return None
        count = max(2, round(CHECK_SHARE * order.size))
        return cls(
            replace(dataset, scored=np.sort(order[count:])),
            replace(dataset, scored=np.sort(order[:count])),
        )

    @property
    def fitted_count(self) -> int:
        """Samples that are fitted."""
        return int(self.fitted.scored.size)

    @property
    def checked_count(self) -> int:
        """Samples that are set aside."""
        return int(self.checked.scored.size)

    def missing_classes(self, count: int) -> list[int]:
        """Classes that no sample of either part has; none where targets are no class ids.

        Args:
            count: How many classes the network tells apart.
        """
        info = self.fitted.target_info
        if info is None or not is_class_id(info):
            return []
        used = np.concatenate([self.fitted.scored, self.checked.scored])
        found = self.fitted.bundle.read(info.name, np.sort(used))
        missing: list[int] = np.setdiff1d(np.arange(count), found.reshape(-1)).tolist()
        return missing

    def batches(self) -> Iterator[Batch]:
        """All batches; those that are fitted come first, and no batch is both."""
        return itertools.chain(self.fitted.batches("scored"), self.checked.batches("scored"))
