"""The order in which channels go when the layers that read them are refitted afterwards.

A first-order score knows nothing of that: two channels that say the same score the same, and the
refit can do without either, not without both. Here channels go one after the other. Of a layer that
reads them, with the covariance C of its inputs and its weight W (refitted to the inputs left),

    loss(u) = tr( W_uᵀ · ((C⁻¹)_uu)⁻¹ · W_u )        u: the inputs that one channel takes up

is what its outputs lose in mean square when u goes and everything else is refitted anew, relative
to what they vary by; several readers' losses add up. After each channel both are brought up to date

    W ← W − (C⁻¹)_:u · ((C⁻¹)_uu)⁻¹ · W_u      C⁻¹ ← C⁻¹ − (C⁻¹)_:u · ((C⁻¹)_uu)⁻¹ · (C⁻¹)_u:

The optimal brain surgeon (Hassibi, Stork 1993) on the least squares of a layer, for blocks of its
weights, as Frantar, Singh, Alistarh 2022 (arXiv 2208.11580) have it for single ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_ops.recovery.blas import threads_for
from graph_ops.recovery.gram import Matrix

PASSES = 64
"""Wide layers lose several channels at a time, so that they are empty after about so many."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels in question.

    Attributes:
        precision: [n, n] C⁻¹ of the inputs that the channels take up, all others left in place.
        weight: [n, outputs] their weights.
        columns: [channels] places among the n of the inputs of each channel; may be none.
        variance: What the layer's outputs vary by altogether.
    """

    precision: Matrix
    weight: Matrix
    columns: Sequence[NDArray[np.int64]]
    variance: float


@dataclass(frozen=True)
class Elimination:
    """An order of channels.

    Attributes:
        order: [channels] the first goes first.
        lost: [channels + 1] what the readers lose with so many of them gone; it rises from 0.
    """

    order: NDArray[np.int64]
    lost: NDArray[np.float64]


def eliminate(readers: Sequence[Reader], count: int) -> Elimination:
    """Take the channels that cost least, one after the other.

    Args:
        readers: All that read any of them.
        count: Channels.
    """
    states = [_State(reader) for reader in readers if reader.variance > 0.0]
    left = np.arange(count)
    order: list[int] = []
    losses: list[float] = []
    each = max(1, count // PASSES)
    while left.size:
        found = np.zeros(left.size)
        for state in states:
            found += state.losses(left)
        cheapest = np.argsort(found, kind="stable")[:each]
        order += left[cheapest].tolist()
        losses += np.maximum(found[cheapest], 0.0).tolist()
        for state in states:
            state.take(left[cheapest])
        left = np.delete(left, cheapest)
    return Elimination(np.asarray(order, dtype=np.int64), np.cumsum([0.0, *losses]))


class _State:
    """A reader as far as channels are gone."""

    def __init__(self, reader: Reader) -> None:
        self._precision = reader.precision.copy()
        self._weight = reader.weight / np.sqrt(reader.variance)
        self._columns = reader.columns

    def losses(self, channels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of each channel alone."""
        found = np.zeros(channels.size)
        sizes = np.asarray([self._columns[c].size for c in channels])
        for size in np.unique(sizes[sizes > 0]):
            these = np.flatnonzero(sizes == size)
            places = np.stack([self._columns[channels[i]] for i in these])
            blocks = self._precision[places[:, :, None], places[:, None, :]]
            weights = self._weight[places]
            solved = np.linalg.solve(blocks, weights)
            found[these] = np.einsum("uko,uko->u", weights, solved)
        return found

    def take(self, channels: NDArray[np.int64]) -> None:
        """Let channels go; what is left is refitted."""
        places = np.concatenate([self._columns[c] for c in channels])
        if not places.size:
            return
        with threads_for(self._precision.shape[0]):
            factor = np.linalg.solve(
                self._precision[np.ix_(places, places)], self._precision[places]
            )
            self._weight -= factor.T @ self._weight[places]
            self._precision -= factor.T @ self._precision[places]
        # Nothing is left of what went but rounding, which would not be inverted again.
        self._weight[places] = 0.0
        self._precision[places] = 0.0
        self._precision[:, places] = 0.0
