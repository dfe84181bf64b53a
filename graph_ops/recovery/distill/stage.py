"""Distillation: gradient steps on a cut network, towards the outputs of the original."""

from __future__ import annotations

from itertools import islice

import numpy as np

from graph_ops.bundle import Dataset
from graph_ops.canonical import scoring_copy
from graph_ops.errors import ModelRunError
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.refit import Tell
from graph_ops.recovery.samples import RefitSamples
from graph_ops.recovery.summary import Distillation
from graph_ops.recovery.training.adam import Adam
from graph_ops.recovery.training.images import read_samples, training_batches
from graph_ops.recovery.training.parameters import find_parameters, write
from graph_ops.recovery.training.student import Student
from graph_ops.recovery.training.teacher import Teacher, mean_squares, output_values
from graph_ops.recovery.weights import RefittedWeights

SCALE_BATCHES = 8
"""Batches of which the mean square of each output is taken."""


def distill(
    network: CutNetwork,
    dataset: Dataset,
    samples: RefitSamples,
    iterations: int,
    seed: int,
    tell: Tell,
) -> tuple[RefittedWeights, Distillation]:
    """Train a cut model in place, on all samples but those set aside.

    Args:
        network: What was cut and refitted.
        dataset: The bundle bound to the model; its held-out part is not read.
        samples: Those set aside are not trained on.
        iterations: Gradient steps.
        seed: Of the batches.
        tell: Progress.

    Returns:
        The weights as they are now, and what was done; the same weights where it could not be.
    """
    weights = network.weights
    found = find_parameters(network.model.graph, frozenset(weights.biases))
    parameters = {p.name: p for p in found}
    if not parameters:
        return weights, Distillation(reason="no float32 weight belongs to a single layer")
    inputs = read_samples(dataset, samples)
    count = next(iter(inputs.values())).shape[0]
    batches = training_batches(inputs, dataset.batch_size, seed)
    try:
        teacher = Teacher(network.original, dataset.input_shapes)
        scales = mean_squares(teacher.outputs(b) for b in islice(batches, SCALE_BATCHES))
        if not any(scales.values()):
            return weights, Distillation(reason="no output holds finite numbers other than zero")
        copy = scoring_copy(network.model, dataset.input_shapes)
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
    changed = network.changed(*write((parameters[n] for n in trained), trained))
    return changed, Distillation(iterations, count, size)
