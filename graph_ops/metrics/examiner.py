"""Before and after on the hold-out, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.metrics.definitions import Metric
from graph_ops.metrics.intervals import Interval, paired_interval
from graph_ops.runtime import Session


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
    """

    metric: Metric
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def drop(self) -> float:
        """By how much the metric got worse; negative where it got better."""
        change = float(self.after.mean() - self.before.mean())
        return 0.0 - change if self.metric.is_higher_better else change

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
        self._before: NDArray[np.float64] | None = None

    def examine(self, model: ir.Model) -> Comparison:
        """Measure a model.

        Raises:
            ModelRunError: ONNX Runtime fails.
        """
        before, after = [np.empty(0)], [np.empty(0)]
        session: Session | None = None
        for batch in self._dataset.batches("held_out") if len(self._dataset.held_out) else ():
            session = session or Session(model)
            output = self.metric.output or self._original.output_names[0]
            size = batch.size
            original = self._original.run(batch.inputs, [output])[0][:size]
            found = session.run(batch.inputs, [output])[0][:size]
            targets = None if batch.targets is None else batch.targets[:size]
            if self._before is None:
                before.append(self.metric.values(original, original, targets))
            after.append(self.metric.values(found, original, targets))
        if self._before is None:
            self._before = np.concatenate(before)
        return Comparison(self.metric, self._before, np.concatenate(after))

    @cached_property
    def _original(self) -> Session:
        return Session(self._model)
