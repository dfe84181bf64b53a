"""The metrics: values of single samples, whose mean over the hold-out is the metric.

    accuracy        the largest entry is at the sample's class            higher is better
    top_k           the class is among the k largest entries              higher is better
    agreement       the largest entry is where the original model's is    higher is better
    cross_entropy   −log p[class]; also bce, mse, l1: the loss itself     lower is better
    relative_error  ‖f(x) − f₀(x)‖ / ‖f₀(x)‖, f₀ the original model       lower is better

A sample with several positions (segmentation) has the mean of its positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graph_ops.errors import OptionsError
from graph_ops.loss import OutputForm
from graph_ops.metrics.custom import CustomMetric
from graph_ops.metrics.judgement import Judgement
from graph_ops.options import PruneOptions
from graph_ops.runtime import Array

Values = NDArray[np.float64]
PerSample = Callable[[Array, Array, Array | None], Values]
"""[N] values from the output, the original model's output, and the targets."""

_OF_LOSS = {
    "cross_entropy": "accuracy",
    "pseudo_labels": "agreement",
    "projection": "relative_error",
    "bce": "bce",
    "mse": "mse",
    "l1": "l1",
}
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Metric:
    """A metric of one model output.

    Attributes:
        name: As in the report.
        output: The output's name; None for the first.
        is_higher_better: Its direction.
        values: Values of single samples.
        soft_values: The same less coarsely, where values are right or wrong: the probability that
            is given to the class. A few hundred samples tell small changes of its mean apart, which
            of right and wrong they do not. None where values are not coarse, or are no classes.
    """

    name: str
    output: str | None
    is_higher_better: bool
    values: PerSample
    soft_values: PerSample | None = None


def choose_metric(options: PruneOptions, judgement: Judgement) -> Metric:
    """The metric that the options ask for.

    Raises:
        OptionsError: it does not fit the output or the targets.
    """
    asked, form = options.metric, judgement.form
    output = options.output if form is None else form.name
    if asked == "custom":
        if options.metric_model is None:
            raise _misfit(asked, "it needs the ONNX model in the option 'metric_model'")
        custom = CustomMetric(options.metric_model)
        return Metric("custom", output, options.metric_direction == "higher", custom.values)
    if asked == "agreement":
        return Metric("agreement", output, True, _agreement, _likelihood(judgement, True))
    if asked in ("accuracy", "top_k"):
        k = options.top_k if asked == "top_k" else 1
        form = _labelled_classes(asked, judgement, k)
        if k == 1:
            return Metric("accuracy", output, True, _accuracy, _likelihood(judgement, False))
        return Metric(f"top_{k}", output, True, _Top(k))
    if asked == "mse":
        is_dense = judgement.loss is not None and judgement.loss.targets == "dense"
        is_dense = is_dense and not (judgement.loss and judgement.loss.is_unlabelled)
        values = _mean_square if is_dense else _mean_square_from_original
        return Metric("mse", output, False, values)
    if asked == "loss":
        return _loss(judgement, output)
    name = _OF_LOSS[judgement.loss.name] if judgement.loss is not None else "relative_error"
    if name in ("bce", "mse", "l1"):
        return _loss(judgement, output)
    if name == "relative_error":
        return Metric(name, output, False, _PLAIN[name])
    return Metric(name, output, True, _PLAIN[name], _likelihood(judgement, name == "agreement"))


def _labelled_classes(asked: str, judgement: Judgement, k: int) -> OutputForm:
    form, loss = judgement.form, judgement.loss
    if form is None or loss is None or loss.name != "cross_entropy":
        raise _misfit(asked, "it needs an output of classes, and their ids as targets")
    if form.classes <= k:
        raise _misfit(asked, f"the output has {form.classes} classes: any answer is among {k}")
    return form


def _loss(judgement: Judgement, output: str | None) -> Metric:
    form, loss = judgement.form, judgement.loss
    if form is None or loss is None or loss.name == "projection":
        raise _misfit("loss", "no loss fits the output without targets; use 'mse'")
    if loss.name in ("cross_entropy", "pseudo_labels"):
        return Metric(
            "cross_entropy", output, False, _CrossEntropy(form.final, loss.name == "pseudo_labels")
        )
    if loss.name == "bce":
        return Metric("bce", output, False, _BinaryCrossEntropy(form.final == "sigmoid"))
    values = _mean_square if loss.name == "mse" else _mean_absolute
    return Metric(loss.name, output, False, values)


def _likelihood(judgement: Judgement, is_against_original: bool) -> PerSample | None:
    form, loss = judgement.form, judgement.loss
    if form is None or loss is None or loss.name not in ("cross_entropy", "pseudo_labels"):
        return None
    return _Likelihood(_CrossEntropy(form.final, is_against_original))


def _misfit(asked: str, why: str) -> OptionsError:
    return OptionsError(f"Option 'metric': {asked!r} does not fit: {why}.", field="metric")


def _rows(array: Array) -> NDArray[np.float64]:
    """[N, …] as [N, D] in float64."""
    return array.reshape(array.shape[0], -1).astype(np.float64)


def _mean(values: Array) -> Values:
    """[N] means over positions."""
    return np.asarray(values.reshape(values.shape[0], -1).mean(axis=1), dtype=np.float64)


def _class_ids(found: Array, targets: Array | None) -> Array:
    """[N, …] class ids without the class axis, from ids or from an array like the output."""
    assert targets is not None
    shape = (found.shape[0], *found.shape[2:])
    if targets.size == int(np.prod(shape)):
        return targets.reshape(shape).astype(np.int64)
    return np.asarray(np.argmax(targets.reshape(found.shape), axis=1))


def _accuracy(found: Array, original: Array, targets: Array | None) -> Values:
    return _mean(np.argmax(found, axis=1) == _class_ids(found, targets))


def _agreement(found: Array, original: Array, targets: Array | None) -> Values:
    return _mean(np.argmax(found, axis=1) == np.argmax(original, axis=1))


def _relative_error(found: Array, original: Array, targets: Array | None) -> Values:
    wanted = _rows(original)
    gap = np.linalg.norm(_rows(found) - wanted, axis=1)
    return np.asarray(gap / np.maximum(np.linalg.norm(wanted, axis=1), 1e-12))


def _mean_square(found: Array, original: Array, targets: Array | None) -> Values:
    assert targets is not None
    return _mean(np.square(_rows(found) - _rows(targets)))


def _mean_square_from_original(found: Array, original: Array, targets: Array | None) -> Values:
    return _mean(np.square(_rows(found) - _rows(original)))


def _mean_absolute(found: Array, original: Array, targets: Array | None) -> Values:
    assert targets is not None
    return _mean(np.abs(_rows(found) - _rows(targets)))


_PLAIN: dict[str, PerSample] = {
    "accuracy": _accuracy,
    "agreement": _agreement,
    "relative_error": _relative_error,
}


@dataclass(frozen=True)
class _Top:
    """Whether the class is among the k largest entries; ties count for the lower index."""

    k: int

    def __call__(self, found: Array, original: Array, targets: Array | None) -> Values:
        best = np.argsort(-found.astype(np.float64), axis=1, kind="stable")[:, : self.k]
        return _mean((best == _class_ids(found, targets)[:, None]).any(axis=1))


@dataclass(frozen=True)
class _CrossEntropy:
    """−Σ t·log p over the class axis, from logits, probabilities or their logarithms."""

    final: str
    is_against_original: bool

    def __call__(self, found: Array, original: Array, targets: Array | None) -> Values:
        return _mean(self.of_positions(found, original, targets))

    def of_positions(self, found: Array, original: Array, targets: Array | None) -> Array:
        """[N, …] values without the class axis."""
        y = found.astype(np.float64)
        if self.final == "softmax":
            logs = np.log(np.maximum(y, _SMALLEST_PROBABILITY))
        elif self.final == "log_softmax":
            logs = y
        else:
            logs = y - np.logaddexp.reduce(y, axis=1, keepdims=True)
        wanted = original if self.is_against_original else targets
        assert wanted is not None
        if self.is_against_original or wanted.size != y.size:
            ids = np.argmax(original, axis=1) if self.is_against_original else None
            picked = _class_ids(found, wanted) if ids is None else ids
            return np.asarray(-np.take_along_axis(logs, picked[:, None], axis=1)[:, 0])
        return np.asarray(-(wanted.reshape(y.shape) * logs).sum(axis=1))


@dataclass(frozen=True)
class _Likelihood:
    """The probability given to the class."""

    of: _CrossEntropy

    def __call__(self, found: Array, original: Array, targets: Array | None) -> Values:
        return _mean(np.exp(-self.of.of_positions(found, original, targets)))


@dataclass(frozen=True)
class _BinaryCrossEntropy:
    """Mean over entries of −(t·log p + (1 − t)·log(1 − p))."""

    is_probability: bool

    def __call__(self, found: Array, original: Array, targets: Array | None) -> Values:
        assert targets is not None
        y, t = _rows(found), _rows(targets)
        if not self.is_probability:
            return _mean(np.logaddexp(0, y) - y * t)
        y = np.clip(y, 1e-7, 1 - 1e-7)
        return _mean(-(t * np.log(y) + (1 - t) * np.log1p(-y)))
