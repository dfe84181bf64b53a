"""The ridge weight of a layer, chosen on samples that were set aside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graph_ops.recovery.gram import Change, Equations
from graph_ops.recovery.visible import Visible
from graph_ops.runtime import Array

RIDGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Weights to choose from, relative to the mean square of an input. A factor of ten is as fine as
the held-out error can tell apart; the smallest is for networks whose channels are exact
combinations of each other."""
CHECK_ROWS = 4096
EVERYTHING = Visible()


class HeldOut:
    """Rows of the samples that were set aside, at most `CHECK_ROWS` of them.

    Args:
        visible: What is seen of the outputs; errors are differences that are seen.
    """

    def __init__(self, visible: Visible = EVERYTHING) -> None:
        self.visible = visible
        self.count = 0
        self._rows: list[Array] = []
        self._found: list[Array] = []
        self._shown: list[Array] = []
        self._energy = 0.0

    def add(self, rows: Array, residuals: Array, targets: Array) -> None:
        """Add rows [groups, n, inputs], residuals and the outputs aimed at [groups, n, outputs]."""
        n = min(rows.shape[1], CHECK_ROWS - self.count)
        if n <= 0:
            return
        wanted = targets[:, :n].astype(np.float64)
        self._rows.append(rows[:, :n].astype(np.float32))
        self._found.append(wanted - residuals[:, :n])
        self._shown.append(self.visible.shown(wanted))
        self._energy += float(np.square(self._shown[-1]).sum())
        self.count += n

    def error(self, change: Change | None) -> float:
        """Root mean square of what a change leaves, relative to that of the outputs aimed at."""
        left = 0.0
        for rows, found, shown in zip(self._rows, self._found, self._shown, strict=True):
            values = found if change is None else found + change.predict(rows)
            left += float(np.square(shown - self.visible.shown(values)).sum())
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

    It has some ridge weight, or moves the bias alone, or there is none. The error first falls and
    then rises with the ridge weight, so the search starts in the middle and goes downhill: each
    weight costs a factorisation.

    Args:
        equations: From the samples that are fitted.
        held_out: Rows of those that were set aside.
        ridges: Weights to choose from, ascending; with none of them the weights stay.
    """
    before = held_out.error(None)
    best = Choice(None, None, before, before)
    if not np.isfinite(before):
        return best
    shift = equations.shift()
    shifted = held_out.error(shift)
    if shifted < before:
        best = Choice(shift, None, before, shifted)
    tried: dict[int, tuple[float, Change | None]] = {}

    def error_at(place: int) -> float:
        if not 0 <= place < len(ridges):
            return np.inf
        if place not in tried:
            change = equations.solve(ridges[place])
            found = np.inf if change is None else held_out.error(change)
            tried[place] = (found, change)
        return tried[place][0]

    if ridges:
        place = _downhill(error_at, len(ridges))
        if error_at(place) < best.after:
            best = Choice(tried[place][1], ridges[place], before, error_at(place))
    is_singular = any(change is None for _, change in tried.values())
    return Choice(best.change, best.ridge, before, best.after, is_singular)


def _downhill(error_at: Callable[[int], float], count: int) -> int:
    """Place of the smallest error that is reached from the middle; past what is singular, up."""
    place = count * 2 // 3
    while not np.isfinite(error_at(place)) and place + 1 < count:
        place += 1
    step = -1 if error_at(place - 1) < error_at(place) else 1
    while error_at(place + step) < error_at(place):
        place += step
    return place
