"""What layers are worth to the outputs, measured: parts of each go, the rest is refitted.

A first-order score says which filter of a layer matters least; across layers it is a poor judge,
above all where what is left is refitted: some layers' filters can be made up for by others and some
cannot. So the order within a layer is left to the scores, and the layers are compared by

    E_b(n) = error² of the outputs, on samples set aside, with the n least filters of layer b gone
             and what lies behind refitted,

at a few n. In between √E is taken to be linear. Errors of several layers add up, about, as squares
do; so the next filter of a layer costs E_b(n + 1) − E_b(n), and a greedy choice by that cost per
MAC saved spreads the cut over the layers. Choosing sizes of layers by measured errors is what
ZipLM (Kurtic et al. 2023, arXiv 2302.04089) does for layers of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.channels import ChannelClasses
from graph_ops.errors import OptionsError
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.refit import refit
from graph_ops.recovery.samples import INTERIM_SAMPLES, MAX_SAMPLES, MIN_SAMPLES, RefitSamples
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.selection import DropOrder
from graph_ops.surgery import cut

SHARES = (0.25, 0.5, 0.75)
"""Parts of what may go of a layer that are tried."""
WHOLE_ERROR = 1.0
"""Error of the outputs without a layer: about what they are themselves."""
TIE = 1e-12
"""Keeps the order within a layer where its filters cost the same."""

REFITS = {"none": None, "bias": "bias", "reconstruct": "reconstruct", "distill": "reconstruct"}
"""What is done to the rest, by the option `recovery`."""


@dataclass(frozen=True)
class Sensitivity:
    """Costs of classes that compare across layers.

    Attributes:
        costs: [classes] rise of the outputs' squared error when the class goes after those before
            it; NaN for classes of no layer that was measured.
    """

    costs: NDArray[np.float64]

    def as_scores(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """[classes] the costs; the scores themselves where nothing was measured."""
        return np.where(np.isnan(self.costs), scores, self.costs)


@dataclass(frozen=True)
class _Trial:
    """Cuts a network, refits it and judges it.

    Attributes:
        classes: Channel classes of the original.
        dropped: [classes] which are gone already.
        weights: What was refitted so far.
        samples: What is fitted and what is set aside.
        judge: Compares on what is set aside.
        method: How the rest is refitted; None for not at all.
        seed: Of the positions drawn.
    """

    classes: ChannelClasses
    dropped: NDArray[np.bool_]
    weights: RefittedWeights
    samples: RefitSamples
    judge: Judge
    method: str | None
    seed: int

    def squared_error(self, going: Sequence[int]) -> float:
        """Of the outputs, with more classes gone; never more than without the network."""
        dropped = self.dropped.copy()
        dropped[list(going)] = True
        model = cut(self.classes, dropped)
        self.weights.lay_over(self.classes, dropped, model)
        if self.method is not None and going:
            self._refit(dropped, model)
        error = self.judge.verdict(model).error
        return float(min(error, WHOLE_ERROR)) ** 2

    def _refit(self, dropped: NDArray[np.bool_], model: ir.Model) -> None:
        assert self.method is not None
        refit(
            self.classes,
            dropped,
            self.weights,
            model,
            self.samples,
            self.method,
            self.seed,
            lambda done, total: None,
        )


def measure_sensitivity(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    weights: RefittedWeights,
    dataset: Dataset,
    layers: Sequence[DropOrder],
    recovery: str,
    *,
    seed: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:
    """Measure every layer of a network as it is now.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which are gone.
        weights: What was refitted so far.
        dataset: The bundle bound to the model; its held-out part is not read.
        layers: What may go, in the order of the scores.
        recovery: The option `recovery`.
        seed: Of the samples and positions drawn.
        tell: Called with the number of trials done and of all.

    Raises:
        OptionsError: samples are too few to set some aside, or outputs cannot be compared.
        ModelRunError: ONNX Runtime fails.
    """
    samples = _few(RefitSamples.draw(dataset, seed, MAX_SAMPLES))
    if samples is None:
        raise _unmeasured(
            f"{dataset.scored.size} scored samples are too few (at least {MIN_SAMPLES})"
        )
    judge = Judge(classes.channels.model, samples.checked, None)
    trial = _Trial(classes, dropped, weights, samples, judge, REFITS[recovery], seed)
    if not judge.can_compare:
        raise _unmeasured("the model's outputs are not finite float numbers other than zero")
    before = trial.squared_error([])
    total = sum(len(_counts(layer)) for layer in layers)
    costs = np.full(classes.count, np.nan)
    done = 0
    for layer in layers:
        found = {0: 0.0}
        for count in _counts(layer):
            tell(done, total)
            going = [c for unit in layer.units[:count] for c in unit]
            found[count] = max(0.0, trial.squared_error(going) - before)
            done += 1
        spread(layer, found, costs)
    tell(total, total)
    return Sensitivity(costs)


def _unmeasured(why: str) -> OptionsError:
    return OptionsError(
        f"Option 'rank_by': error_per_mac cannot be measured, because {why}. Give score_per_mac.",
        field="rank_by",
    )


def _counts(layer: DropOrder) -> list[int]:
    """Numbers of units whose error is measured."""
    return sorted({round(s * layer.droppable) for s in SHARES} - {0})


def _few(samples: RefitSamples | None) -> RefitSamples | None:
    """All that are set aside, and as many that are fitted as a refit on the way reads."""
    if samples is None or samples.fitted_count <= INTERIM_SAMPLES:
        return samples
    fitted = samples.fitted.scored
    picked = fitted[np.linspace(0, fitted.size - 1, INTERIM_SAMPLES).round().astype(int)]
    return replace(samples, fitted=replace(samples.fitted, scored=picked))


def spread(layer: DropOrder, found: dict[int, float], costs: NDArray[np.float64]) -> None:
    """Write the cost of every class of a layer; costs rise along it.

    Args:
        layer: The layer.
        found: Number of units gone → rise of the squared error.
        costs: [classes] to be filled.
    """
    count = len(layer.units)
    points = {**found, count: max(WHOLE_ERROR, *found.values())}
    roots = np.sqrt([points[n] for n in sorted(points)])
    curve = np.square(np.interp(np.arange(count + 1), sorted(points), roots))
    sizes = np.asarray([len(unit) for unit in layer.units])
    each = np.maximum.accumulate(np.maximum(np.diff(curve), 0.0) / sizes)
    for number, unit in enumerate(layer.units):
        costs[list(unit)] = each[number] + TIE * (number + 1)
