"""A regression for what is seen of a layer's values (`visible.py`), by majorisation.

With t the original's value, ŷ the layer's and [l, h] what the readers see, minimise over rows

    Σ φ(ŷ),  φ(ŷ) = (ŷ − t)² for t in [l, h];  max(ŷ − l, 0)² for t ≤ l;  max(h − ŷ, 0)² for t ≥ h

At the values ŷ₀ of the solution so far, (ŷ − t₀)² lies above φ(ŷ) and touches it, where t₀ is t
inside the range, and beyond it the value next to ŷ₀ that looks like t. So the least squares with
targets t₀ lower Σ φ, again and again; XᵀX stays, and so does its factorisation. Responses behind a
rectifier as targets: Zhang, Zou, He, Sun, arXiv 1505.06798.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graph_ops.recovery.gram import Change, Equations, NormalEquations
from graph_ops.recovery.ridge import Choice, HeldOut
from graph_ops.recovery.visible import Visible
from graph_ops.runtime import Array

ROUNDS = 6
"""Most rounds. They lower the error ever less."""
LEAST_GAIN = 1e-3
"""The rounds end when one lowers the held-out error by less than this, relatively."""
KEPT_BYTES = 512 * 2**20
"""Rows kept of one layer, at most; what is wider keeps its least squares."""


class KeptRows:
    """The rows of a layer with its values and the original's, to be aimed at anew."""

    def __init__(self) -> None:
        self._parts: list[tuple[Array, Array, Array]] = []
        self._nbytes = 0

    @property
    def is_complete(self) -> bool:
        """Whether all rows are there."""
        return 0 < self._nbytes <= KEPT_BYTES

    def add(self, rows: Array, found: Array, wanted: Array) -> None:
        """Keep rows [groups, n, inputs], and values [groups, n, outputs]; all go if too many."""
        part = (rows.astype(np.float32), found.astype(np.float32), wanted.astype(np.float32))
        self._nbytes += sum(array.nbytes for array in part)
        if self._nbytes > KEPT_BYTES:
            self._parts.clear()
        else:
            self._parts.append(part)

    def residuals(self, change: Change, visible: Visible) -> Iterator[tuple[Array, Array]]:
        """Rows, and what a network with the change still lacks of what looks like the original."""
        for rows, found, wanted in self._parts:
            before = found.astype(np.float64)
            nearest = visible.nearest(before + change.predict(rows), wanted.astype(np.float64))
            yield rows, nearest - before


def refine(
    choice: Choice,
    equations: NormalEquations,
    confined: Equations,
    rows: KeptRows,
    held_out: HeldOut,
) -> Choice:
    """A choice whose weights are aimed at what is seen, or the choice itself where that is better.

    Args:
        choice: Of the least squares.
        equations: Its equations; their targets are changed.
        confined: The same, with what a layer cannot change left alone.
        rows: All of their rows.
        held_out: Rows of the samples set aside.
    """
    best, change = choice, choice.change
    assert choice.ridge is not None
    for _ in range(ROUNDS):
        assert change is not None
        equations.aim_anew(rows.residuals(change, held_out.visible))
        change = confined.solve(choice.ridge)
        if change is None:
            break
        error = held_out.error(change)
        is_enough = not error < best.after * (1 - LEAST_GAIN)
        if error < best.after:
            best = Choice(change, choice.ridge, choice.before, error, choice.is_singular)
        if is_enough:
            break
    return best
