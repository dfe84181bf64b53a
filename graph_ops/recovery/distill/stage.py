"""Distillation: gradient steps on a cut network, towards the outputs of the original."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.bundle import Dataset
from graph_ops.canonical import scoring_copy
from graph_ops.channel_classes import ChannelClasses
from graph_ops.errors import ModelRunError
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.training.adam import Adam
from graph_ops.recovery.training.images import read_samples, training_batches
from graph_ops.recovery.training.parameters import Parameter, find_parameters
from graph_ops.recovery.training.student import Student
from graph_ops.recovery.training.teacher import Teacher, mean_squares, output_values
from graph_ops.recovery.weights import RefittedWeights, store
from graph_ops.runtime import Array

SAMPLE_BYTES = 600_000_000
"""Samples kept in memory, at most; with larger ones fewer are used."""
SCALE_BATCHES = 8
"""Batches of which the mean square of each output is taken."""

Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Distillation:
    """What training did.

    Attributes:
        iterations: Gradient steps made.
        samples: Samples they were made on.
        trained: Numbers of the network that were trained.
        kept: Whether the result is kept.
        output_error_before: Error of the network's outputs, relative to the original's, on the
            samples set aside, without it.
        output_error_after: The same with it; None where nothing was trained.
        reason: Why it was not done or not kept; None for nothing.
    """

    iterations: int = 0
    samples: int = 0
    trained: int = 0
    kept: bool = False
    output_error_before: float | None = None
    output_error_after: float | None = None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def distill(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    weights: RefittedWeights,
    model: ir.Model,
    dataset: Dataset,
    samples: RefitSamples,
    iterations: int,
    seed: int,
    tell: Tell,
) -> tuple[RefittedWeights, Distillation]:
    """Train a cut model in place, on all samples but those set aside.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        weights: What was refitted, and is in the model already.
        model: The cut model.
        dataset: The bundle bound to the model; its held-out part is not read.
        samples: Those set aside are not trained on.
        iterations: Gradient steps.
        seed: Of the batches.
        tell: Progress.

    Returns:
        The weights as they are now, and what was done; the same weights where it could not be.
    """
    rest = np.setdiff1d(dataset.scored, samples.checked.scored)
    given = frozenset(weights.biases)
    parameters = {p.name: p for p in find_parameters(model.graph, given)}
    if not parameters:
        return weights, Distillation(reason="no float32 weight belongs to a single layer")
    inputs = read_samples(replace(dataset, scored=rest), SAMPLE_BYTES)
    count = next(iter(inputs.values())).shape[0]
    batches = training_batches(inputs, dataset.batch_size, seed)
    try:
        teacher = Teacher(classes.channels.model, dataset.input_shapes)
        scales = mean_squares(teacher.outputs(b) for b in islice(batches, SCALE_BATCHES))
        if not any(scales.values()):
            return weights, Distillation(reason="no output holds finite numbers other than zero")
        copy = scoring_copy(model, dataset.input_shapes)
        student = Student(copy, list(parameters), output_values(copy), scales)
        if not student.parameters:
            reason = "an operator between its weights and its outputs has no gradient"
            return weights, Distillation(reason=reason)
        trained = {n: np.array(parameters[n].array) for n in student.parameters}
        steps = {n: parameters[n].step for n in trained}
        optimiser = Adam(trained, steps, iterations)
        for number, batch in enumerate(islice(batches, iterations)):
            tell(number, iterations)
            lesson = student.learn(batch, teacher.outputs(batch), trained)
            if not np.isfinite(lesson.loss):
                reason = f"the loss is not finite at iteration {number + 1}"
                return weights, Distillation(number, count, reason=reason)
            optimiser.update(lesson.gradients)
    except ModelRunError as error:
        return weights, Distillation(reason=error.message)
    tell(iterations, iterations)
    size = sum(a.size for a in trained.values())
    changed = _write(classes, dropped, weights, model, parameters, trained)
    return changed, Distillation(iterations, count, size)


def _write(
    classes: ChannelClasses,
    dropped: NDArray[np.bool_],
    weights: RefittedWeights,
    model: ir.Model,
    parameters: dict[str, Parameter],
    trained: dict[str, Array],
) -> RefittedWeights:
    for name, array in trained.items():
        store(parameters[name].value, array)
    biases = [p.bias_of for n, p in parameters.items() if n in trained and p.bias_of is not None]
    tensors = [n for n in trained if parameters[n].bias_of is None]
    return weights.updated(classes, dropped, model, tensors, biases)
