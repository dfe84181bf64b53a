"""Batches that shrink when memory runs out.

The first batch that does not fit is tried again in halves, down to single samples; later batches
are cut to what fitted. Samples are independent of each other, so the scores are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from graph_ops.bundle import Batch
from graph_ops.errors import OutOfMemoryError
from graph_ops.runtime import Array

Contributions = tuple[Array, list[Array]]


class HalvingRunner:
    """Runs batches in pieces that fit.

    Attributes:
        limit: Most samples that are run at once, None as long as every batch has fitted.
        shortages: How often memory ran out.
    """

    def __init__(self) -> None:
        self.limit: int | None = None
        self.shortages = 0

    def run(self, batch: Batch, run: Callable[[Batch], Contributions]) -> Contributions:
        """[n] losses and [n, C] contributions of a batch.

        Args:
            batch: The samples.
            run: Computes a batch that fits.

        Raises:
            OutOfMemoryError: even one sample does not fit, or the model fixes the batch size.
        """
        rows = _rows(batch)
        if rows != batch.size:  # the model fixes the batch size
            return run(batch)
        parts: list[Contributions] = []
        done = 0
        while done < rows:
            size = min(rows - done, self.limit or rows)
            try:
                parts.append(run(_slice(batch, done, size)))
            except OutOfMemoryError:
                self.shortages += 1
                if size == 1:
                    raise
                self.limit = size // 2
                continue
            done += size
        return _joined(parts)


def _rows(batch: Batch) -> int:
    return int(next(iter(batch.inputs.values())).shape[0])


def _slice(batch: Batch, start: int, size: int) -> Batch:
    if size == batch.size:
        return batch
    rows = slice(start, start + size)
    targets = None if batch.targets is None else batch.targets[rows]
    inputs = {name: array[rows] for name, array in batch.inputs.items()}
    return Batch(inputs, targets, size, batch.indices[rows])


def _joined(parts: Sequence[Contributions]) -> Contributions:
    if len(parts) == 1:
        return parts[0]
    columns: Iterator[tuple[Array, ...]] = zip(*(p[1] for p in parts), strict=True)
    return np.concatenate([p[0] for p in parts]), [np.concatenate(c) for c in columns]
