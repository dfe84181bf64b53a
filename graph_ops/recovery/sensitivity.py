"""What layers are worth to the outputs, measured: parts of each go, the rest is refitted.

A first-order score says which filter of a layer matters least; across layers it is a poor judge,
above all where what is left is refitted: some layers' filters can be made up for by others and some
cannot. So the layers are compared by

    E_b(n) = error² of the outputs, on samples set aside, with the first n filters of layer b gone
             and the layers that read it refitted (`trials.py`),

at a few n. What goes first is said by the scores, or by what the readers can do without
(`elimination.py`) where that loses less. Between two n, √E is taken to be linear in n, or in the
root of what elimination says is lost. Errors of several layers add up, about, as squares
do; so the next filter of a layer costs E_b(n + 1) − E_b(n), and a greedy choice by that cost per
MAC saved spreads the cut over the layers. Choosing sizes of layers by measured errors is what
ZipLM (Kurtic et al. 2023, arXiv 2302.04089) does for layers of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.channel_classes import ChannelClasses
from graph_ops.recovery.judge import Judge
from graph_ops.recovery.samples import INTERIM_SAMPLES, MAX_SAMPLES, MIN_SAMPLES, RefitSamples
from graph_ops.recovery.trials import WHOLE_ERROR, Trials
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.selection import DropOrder

SHARES = (0.25, 0.5, 0.75)
"""Parts of what may go of a layer that are tried."""
TIE = 1e-12
"""Keeps the order within a layer where its filters cost the same."""

SLOPE = 1e-9
"""Rise of what is lost at each step at least, relative to all of it: nothing is lost with channels
that others say."""

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
class Unmeasured:
    """Why there is nothing to compare layers by.

    Attributes:
        reason: The rest of a sentence that begins with "because".
    """

    reason: str


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
) -> Sensitivity | Unmeasured:
    """Measure every layer of a network as it is now.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which are gone.
        weights: What was refitted so far.
        dataset: The bundle bound to the model; its held-out part is not read.
        layers: What may go, in the order of the scores.
        recovery: The option `recovery`.
        seed: Of the samples and positions drawn.
        tell: Called with the number of layers done and of all.

    Returns:
        The costs; why there are none where samples are too few to set some aside, or outputs
        cannot be compared.

    Raises:
        ModelRunError: ONNX Runtime fails.
    """
    samples = _few(RefitSamples.draw(dataset, seed, MAX_SAMPLES))
    if samples is None:
        count = dataset.scored.size
        return Unmeasured(f"{count} scored samples are too few (at least {MIN_SAMPLES})")
    judge = Judge(classes.channels.model, samples.checked, None)
    if not judge.can_compare:
        return Unmeasured("the model's outputs are not finite float numbers other than zero")
    trials = Trials(classes, dropped, weights, samples, judge, REFITS[recovery], seed)
    before = trials.squared_error([], 0)
    trials.observe(c for layer in layers for unit in layer.units for c in unit)
    places = [trials.place(layer.units[0]) for layer in layers]
    costs = np.full(classes.count, np.nan)
    tell(0, len(layers))
    in_turn = sorted(zip(places, layers, strict=True), key=lambda pair: pair[0])
    for done, (place, layer) in enumerate(in_turn, start=1):

        def rise(path: Path, count: int, place: int = place) -> float:
            return max(0.0, trials.squared_error(path.going(count), place) - before)

        spread(*_measured(_paths(layer, trials), rise), costs)
        tell(done, len(layers))
    return Sensitivity(costs)


@dataclass(frozen=True)
class Path:
    """An order in which a layer's units go.

    Attributes:
        units: Class ids of each, the first goes first.
        droppable: How many of them may go.
        shape: [units + 1] what the error is taken to be in proportion to between two numbers of
            units where it is measured; rises from 0.
    """

    units: Sequence[Sequence[int]]
    droppable: int
    shape: NDArray[np.float64]

    def going(self, count: int) -> list[int]:
        """The classes of the first units."""
        return [c for unit in self.units[:count] for c in unit]

    @classmethod
    def of_scores(cls, layer: DropOrder) -> Path:
        """In the order that is given; the error is taken to rise with the square of the number."""
        return cls(layer.units, layer.droppable, np.square(np.arange(len(layer.units) + 1.0)))


def _paths(layer: DropOrder, trials: Trials) -> list[Path]:
    """The order of the scores, and that of elimination where there is one."""
    paths = [Path.of_scores(layer)]
    classes = paths[0].going(len(layer.units))
    found = trials.eliminated(classes) if layer.is_free else None
    if found is not None:
        ends = np.cumsum([len(unit) for unit in layer.units])
        order = np.asarray(classes)[found.order]
        units = [unit.tolist() for unit in np.split(order, ends[:-1])]
        paths.append(Path(units, layer.droppable, _rising(found.lost[[0, *ends]])))
    return paths


def _rising(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values that do not fall, made to rise a little at every step."""
    return values + np.arange(values.size) * (SLOPE * max(float(values[-1]), SLOPE))


def _measured(
    paths: Sequence[Path], rise: Callable[[Path, int], float]
) -> tuple[Path, dict[int, float]]:
    """The path that loses least with half of what may go gone, and its rises of the error."""
    half = round(paths[0].droppable / 2)
    first = [rise(path, half) for path in paths] if half else [0.0 for _ in paths]
    best = int(np.argmin(first))
    counts = {round(s * paths[best].droppable) for s in SHARES} - {0, half}
    found = {0: 0.0, half: first[best], **{n: rise(paths[best], n) for n in sorted(counts)}}
    return paths[best], found


def _few(samples: RefitSamples | None) -> RefitSamples | None:
    """All that are set aside, and as many that are fitted as a refit on the way reads."""
    if samples is None or samples.fitted_count <= INTERIM_SAMPLES:
        return samples
    fitted = samples.fitted.scored
    picked = fitted[np.linspace(0, fitted.size - 1, INTERIM_SAMPLES).round().astype(int)]
    return replace(samples, fitted=replace(samples.fitted, scored=picked))


def spread(path: Path, found: Mapping[int, float], costs: NDArray[np.float64]) -> None:
    """Write the cost of every class of a layer; costs rise along it.

    Args:
        path: The order in which its units go.
        found: Number of units gone → rise of the squared error.
        costs: [classes] to be filled.
    """
    count = len(path.units)
    points = {**found, count: max(WHOLE_ERROR, *found.values())}
    numbers = sorted(points)
    places = np.sqrt(path.shape)
    roots = np.sqrt([points[n] for n in numbers])
    curve = np.square(np.interp(places, places[numbers], roots))
    sizes = np.asarray([len(unit) for unit in path.units])
    each = np.maximum.accumulate(np.maximum(np.diff(curve), 0.0) / sizes)
    for number, unit in enumerate(path.units):
        costs[list(unit)] = each[number] + TIE * (number + 1)
