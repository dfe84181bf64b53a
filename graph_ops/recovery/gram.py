"""Ridge regression from streamed rows: normal equations, and their dual.

Rows x (what a layer reads at one output position) predict residuals e (what its output lacks). With
both centred, the change Δ of the weights and b of the bias that minimise

    Σ ‖e − xΔ − b‖² + λ·s·‖Δ‖²        s: mean of the diagonal of Σ xᵀx

solve (XᵀX + λ·s·I)·Δ = Xᵀe and b = ē − x̄Δ. λ = 0 is least squares; λ → ∞ leaves the weights as they
are and moves the bias alone. XᵀX is accumulated in float64 as rows come, so that memory depends on
the width of a row, never on their number. Where there are fewer rows than a row is wide, the dual
form solves as many equations as there are rows: Δ = Xᵀ·(XXᵀ + λ·s·I)⁻¹·e.

A grouped convolution is a stack of independent regressions: groups are axis 0 of every matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from graph_ops.recovery.blas import threads_for
from graph_ops.runtime import Array

Matrix = NDArray[np.float64]
CHUNK = 4096
"""Columns of the dual form that are in float64 at a time."""


@dataclass(frozen=True)
class Change:
    """What is added to a layer, in the space of the values that are matched.

    Attributes:
        weights: [groups, inputs, outputs]; None leaves them as they are.
        bias: [groups, outputs]
    """

    weights: Array | None
    bias: Matrix

    def predict(self, rows: Array) -> Matrix:
        """[groups, rows, outputs] change of the outputs for rows [groups, rows, inputs]."""
        moved = np.broadcast_to(
            self.bias[:, None, :], (self.bias.shape[0], rows.shape[1], self.bias.shape[1])
        )
        if self.weights is None:
            return np.asarray(moved, dtype=np.float64)
        with threads_for(rows.shape[2]):
            return np.asarray(np.matmul(rows, self.weights) + moved, dtype=np.float64)


class Equations(Protocol):
    """Rows in, a regularised solution out."""

    count: int
    name: str

    def add(self, rows: Array, residuals: Array) -> None:
        """Add rows [groups, rows, inputs] and residuals [groups, rows, outputs]."""
        ...

    def solve(self, ridge: float) -> Change | None:
        """The solution at a ridge weight; None where the equations are singular."""
        ...

    def shift(self) -> Change:
        """The best change of the bias alone."""
        ...


class NormalEquations:
    """XᵀX and Xᵀe, accumulated in float64.

    Args:
        has_intercept: Whether a bias may change.
    """

    name = "normal"

    def __init__(self, has_intercept: bool = True) -> None:
        self.count = 0
        self._has_intercept = has_intercept
        self._origin: Matrix | None = None
        self._gram: Matrix = np.empty((0, 0, 0))
        self._cross: Matrix = np.empty((0, 0, 0))
        self._sum: Matrix = np.empty((0, 0))
        self._residuals: Matrix = np.empty((0, 0))
        self._system: tuple[float, Factorised | None] | None = None

    def add(self, rows: Array, residuals: Array) -> None:
        """Add rows [groups, rows, inputs] and residuals [groups, rows, outputs]."""
        x = rows.astype(np.float64)
        e = residuals.astype(np.float64)
        if self._origin is None:
            self._origin = x.mean(axis=1, keepdims=True) if self._has_intercept else x[:, :1] * 0
            groups, _, width = x.shape
            self._gram = np.zeros((groups, width, width))
            self._cross = np.zeros((groups, width, e.shape[2]))
            self._sum = np.zeros((groups, width))
            self._residuals = np.zeros((groups, e.shape[2]))
        x -= self._origin
        with threads_for(x.shape[2]):
            for group in range(x.shape[0]) if x.shape[0] == 1 else ():
                self._gram[group] += x[group].T @ x[group]
            if x.shape[0] > 1:
                self._gram += np.matmul(x.swapaxes(1, 2), x)
        self._sum += x.sum(axis=1)
        self.count += x.shape[1]
        self._system = None
        self._aim_at(x, e)

    def aim_anew(self, parts: Iterable[tuple[Array, Array]]) -> None:
        """Give the same rows other residuals; XᵀX and its factorisation stay.

        Args:
            parts: Rows [groups, n, inputs] and their residuals [groups, n, outputs], all of them.
        """
        self._cross = np.zeros_like(self._cross)
        self._residuals = np.zeros_like(self._residuals)
        assert self._origin is not None
        for rows, residuals in parts:
            self._aim_at(rows.astype(np.float64) - self._origin, residuals.astype(np.float64))

    def _aim_at(self, x: Matrix, e: Matrix) -> None:
        with threads_for(x.shape[2]):
            if x.shape[0] == 1:
                self._cross[0] += x[0].T @ e[0]
            else:
                self._cross += np.matmul(x.swapaxes(1, 2), e)
        self._residuals += e.sum(axis=1)

    def solve(self, ridge: float) -> Change | None:
        """The solution at a ridge weight; None where the equations are singular."""
        assert self._origin is not None
        if self._system is None or self._system[0] != ridge:
            self._system = None  # the memory of one factorisation, not of two
            self._system = (ridge, self._factorised(ridge))
        system = self._system[1]
        weights = None if system is None else system.solve(self._centred_cross())
        if weights is None:
            return None
        if not self._has_intercept:
            return Change(weights, np.zeros_like(self._residuals))
        mean = self._origin[:, 0] + self._sum / self.count
        bias = self._residuals / self.count - np.matmul(mean[:, None], weights)[:, 0]
        return Change(weights, bias)

    def shift(self) -> Change:
        """The best change of the bias alone."""
        bias = self._residuals / max(1, self.count)
        return Change(None, bias if self._has_intercept else np.zeros_like(bias))

    def _factorised(self, ridge: float) -> Factorised | None:
        """What solves the equations at a ridge weight; None where they are singular."""
        gram = self._gram.copy()
        if self._has_intercept:
            gram -= self._sum[:, :, None] * self._sum[:, None, :] / self.count
        scale = np.trace(gram, axis1=1, axis2=2) / gram.shape[1]
        if not np.isfinite(scale).all() or not (scale > 0).any():
            return None
        scale = np.where(scale > 0, scale, 1.0)
        diagonal = np.arange(gram.shape[1])
        gram[:, diagonal, diagonal] += ridge * scale[:, None]
        return factorised(gram)

    def _centred_cross(self) -> Matrix:
        if not self._has_intercept:
            return self._cross
        return self._cross - self._sum[:, :, None] * self._residuals[:, None, :] / self.count


class DualEquations:
    """The rows themselves; for one group with fewer rows than inputs.

    Args:
        has_intercept: Whether a bias may change.
    """

    name = "dual"

    def __init__(self, has_intercept: bool = True) -> None:
        self.count = 0
        self._has_intercept = has_intercept
        self._rows: list[Array] = []
        self._residuals: list[Array] = []
        self._gram: Matrix | None = None

    def add(self, rows: Array, residuals: Array) -> None:
        """Add rows [1, rows, inputs] and residuals [1, rows, outputs]."""
        self._rows.append(rows[0].astype(np.float32))
        self._residuals.append(residuals[0].astype(np.float64))
        self.count += rows.shape[1]

    def solve(self, ridge: float) -> Change | None:
        """The solution at a ridge weight; None where the equations are singular."""
        x, e, mean = self._centred()
        if self._gram is None:
            self._gram = _outer(x)
        scale = np.trace(self._gram) / x.shape[1]
        if not np.isfinite(scale) or scale <= 0:
            return None
        gram = self._gram + ridge * scale * np.eye(self.count)
        weight_of_rows = solve_positive(gram[None], (e - e.mean(axis=0) * self._centre)[None])
        if weight_of_rows is None:
            return None
        weights = (x.T @ weight_of_rows[0].astype(np.float32))[None]
        bias = self._centre * (e.mean(axis=0) - mean.astype(np.float64) @ weights[0])
        return Change(weights, bias[None])

    def shift(self) -> Change:
        """The best change of the bias alone."""
        return Change(None, self._centre * np.concatenate(self._residuals).mean(axis=0)[None])

    @property
    def _centre(self) -> float:
        return 1.0 if self._has_intercept else 0.0

    def _centred(self) -> tuple[NDArray[np.float32], Matrix, NDArray[np.float32]]:
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        x = self._rows[0]
        mean = x.mean(axis=0, dtype=np.float64).astype(np.float32) * np.float32(self._centre)
        return x - mean, np.concatenate(self._residuals), mean


def _outer(x: Array) -> Matrix:
    """X·Xᵀ in float64, a stretch of columns at a time."""
    gram = np.zeros((x.shape[0], x.shape[0]))
    for begin in range(0, x.shape[1], CHUNK):
        part = x[:, begin : begin + CHUNK].astype(np.float64)
        with threads_for(x.shape[0]):
            gram += part @ part.T
    return gram


class Factorised:
    """Symmetric positive definite systems, one for each group, ready to be solved.

    Args:
        gram: [groups, n, n]; its memory is taken.

    Raises:
        LinAlgError: one is not definite.
        ValueError: not all numbers are finite.
    """

    def __init__(self, gram: Matrix) -> None:
        self._factor: tuple[Matrix, bool] | None = None
        with threads_for(gram.shape[1]):
            if gram.shape[0] == 1:
                factor, is_lower = cho_factor(gram[0], lower=True, overwrite_a=True)
                self._factor = np.asarray(factor), bool(is_lower)
                return
            np.linalg.cholesky(gram)  # `solve` takes what is not definite, too
        self._gram = gram

    def solve(self, cross: Matrix) -> Matrix | None:
        """[groups, n, outputs] solutions for right sides; None where they are not finite."""
        if not np.isfinite(cross).all():
            return None
        with threads_for(cross.shape[1]):
            if self._factor is None:
                solved = np.asarray(np.linalg.solve(self._gram, cross), dtype=np.float64)
            else:
                solved = np.asarray(cho_solve(self._factor, cross[0]), dtype=np.float64)[None]
        return solved if np.isfinite(solved).all() else None


def factorised(gram: Matrix) -> Factorised | None:
    """Systems ready to be solved; None where one is not positive definite.

    Args:
        gram: [groups, n, n]; its memory is taken.
    """
    try:
        return Factorised(gram)
    except (LinAlgError, np.linalg.LinAlgError, ValueError):
        return None


def solve_positive(gram: Matrix, cross: Matrix) -> Matrix | None:
    """Solve symmetric positive definite systems by Cholesky; None where one is not definite."""
    system = factorised(gram)
    return None if system is None else system.solve(cross)
