"""Second moments of what a layer reads, and what they say when some of it goes.

A layer computes x·W. When some of its inputs go and the others stay as they are, what it lacks is
x_d·W_d, of the same rows; so the ridge regression that makes up for it needs nothing but the
covariance of x, and every choice of inputs that stay takes a part of the same matrix:

    (C_kk + λ·s·I)·Δ = C_kd·W_d,   b = x̄_d·W_d − x̄_k·Δ        s: mean of the diagonal of C_kk

Where there are fewer rows than inputs the rows themselves are kept, and the dual is solved.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_ops.recovery.blas import threads_for
from graph_ops.recovery.gram import Change, Matrix, solve_positive
from graph_ops.runtime import Array

RIDGE = 1e-3
"""λ. A trial has no rows to choose it by."""
WIDE_RIDGE = 0.1
"""The same where there are fewer rows than inputs, which could be fitted exactly."""


NOISY_RIDGE = 0.1
"""λ where what is read will itself be off, because layers before it are cut as well. Refits choose
about as much there."""


class Moments:
    """Mean and covariance of rows, in float64; groups are axis 0 of every array.

    Args:
        is_wide: Whether rows are kept instead of a covariance, because they will be fewer than
            they are wide.
    """

    def __init__(self, *, is_wide: bool = False) -> None:
        self.count = 0
        self._is_wide = is_wide
        self._origin = self._gram = self._sum = np.empty(0)
        self._rows: list[NDArray[np.float32]] = []

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self._gram.nbytes + sum(rows.nbytes for rows in self._rows)

    def add(self, rows: Array) -> None:
        """Add rows [groups, rows, inputs]."""
        x = rows.astype(np.float64)
        if not self.count:
            self._origin = x.mean(axis=1, keepdims=True)
            width = 0 if self._is_wide else x.shape[2]
            self._gram = np.zeros((x.shape[0], width, width))
            self._sum = np.zeros((x.shape[0], x.shape[2]))
        x -= self._origin
        if self._is_wide:
            self._rows.append(x.astype(np.float32))
        with threads_for(x.shape[2]):
            for group, part in enumerate(() if self._is_wide else x):
                self._gram[group] += part.T @ part
        self._sum += x.sum(axis=1)
        self.count += x.shape[1]

    def make_up(
        self,
        matrix: Array,
        kept_inputs: NDArray[np.bool_],
        kept_outputs: NDArray[np.bool_],
        *,
        with_weights: bool,
    ) -> Change | None:
        """The change of what is left of a layer that makes up best for what goes.

        Args:
            matrix: [groups, inputs, outputs] weight of the whole layer.
            kept_inputs: [groups, inputs] which of its inputs stay.
            kept_outputs: [groups, outputs] which of its outputs stay.
            with_weights: Whether weights change, or the bias alone.

        Returns:
            The change, [groups, kept inputs, kept outputs]; None where there is none: groups
            differ in size, nothing is left, or numbers are not finite.
        """
        sizes = {
            (int(k.sum()), int(o.sum())) for k, o in zip(kept_inputs, kept_outputs, strict=True)
        }
        if len(sizes) != 1 or 0 in next(iter(sizes)) or not self.count:
            return None
        weights, biases = [], []
        for group, (kept, outputs) in enumerate(zip(kept_inputs, kept_outputs, strict=True)):
            lost = matrix[group][np.ix_(~kept, outputs)].astype(np.float64)
            mean = self._origin[group, 0] + self._sum[group] / self.count
            bias = mean[~kept] @ lost
            if with_weights:
                delta = self._solve(group, kept, lost)
                if delta is None:
                    return None
                weights.append(delta)
                bias = bias - mean[kept] @ delta
            biases.append(bias)
        return Change(np.stack(weights) if with_weights else None, np.stack(biases))

    def precision(self) -> tuple[Matrix, Matrix] | None:
        """Covariance of the inputs of one group, and its inverse with a ridge for noisy inputs.

        Returns:
            Both [inputs, inputs]; None for several groups, where rows were kept instead, and where
            there is none.
        """
        if not self.count or self._is_wide or self._gram.shape[0] != 1:
            return None
        covariance = self._gram[0] / self.count
        mean = self._sum[0] / self.count
        covariance -= np.outer(mean, mean)
        width = covariance.shape[0]
        scale = float(np.trace(covariance)) / width
        if not np.isfinite(scale) or scale <= 0:
            return None
        gram = covariance + NOISY_RIDGE * scale * np.eye(width)
        solved = solve_positive(gram[None], np.eye(width)[None])
        return None if solved is None else (covariance, solved[0])

    def _solve(self, group: int, kept: NDArray[np.bool_], lost: Matrix) -> Matrix | None:
        """[kept inputs, outputs] Δ of one group."""
        if self._is_wide:
            return self._solve_dual(group, kept, lost)
        total = self._sum[group]
        rows = self._gram[group][kept]
        gram = rows[:, kept] - np.outer(total[kept], total[kept]) / self.count
        cross = (rows[:, ~kept] - np.outer(total[kept], total[~kept]) / self.count) @ lost
        scale = float(np.trace(gram)) / gram.shape[0]
        if not np.isfinite(scale) or scale <= 0:
            return None
        diagonal = np.arange(gram.shape[0])
        gram[diagonal, diagonal] += RIDGE * scale
        solved = solve_positive(gram[None], cross[None])
        return None if solved is None else solved[0]

    def _solve_dual(self, group: int, kept: NDArray[np.bool_], lost: Matrix) -> Matrix | None:
        """[kept inputs, outputs] Δ of one group, from its rows."""
        self._rows = [np.concatenate(self._rows, axis=1)]
        x = self._rows[0][group] - (self._sum[group] / self.count).astype(np.float32)
        left = x[:, kept]
        gram = (left @ left.T).astype(np.float64)
        scale = float(np.trace(gram)) / left.shape[1]
        if not np.isfinite(scale) or scale <= 0:
            return None
        gram += WIDE_RIDGE * scale * np.eye(self.count)
        solved = solve_positive(gram[None], (x[:, ~kept] @ lost)[None])
        return None if solved is None else left.T @ solved[0]
