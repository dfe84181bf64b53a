"""Before and after on the hold-out, sample by sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Batch, Dataset
from graph_ops.metrics.definitions import Metric
from graph_ops.metrics.intervals import Interval, paired_interval
from graph_ops.runtime import Array, Session

KEPT_BYTES = 64_000_000
"""Outputs of the original that are kept for the next model, at most."""


@dataclass(frozen=True)
class MetricResult:
    """A metric before and after.

    Attributes:
        name: Name of the metric; None where there was nothing to measure on.
        before: Of the original model; None when nothing was held out.
        after: Of the pruned model.
        samples: Held-out samples.
        change_low: Lower end of the 95 % confidence interval of after − before; None below two
            samples.
        change_high: Its upper end.
        higher_is_better: Its direction.
    """

    name: str | None
    before: float | None
    after: float | None
    samples: int
    change_low: float | None = None
    change_high: float | None = None
    higher_is_better: bool = True


@dataclass(frozen=True)
class Comparison:
    """Two models on the same samples.

    Attributes:
        metric: What was measured.
        before: [n] values of the original model.
        after: [n] values of the other.
        soft_before: [n] soft values of the original (`Metric.soft_values`); empty without them.
        soft_after: [n] soft values of the other.
    """

    metric: Metric
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    soft_before: NDArray[np.float64]
    soft_after: NDArray[np.float64]

    @property
    def drop(self) -> float:
        """By how much the metric got worse; negative where it got better."""
        change = float(self.after.mean() - self.before.mean())
        return 0.0 - change if self.metric.is_higher_better else change

    def estimate_drop(self, bias: float) -> float:
        """The drop that other samples would show, with less chance in it than `drop` has.

        On n samples right and wrong are coarse; soft values on the same samples are not, but the
        drop of their mean is another one by about `bias`. Each is weighted by the inverse of its
        expected squared error, so with many samples `drop` is what counts. Without soft values it
        is the estimate.
        """
        if self.soft_after.size == 0:
            return self.drop
        soft = self.soft_before - self.soft_after
        # Where no sample differs, one might have.
        of_hard = max(_error(self.before - self.after), 1 / soft.size)
        of_soft = math.hypot(_error(soft), bias)
        weight = 1 / (1 + (of_soft / of_hard) ** 2)
        return (1 - weight) * self.drop + weight * float(soft.mean())

    @property
    def drop_interval(self) -> Interval | None:
        """Where the drop lies; None below two samples."""
        pair = (
            (self.after, self.before)
            if self.metric.is_higher_better
            else (
                self.before,
                self.after,
            )
        )
        return paired_interval(*pair)

    @property
    def result(self) -> MetricResult:
        """For the report."""
        samples = int(self.before.size)
        if samples == 0:
            return MetricResult(
                self.metric.name, None, None, 0, higher_is_better=self.metric.is_higher_better
            )
        interval = paired_interval(self.before, self.after)
        return MetricResult(
            self.metric.name,
            float(self.before.mean()),
            float(self.after.mean()),
            samples,
            None if interval is None else interval.low,
            None if interval is None else interval.high,
            self.metric.is_higher_better,
        )


class Examiner:
    """Measures models against the original on the hold-out.

    Args:
        original: The model as it came.
        dataset: The bundle bound to it.
        metric: What is measured.
    """

    def __init__(self, original: ir.Model, dataset: Dataset, metric: Metric) -> None:
        self._model = original
        self._dataset = dataset
        self.metric = metric
        self._before: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._kept: list[Array] = []
        self._room = KEPT_BYTES

    def on_fewer(self, count: int) -> Examiner:
        """The same on so many of the samples, evenly spaced; itself where there are no more."""
        held_out = self._dataset.held_out
        if held_out.size <= count:
            return self
        picked = held_out[np.linspace(0, held_out.size - 1, count).round().astype(int)]
        fewer = Examiner(self._model, replace(self._dataset, held_out=picked), self.metric)
        fewer.original = self.original
        return fewer

    def examine(self, model: ir.Model) -> Comparison:
        """Measure a model.

        Raises:
            ModelRunError: ONNX Runtime fails.
        """
        judged = [self.metric.values, self.metric.soft_values or _nothing]
        before: list[list[NDArray[np.float64]]] = [[np.empty(0)] for _ in judged]
        after: list[list[NDArray[np.float64]]] = [[np.empty(0)] for _ in judged]
        session: Session | None = None
        batches = self._dataset.batches("held_out") if len(self._dataset.held_out) else ()
        for number, batch in enumerate(batches):
            session = session or Session(model)
            output = self.metric.output or self.original.output_names[0]
            size = batch.size
            original = self._of_original(number, batch, output)[:size]
            found = session.run(batch.inputs, [output])[0][:size]
            targets = None if batch.targets is None else batch.targets[:size]
            for values, first, second in zip(judged, before, after, strict=True):
                if self._before is None:
                    first.append(values(original, original, targets))
                second.append(values(found, original, targets))
        if self._before is None:
            hard, soft = (np.concatenate(values) for values in before)
            self._before = (hard, soft)
        hard, soft = (np.concatenate(values) for values in after)
        return Comparison(self.metric, self._before[0], hard, self._before[1], soft)

    def _of_original(self, number: int, batch: Batch, output: str) -> Array:
        """What the original says to a batch; the first ones are kept, as many as there is room."""
        if number < len(self._kept):
            return self._kept[number]
        found = self.original.run(batch.inputs, [output])[0]
        if number == len(self._kept) and found.nbytes <= self._room:
            self._kept.append(found)
            self._room -= found.nbytes
        return found

    @cached_property
    def original(self) -> Session:
        """The original, loaded once for all that is compared with it."""
        return Session(self._model)


def _error(values: NDArray[np.float64]) -> float:
    """Standard error of a mean."""
    return float(values.std()) / math.sqrt(values.size)


def _nothing(found: Array, original: Array, targets: Array | None) -> NDArray[np.float64]:
    """Soft values of a metric that has none."""
    return np.empty(0)
