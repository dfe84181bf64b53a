"""What layers are worth to the outputs, measured: parts of each go, the rest is refitted.

A first-order score says which filter of a layer matters least; across layers it is a poor judge,
above all where what is left is refitted: some layers' filters can be made up for by others and some
cannot. So the order within a layer is left to the scores, and the layers are compared by

    E_b(n) = error² of the outputs, on samples set aside, with the n least filters of layer b gone
             and the layers that read it refitted (`trials.py`),

at a few n. In between √E is taken to be linear. Errors of several layers add up, about, as squares
do; so the next filter of a layer costs E_b(n + 1) − E_b(n), and a greedy choice by that cost per
MAC saved spreads the cut over the layers. Choosing sizes of layers by measured errors is what
ZipLM (Kurtic et al. 2023, arXiv 2302.04089) does for layers of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.channels import ChannelClasses
from graph_ops.errors import OptionsError
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.samples import INTERIM_SAMPLES, MAX_SAMPLES, MIN_SAMPLES, RefitSamples
from graph_ops.recovery.trials import WHOLE_ERROR, Trials
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.selection import DropOrder

SHARES = (0.25, 0.5, 0.75)
"""Parts of what may go of a layer that are tried."""
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
    if not judge.can_compare:
        raise _unmeasured("the model's outputs are not finite float numbers other than zero")
    trials = Trials(classes, dropped, weights, samples, judge, REFITS[recovery], seed)
    before = trials.squared_error([], 0)
    total = sum(len(_counts(layer)) for layer in layers)
    tell(0, total)
    trials.observe(c for layer in layers for unit in layer.units for c in unit)
    costs = np.full(classes.count, np.nan)
    done = 0
    places = [trials.place(layer.units[0]) for layer in layers]
    for place, layer in sorted(zip(places, layers, strict=True), key=lambda pair: pair[0]):
        found = {0: 0.0}
        for count in _counts(layer):
            going = [c for unit in layer.units[:count] for c in unit]
            found[count] = max(0.0, trials.squared_error(going, place) - before)
            done += 1
            tell(done, total)
        spread(layer, found, costs)
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
