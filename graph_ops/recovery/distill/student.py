"""A network whose weights are fed, with the gradients of its distance to the original's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.canonical import ScoringCopy, scoring_copy
from graph_ops.engines.backward import OperatorBarrierError, append_backward, upstream
from graph_ops.engines.sums import set_outputs
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import LossError
from graph_ops.loss import output_form
from graph_ops.runtime import Array, Session

WANTED = "distill/wanted/"
LOSS = "distill/loss"
Shapes = Mapping[str, tuple[int, ...]]


def output_values(copy: ScoringCopy) -> dict[str, ir.Value]:
    """What is compared, by graph output: the logits of float outputs."""
    found = {}
    for output in copy.model.graph.outputs:
        try:
            form = output_form(copy.model, copy.shapes, str(output.name))
        except LossError:
            continue
        found[form.name] = form.logits
    return found


class Teacher:
    """The original network.

    Args:
        model: The original.
        sample_shapes: Shape of one sample by input name.
    """

    def __init__(self, model: ir.Model, sample_shapes: Shapes) -> None:
        copy = scoring_copy(model, sample_shapes)
        values = output_values(copy)
        set_outputs(copy.model, list(dict.fromkeys(values.values())))
        self._names = {output: str(value.name) for output, value in values.items()}
        self._session = Session(copy.model)

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What a student should compute, by graph output."""
        names = list(dict.fromkeys(self._names.values()))
        found = dict(zip(names, self._session.run(inputs, names), strict=True))
        return {output: found[name] for output, name in self._names.items()}


@dataclass(frozen=True)
class Lesson:
    """One pass forward and backward.

    Attributes:
        loss: Mean squared distance to the original's outputs, relative to their mean square.
        gradients: Of the sum over the samples, by parameter.
    """

    loss: float
    gradients: dict[str, Array]


class Student:
    """A cut network that is trained.

    Args:
        model: The cut network.
        sample_shapes: Shape of one sample by input name.
        parameters: Names of the stored tensors that are trained.
        scales: Mean square of each output of the original.

    Raises:
        ModelRunError: ONNX Runtime, or the version converter, refuses the network.
    """

    def __init__(
        self,
        model: ir.Model,
        sample_shapes: Shapes,
        parameters: Sequence[str],
        scales: Mapping[str, float],
    ) -> None:
        copy = scoring_copy(model, sample_shapes)
        _append_distance(copy, scales)
        names = _differentiable(copy, parameters)
        fed = _feed_parameters(copy.model, names)
        loss = _loss_of(copy.model)
        gradients: dict[ir.Value, ir.Value] = {}
        if fed:
            _, gradients = append_backward(copy.model, copy.shapes, loss, fed)
        self.parameters = [str(v.name) for v in gradients]
        self._gradients = [str(g.name) for g in gradients.values()]
        set_outputs(copy.model, [loss, *gradients.values()])
        self._session = Session(copy.model) if gradients else None

    def learn(
        self,
        inputs: Mapping[str, Array],
        wanted: Mapping[str, Array],
        parameters: Mapping[str, Array],
    ) -> Lesson:
        """Loss and gradients of a batch.

        Args:
            inputs: [N, ...] by graph input.
            wanted: The original's outputs.
            parameters: The weights as they are.
        """
        assert self._session is not None
        feeds = {**inputs, **{WANTED + n: a for n, a in wanted.items()}, **parameters}
        losses, *gradients = self._session.run(feeds, [LOSS, *self._gradients])
        return Lesson(float(losses.mean()), dict(zip(self.parameters, gradients, strict=True)))


def _feed_parameters(model: ir.Model, names: Iterable[str]) -> list[ir.Value]:
    """Make stored tensors inputs; those the copy stores in another form are left out."""
    graph, fed = model.graph, []
    for name in names:
        value = graph.initializers.get(name)
        if value is None or value.const_value is None or value.dtype != ir.DataType.FLOAT:
            continue
        value.shape = ir.Shape(value.const_value.shape.numpy())
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
        fed.append(value)
    return fed


def _append_distance(copy: ScoringCopy, scales: Mapping[str, float]) -> None:
    """Append `LOSS`, the [N] squared distance of every sample, the mean over outputs."""
    model, shapes = copy.model, copy.shapes
    tape = BackwardTape(model.graph, shapes, frozenset(), model.graph.opset_imports[""])
    total: ir.Value | None = None
    compared = {n: v for n, v in output_values(copy).items() if scales.get(n, 0.0) > 0.0}
    for name, found in compared.items():
        dims = shapes[str(found.name)]
        wanted = ir.Value(
            name=WANTED + name,
            type=ir.TensorType(found.dtype or ir.DataType.FLOAT),
            shape=ir.Shape([d if d is not None else "N" for d in dims]),
        )
        model.graph.inputs.append(wanted)
        shapes[WANTED + name] = dims
        gap = tape.op("Sub", found, wanted)
        square = tape.op("Mul", gap, gap)
        for value in (gap, square):
            value.type, shapes[str(value.name)] = found.type, dims
        axes = tape.ints(range(1, len(dims)))
        mean = square if len(dims) == 1 else tape.op("ReduceMean", square, axes, keepdims=0)
        weight = 1.0 / (scales[name] * len(compared))
        part = tape.op("Mul", mean, tape.scalar(weight, like=found))
        total = part if total is None else tape.op("Add", total, part)
        for value in (mean, part, total):
            value.type, shapes[str(value.name)] = found.type, dims[:1]
    assert total is not None
    loss = tape.op("Identity", total)
    loss.name, loss.type, shapes[LOSS] = LOSS, total.type, shapes[str(total.name)]


def _loss_of(model: ir.Model) -> ir.Value:
    return next(n.outputs[0] for n in reversed(model.graph) if n.outputs[0].name == LOSS)


def _differentiable(copy: ScoringCopy, names: Sequence[str]) -> list[str]:
    """Parameters whose way to the loss has a gradient."""
    while True:
        trial = copy.model.clone()
        fed = _feed_parameters(trial, names)
        loss = _loss_of(trial)
        connected = upstream([loss])
        wanted = [v for v in fed if v in connected]
        if not wanted:
            return []
        try:
            _, gradients = append_backward(trial, copy.shapes, loss, wanted)
        except OperatorBarrierError as barrier:
            before = upstream(v for v in barrier.operator.inputs if v is not None)
            names = [str(v.name) for v in wanted if v not in before]
            if len(names) == len(wanted):
                raise
            continue
        return [str(v.name) for v in wanted if v in gradients]


def mean_squares(outputs: Iterable[Mapping[str, Array]]) -> dict[str, float]:
    """Mean square of each output over batches; 0 where it is not finite."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for batch in outputs:
        for name, array in batch.items():
            square = float(np.square(array, dtype=np.float64).sum())
            sums[name] = sums.get(name, 0.0) + square
            counts[name] = counts.get(name, 0) + array.size
    return {n: s / counts[n] if np.isfinite(s) and counts[n] else 0.0 for n, s in sums.items()}
