"""The ridge weight of a layer, chosen on samples that were set aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graph_ops.recovery.gram import Change, Equations
from graph_ops.runtime import Array

RIDGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Weights tried, relative to the mean square of an input. Between the ends, a factor of ten is as
fine as the held-out error can tell apart; the smallest is for networks whose channels are exact
combinations of each other."""
CHECK_ROWS = 4096


class HeldOut:
    """Rows of the samples that were set aside, at most `CHECK_ROWS` of them."""

    def __init__(self) -> None:
        self.count = 0
        self._rows: list[Array] = []
        self._residuals: list[Array] = []
        self._energy = 0.0

    def add(self, rows: Array, residuals: Array, targets: Array) -> None:
        """Add rows [groups, n, inputs], residuals and the outputs aimed at [groups, n, outputs]."""
        n = min(rows.shape[1], CHECK_ROWS - self.count)
        if n <= 0:
            return
        self._rows.append(rows[:, :n].astype(np.float32))
        self._residuals.append(residuals[:, :n].astype(np.float64))
        self._energy += float(np.square(targets[:, :n].astype(np.float64)).sum())
        self.count += n

    def error(self, change: Change | None) -> float:
        """Root mean square of what a change leaves, relative to that of the outputs aimed at."""
        left = 0.0
        for rows, residuals in zip(self._rows, self._residuals, strict=True):
            gap = residuals if change is None else residuals - change.predict(rows)
            left += float(np.square(gap).sum())
        if not np.isfinite(left) or not np.isfinite(self._energy):
            return float("nan")
        if self._energy == 0.0:
            return 0.0 if left == 0.0 else float(np.sqrt(left / max(1, self.count)))
        return float(np.sqrt(left / self._energy))


@dataclass(frozen=True)
class Choice:
    """A change and how well it does.

    Attributes:
        change: What is added; None leaves the layer as it is.
        ridge: Its ridge weight; None where only the bias moves.
        before: Held-out relative error as it is.
        after: The same with the change.
        is_singular: Whether a Cholesky factorisation failed on the way.
    """

    change: Change | None
    ridge: float | None
    before: float
    after: float
    is_singular: bool = False


def choose(equations: Equations, held_out: HeldOut, *, ridges: tuple[float, ...]) -> Choice:
    """The change with the smallest held-out error.

    It has some ridge weight, or moves the bias alone, or there is none.

    Args:
        equations: From the samples that are fitted.
        held_out: Rows of those that were set aside.
        ridges: Weights tried; none of them leaves the weights as they are.
    """
    before = held_out.error(None)
    best = Choice(None, None, before, before)
    if not np.isfinite(before):
        return best
    is_singular = False
    for ridge in (None, *ridges):
        change = equations.shift() if ridge is None else equations.solve(ridge)
        if change is None:
            is_singular = True
            continue
        error = held_out.error(change)
        if error < best.after:
            best = Choice(change, ridge, before, error)
    return Choice(best.change, best.ridge, before, best.after, is_singular)
