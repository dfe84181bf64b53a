"""What is fitted for one layer: the bias alone, or its weight and bias by ridge regression."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from graph_ops.graph import constant_array
from graph_ops.recovery.gram import Change, DualEquations, Equations, NormalEquations
from graph_ops.recovery.layers import Layer
from graph_ops.recovery.mixing import MixingEquations
from graph_ops.recovery.originals import Drawn
from graph_ops.recovery.refinement import KeptRows, refine
from graph_ops.recovery.ridge import CHECK_ROWS, RIDGES, Choice, HeldOut, choose
from graph_ops.recovery.rows import WindowForm, draw, draw_positions
from graph_ops.recovery.summary import LayerRecovery
from graph_ops.runtime import Array

ROWS = 24576
"""Rows that are fitted, of every layer: narrow ones gain by many as well."""
CHANNEL_ROWS = 16
"""Rows for each channel where channels are mixed."""
WIDEST = 6144
"""Widest row whose normal equations are formed: 300 MB for one matrix."""
DUAL_ROWS = 4096
"""Most rows of the dual form."""
BLOCKED = 1e-6
"""A channel whose output is multiplied by less than this (relative to the largest) on the way to
where it is matched keeps its weights: they hardly matter, and would come out huge."""


@dataclass(frozen=True)
class Seen:
    """A batch, as a layer sees it.

    Attributes:
        x: What the layer reads in the cut network.
        source: What it reads in the original; None where the fit does not ask for it.
        found: The cut network's values where the layer is matched.
        wanted: The original's there, in all its channels; None where `drawn` has them.
        drawn: The original's there at positions that were drawn before.
        share: How much of axis 0 counts; what is behind is padding of the batch.
        is_checked: Whether the samples are set aside.
    """

    x: Array
    source: Array | None
    found: Array
    wanted: Array | None
    drawn: Drawn | None
    share: float
    is_checked: bool


class Fit(Protocol):
    """Sees every batch, then says what to change."""

    needs_source: bool
    """Whether it compares what the layer reads with what it reads in the original."""

    def add(self, seen: Seen) -> None:
        """See a batch."""
        ...

    def choose(self) -> tuple[Change | None, LayerRecovery]:
        """The change that is kept (None for none), and what to report."""
        ...


class BiasFit:
    """The mean of what is missing, over all positions of all samples.

    What a removed channel put into the layer is constant but for its deviation from its mean; the
    mean goes into the bias. Near the border of a padded convolution fewer taps of the channel
    counted, so there the constant is off: the errors reported are over all positions, borders
    included.
    """

    needs_source = False

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._count = [0, 0]
        self._sum: list[Array] = [np.zeros(layer.scale.size), np.zeros(layer.scale.size)]
        self._squares = 0.0
        self._energy = 0.0

    def add(self, seen: Seen) -> None:
        """See a batch."""
        found, wanted, is_checked = seen.found, seen.wanted, seen.is_checked
        assert wanted is not None
        axis = channel_axis(self._layer, found)
        if self._layer.kept is not None:
            wanted = np.compress(self._layer.kept, wanted, axis=axis)
        rows = round(seen.share * found.shape[0])
        gap = np.moveaxis(wanted[:rows].astype(np.float64) - found[:rows], axis, -1)
        gap = gap.reshape(-1, gap.shape[-1])
        self._sum[is_checked] = self._sum[is_checked] + gap.sum(axis=0)
        self._count[is_checked] += gap.shape[0]
        if is_checked:
            self._squares += float(np.square(gap).sum())
            self._energy += float(np.square(wanted[:rows].astype(np.float64)).sum())

    def choose(self) -> tuple[Change | None, LayerRecovery]:
        """The mean, if it lowers the error on the samples set aside."""
        bias = self._sum[0] / max(1, self._count[0])
        if self._layer.slot is None:
            return None, self._summary("none", None, "it has no bias and cannot be given one")
        bias = np.where(self._layer.slot.after == 0.0, 0.0, bias)
        moved = float(self._count[1] * (bias @ bias) - 2 * bias @ self._sum[1])
        left = self._squares + moved
        if not np.isfinite(left) or not np.isfinite(self._energy):
            return None, self._summary("none", None, NOT_FINITE)
        if left >= self._squares:
            reason = None if self._squares == 0 else NOT_LOWER
            return None, self._summary("none", self._squares, reason)
        groups = self._layer.form.groups
        return Change(None, bias.reshape(groups, -1)), self._summary("bias", max(left, 0.0), None)

    def _summary(self, method: str, left: float | None, reason: str | None) -> LayerRecovery:
        before = _relative(self._squares, self._energy)
        return LayerRecovery(
            self._layer.name,
            self._layer.node.op_type,
            method,
            matched_to=self._layer.matched_to,
            rows=self._count[0],
            error_before=before,
            error_after=None if left is None else _relative(left, self._energy),
            reason=reason,
        )


NOT_FINITE = "NaN or infinity in what it reads or in what the original computes"
NOT_LOWER = "no change lowers its error on the samples set aside"


class LinearFit:
    """Weight and bias by ridge regression, the ridge weight chosen on the samples set aside.

    Args:
        layer: The layer.
        fitted: Samples that will be fitted.
        checked: Samples that will be set aside.
        seed: Of the positions drawn.
        draws_more: Whether it draws as many positions as any form of its equations asks for, so
            that `drawn` serves the layer at any size.
    """

    def __init__(
        self, layer: Layer, fitted: int, checked: int, seed: int, *, draws_more: bool = False
    ) -> None:
        self._layer = layer
        self._draws_more = draws_more
        self.drawn: list[Drawn] = []
        """The original at the positions of each batch."""
        self._fitted = fitted
        self._checked = checked
        self._rng = np.random.default_rng([seed, layer.index])
        self._equations: Equations | None = None
        self._held_out = HeldOut(layer.visible)
        self._kept = KeptRows()
        self._positions = 0
        self._is_finite = True
        self._is_constant = True
        self.needs_source = (
            isinstance(layer.form, WindowForm)
            and layer.form.groups == 1
            and layer.form.inputs > WIDEST
            and layer.fixed is None
        )

    def add(self, seen: Seen) -> None:
        """See a batch."""
        x, found, is_checked = seen.x, seen.found, seen.is_checked
        form = self._layer.form
        whole = x.shape[0]
        counted = round(seen.share * whole)
        grid = form.grid(found, whole)
        if self._equations is None:
            self._equations = self._start(int(np.prod(grid)))
        count = self._used(self._positions, is_checked)
        drawn = seen.drawn or self._draw(seen, grid, counted, count)
        if self._draws_more:
            self.drawn.append(drawn)
        at = drawn.draw.first(count)
        rows = form.rows(x, at, whole)
        wanted = drawn.draw.pick(drawn.values, count)
        if self._layer.kept is not None:
            wanted = wanted[:, self._layer.kept]
        targets = form.split(wanted).astype(np.float64)
        values = form.split(form.outputs(found, at, whole))
        residuals = targets - values
        if not np.isfinite(rows).all() or not np.isfinite(residuals).all():
            self._is_finite = False
        if not self._is_finite:
            return
        if is_checked:
            self._held_out.add(rows, residuals, targets)
        else:
            self._is_constant &= bool((rows == rows[:, :1]).all())
            self._equations.add(rows, residuals)
            is_normal = isinstance(self._equations, NormalEquations)
            if is_normal and not self._layer.visible.is_everything:
                self._kept.add(rows, values, targets)
            if seen.source is not None:
                self._add_channels(seen.source, x, counted)

    def choose(self) -> tuple[Change | None, LayerRecovery]:
        """The change with the smallest error on the samples set aside."""
        if not self._is_finite or self._equations is None:
            return None, self._summary("none", None, NOT_FINITE)
        ridges = RIDGES if self._layer.fixed is None else ()
        confined = _Confined(self._equations, self._layer)
        choice = choose(confined, self._held_out, ridges=ridges)
        if (
            choice.ridge is not None
            and self._kept.is_complete
            and isinstance(self._equations, NormalEquations)
        ):
            choice = refine(choice, self._equations, confined, self._kept, self._held_out)
        if choice.change is None:
            reason = NOT_LOWER if choice.before > 0 else None
            return None, self._summary("none", choice, reason)
        method = "bias" if choice.change.weights is None else "reconstruct"
        return choice.change, self._summary(method, choice, self._remark(choice))

    def can_use(self, drawn: list[Drawn]) -> bool:
        """Whether values that an earlier refit drew are those that it would draw."""
        first = drawn[0].draw
        total = math.prod(first.grid)
        return not self.needs_source and (self._plan(total)[0] >= total) == first.is_whole

    def _plan(self, available: int) -> tuple[int, bool]:
        """How many positions of a sample are fitted, and whether the dual form is."""
        positions = min(available, self._most_positions)
        few = max(1, min(positions, DUAL_ROWS // max(1, self._fitted)))
        if self.needs_source:
            return few, False
        inputs = self._layer.form.inputs
        is_narrow = positions * self._fitted >= inputs and inputs <= WIDEST
        if self._layer.form.groups > 1 or is_narrow:
            return positions, False
        return few, True

    @property
    def _most_positions(self) -> int:
        """Of a sample that is fitted, where there are so many."""
        return max(1, -(-ROWS // max(1, self._fitted)))

    def _used(self, positions: int, is_checked: bool) -> int:
        """How many of the positions are, of a sample of either part."""
        if not is_checked:
            return positions
        return max(1, min(positions, CHECK_ROWS // max(1, self._checked)))

    def _draw(self, seen: Seen, grid: tuple[int, ...], counted: int, count: int) -> Drawn:
        """Positions, and the original there."""
        assert seen.wanted is not None
        pool = self._used(self._most_positions, seen.is_checked) if self._draws_more else 0
        found = draw(self._rng, counted, grid, count, pool)
        values = self._layer.form.outputs(seen.wanted, found.positions, seen.x.shape[0])
        return Drawn(found, values.reshape(counted, -1, values.shape[1]))

    def _start(self, available: int) -> Equations:
        """The form of the equations; sets how many positions of a sample are fitted."""
        self._positions, is_dual = self._plan(available)
        has_intercept = self._layer.slot is not None
        if self.needs_source:
            return self._start_mixing(has_intercept)
        return DualEquations(has_intercept) if is_dual else NormalEquations(has_intercept)

    def _start_mixing(self, has_intercept: bool) -> MixingEquations:
        layer, form = self._layer, self._layer.form
        assert isinstance(form, WindowForm)
        original, current = (constant_array(n.inputs[1]) for n in (layer.original, layer.node))
        assert original is not None
        assert current is not None
        whole = form.matrix(original)[0]
        if layer.kept is not None:
            whole = np.compress(layer.kept, whole, axis=2)
        return MixingEquations(
            whole, form.matrix(current)[0], layer.kept_inputs, layer.scale, has_intercept
        )

    def _add_channels(self, source: Array, x: Array, counted: int) -> None:
        """Show the equations both networks' inputs at positions drawn from each sample."""
        assert isinstance(self._equations, MixingEquations)
        wanted = CHANNEL_ROWS * x.shape[1] // max(1, self._fitted) + 1
        at = draw_positions(self._rng, counted, x.shape[2:], wanted)
        index: Any = (at[:, 0], slice(None), *(at[:, 1 + a] for a in range(x.ndim - 2)))
        if np.isfinite(source[index]).all():
            self._equations.add_channels(x[index], source[index])
        else:
            self._is_finite = False

    def _remark(self, choice: Choice) -> str | None:
        assert self._equations is not None
        if self._layer.fixed is not None:
            return self._layer.fixed
        if self._is_constant:
            return "what it reads is constant, so only its bias can change"
        if choice.is_singular:
            return "its equations are singular at some ridge weights; another was taken"
        if self._equations.name == "channels":
            return "it is too wide for a regression of its taps: its input channels were mixed anew"
        if self._equations.count < self._layer.form.inputs:
            return (
                f"{self._equations.count} rows are too few for its {self._layer.form.inputs} "
                "inputs: the change is the smallest that fits them"
            )
        return None

    def _summary(self, method: str, choice: Choice | None, reason: str | None) -> LayerRecovery:
        equations = self._equations
        return LayerRecovery(
            self._layer.name,
            self._layer.node.op_type,
            method,
            matched_to=self._layer.matched_to,
            equations=None if equations is None else equations.name,
            inputs=self._layer.form.inputs,
            rows=0 if equations is None else equations.count,
            ridge=None if choice is None else choice.ridge,
            error_before=None if choice is None or np.isnan(choice.before) else choice.before,
            error_after=None if choice is None or np.isnan(choice.after) else choice.after,
            reason=reason,
        )


class _Confined:
    """Equations whose solution leaves alone what a layer cannot change."""

    def __init__(self, equations: Equations, layer: Layer) -> None:
        self._equations = equations
        self.count = equations.count
        self.name = equations.name
        groups = layer.form.groups
        largest = np.abs(layer.scale).max(initial=0.0)
        self._blocked = (np.abs(layer.scale) <= BLOCKED * largest).reshape(groups, -1)
        after = np.ones_like(layer.scale) if layer.slot is None else layer.slot.after
        self._has_bias = (after != 0.0).reshape(groups, -1)

    def add(self, rows: Array, residuals: Array) -> None:
        """Add rows and residuals."""
        self._equations.add(rows, residuals)

    def solve(self, ridge: float) -> Change | None:
        """The solution with the blocked channels' weights as they are."""
        change = self._equations.solve(ridge)
        if change is None or change.weights is None:
            return change
        weights = np.where(self._blocked[:, None, :], 0.0, change.weights)
        bias = np.where(self._blocked, self._equations.shift().bias, change.bias)
        return Change(weights, np.where(self._has_bias, bias, 0.0))

    def shift(self) -> Change:
        """The best change of the bias alone."""
        return Change(None, np.where(self._has_bias, self._equations.shift().bias, 0.0))


def channel_axis(layer: Layer, array: Array) -> int:
    """Axis of the layer's outputs in its output."""
    return 1 if layer.node.op_type in ("Conv", "ConvTranspose") else array.ndim - 1


def _relative(squares: float, energy: float) -> float | None:
    if not np.isfinite(squares) or not np.isfinite(energy):
        return None
    return float(np.sqrt(max(squares, 0.0) / energy)) if energy > 0 else 0.0
