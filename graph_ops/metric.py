"""The before/after metric on the hold-out, which is never scored on.

Accuracy for classifiers with labels, agreement with the original model for classifiers without,
the loss itself for distances, and the relative error of the output where there are no targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graph_ops.bundle import Batch
from graph_ops.loss import LossChoice, OutputForm
from graph_ops.runtime import Array, Session


@dataclass(frozen=True)
class Metric:
    """A metric before and after.

    Attributes:
        name: `accuracy`, `agreement`, `bce`, `mse`, `l1` or `relative_error`.
        before: Of the original model; None when nothing was held out.
        after: Of the pruned model.
        samples: Held-out samples.
    """

    name: str
    before: float | None
    after: float | None
    samples: int


_NAMES = {
    "cross_entropy": "accuracy",
    "pseudo_labels": "agreement",
    "projection": "relative_error",
    "bce": "bce",
    "mse": "mse",
    "l1": "l1",
}


def measure(
    original: Session,
    pruned: Session,
    batches: Iterable[Batch],
    form: OutputForm | None,
    loss: LossChoice | None,
) -> Metric:
    """The metric of both models over the held-out batches.

    Args:
        original: The model as it came.
        pruned: The model that is returned.
        batches: Held-out batches.
        form: The output that is judged; None judges the first output by its relative error.
        loss: Says which metric fits.
    """
    name = _NAMES[loss.name] if loss is not None else "relative_error"
    output = form.name if form is not None else original.output_names[0]
    before, after, samples = 0.0, 0.0, 0
    for batch in batches:
        size = batch.size
        a, b = (s.run(batch.inputs, [output])[0][:size] for s in (original, pruned))
        targets = None if batch.targets is None else batch.targets[:size]
        before += float(_per_sample(name, a, a, targets, form).sum())
        after += float(_per_sample(name, b, a, targets, form).sum())
        samples += size
    if samples == 0:
        return Metric(name, None, None, 0)
    return Metric(name, before / samples, after / samples, samples)


def _per_sample(
    name: str, found: Array, original: Array, targets: Array | None, form: OutputForm | None
) -> Array:
    """[N] value of each sample."""
    rows = found.shape[0]
    if name == "agreement":
        same = np.argmax(found, axis=1) == np.argmax(original, axis=1)
        return np.asarray(same.reshape(rows, -1).mean(axis=1))
    if name == "relative_error" or targets is None or form is None:
        flat = original.reshape(rows, -1).astype(np.float64)
        gap = np.linalg.norm(found.reshape(rows, -1) - flat, axis=1)
        return np.asarray(gap / np.maximum(np.linalg.norm(flat, axis=1), 1e-12))
    if name == "accuracy":
        guess = np.argmax(found, axis=1).reshape(rows, -1)
        ids = targets.reshape(rows, -1)
        if ids.shape != guess.shape:
            ids = np.argmax(targets.reshape(found.shape), axis=1).reshape(rows, -1)
        return np.asarray((guess == ids).mean(axis=1))
    y = found.reshape(rows, -1).astype(np.float64)
    t = targets.reshape(rows, -1).astype(np.float64)
    if name == "bce":
        if form.final != "sigmoid":
            return np.asarray((np.logaddexp(0, y) - y * t).mean(axis=1))
        y = np.clip(y, 1e-7, 1 - 1e-7)
        return np.asarray(-(t * np.log(y) + (1 - t) * np.log1p(-y)).mean(axis=1))
    return np.asarray((np.square(y - t) if name == "mse" else np.abs(y - t)).mean(axis=1))
