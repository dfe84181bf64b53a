"""Wide convolutions: the original's input channels as mixtures of those that are left.

The normal equations of a convolution are (channels · taps) wide; with many channels and a large
kernel that is too much. Here only channels are regressed, position by position:

    channel c of the original ≈ Σ_j B[j, c] · channel j that is left + b[c]

(a matrix as wide as there are channels left), and the original's weight is applied to the mixtures:
W'[t, j, m] = Σ_c B[j, c] · W[t, c, m]. All taps share one mixture, so it is coarser than a
regression of the taps, and needs far fewer rows. The bias then makes the mean right. This is the
Gram-matrix compensation of GRAIL (PMLR 328, 2026).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_ops.recovery.gram import Change, Matrix, NormalEquations
from graph_ops.runtime import Array


class MixingEquations:
    """Equations of the channels in place of those of the taps; for one group.

    Args:
        original: [taps, channels, outputs] the original's weight at the outputs that are left.
        current: [taps, channels left, outputs] the weight as it is.
        kept: [channels] which of the original's are left; None for all.
        scale: [outputs] what the outputs are multiplied by on the way to where they are matched.
        has_intercept: Whether a bias may change.
    """

    name = "channels"

    def __init__(
        self,
        original: Array,
        current: Array,
        kept: NDArray[np.bool_] | None,
        scale: Matrix,
        has_intercept: bool,
    ) -> None:
        self.count = 0
        self._original = original
        self._current = current
        self._kept = np.ones(original.shape[1], dtype=np.bool_) if kept is None else kept
        self._scale = scale
        self._has_intercept = has_intercept
        self._mixing = NormalEquations()
        self._rows: Matrix = np.zeros(current.shape[0] * current.shape[1])
        self._residuals: Matrix = np.zeros(original.shape[2])

    def add(self, rows: Array, residuals: Array) -> None:
        """Add rows [1, n, taps · channels left] and residuals [1, n, outputs]: their means."""
        self._rows = self._rows + rows[0].sum(axis=0, dtype=np.float64)
        self._residuals = self._residuals + residuals[0].sum(axis=0, dtype=np.float64)
        self.count += rows.shape[1]

    def add_channels(self, left: Array, source: Array) -> None:
        """Add inputs at the same positions.

        Args:
            left: [n, channels left] of the cut network.
            source: [n, channels] of the original.
        """
        missing = source.astype(np.float64)
        missing[:, self._kept] -= left
        self._mixing.add(left[None], missing[None])

    def solve(self, ridge: float) -> Change | None:
        """The solution at a ridge weight; None where the equations are singular."""
        mixing = self._mixing.solve(ridge)
        if mixing is None or mixing.weights is None:
            return None
        matrix = mixing.weights[0].copy()
        matrix[np.arange(matrix.shape[0]), np.flatnonzero(self._kept)] += 1.0
        weight = np.matmul(matrix[None], self._original.astype(np.float64))
        moved = (weight - self._current) * self._scale
        weights = moved.reshape(1, -1, moved.shape[2])
        bias = (self._residuals - self._rows @ weights[0]) / max(1, self.count)
        return Change(weights, bias[None] if self._has_intercept else np.zeros_like(bias)[None])

    def shift(self) -> Change:
        """The best change of the bias alone."""
        bias = self._residuals / max(1, self.count)
        return Change(None, bias[None] if self._has_intercept else np.zeros_like(bias)[None])
