"""A network whose weights are fed, with the gradients of its distance to the original's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.canonical import ScoringCopy
from graph_ops.engines.backward import OperatorBarrierError, append_backward, upstream
from graph_ops.engines.sums import set_outputs
from graph_ops.engines.tape import BackwardTape
from graph_ops.runtime import Array, Session

WANTED = "training/wanted/"
LOSS = "training/loss"


@dataclass(frozen=True)
class Lesson:
    """One pass forward and backward.

    Attributes:
        loss: Mean squared distance to the original's values, relative to their mean square.
        gradients: Of the sum over the samples, by parameter.
    """

    loss: float
    gradients: dict[str, Array]


class Student:
    """A cut network, or a piece of one, that is trained.

    Args:
        copy: Its scoring copy; it is written into.
        parameters: Names of the stored tensors that are trained.
        compared: Values that are held against the original's, by a name for each.
        scales: Mean square of each of the original's values; what is zero is not compared.

    Raises:
        ModelRunError: ONNX Runtime refuses the network.
    """

    def __init__(
        self,
        copy: ScoringCopy,
        parameters: Sequence[str],
        compared: Mapping[str, ir.Value],
        scales: Mapping[str, float],
    ) -> None:
        used = {n: v for n, v in compared.items() if scales.get(n, 0.0) > 0.0}
        _append_distance(copy, used, scales)
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
            wanted: The original's values, by the name of what is compared.
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


def _append_distance(
    copy: ScoringCopy, compared: Mapping[str, ir.Value], scales: Mapping[str, float]
) -> None:
    """Append `LOSS`, the [N] squared distance of every sample, the mean over what is compared."""
    model, shapes = copy.model, copy.shapes
    tape = BackwardTape(model.graph, shapes, frozenset(), model.graph.opset_imports[""])
    total: ir.Value | None = None
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
