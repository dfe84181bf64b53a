"""Loss heads: nodes that turn a model output and targets into one loss per sample.

Every head has one extra graph input, `TARGET_INPUT`, and ends in a vector [N]. Where an output
ends in Softmax or Sigmoid the head reads the logits before it: log-softmax and softplus are stable
where the logarithm of a rounded probability is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.tape import BackwardTape
from graph_ops.loss.choice import LossChoice, LossName, OutputForm

TARGET_INPUT = "loss/target"


@dataclass(frozen=True)
class LossHead:
    """A loss on a scoring graph.

    Attributes:
        loss: [N] loss of each sample.
        target: The input that is fed: int64 class ids [N, …], or float like the output.
    """

    loss: ir.Value
    target: ir.Value


def attach_loss(
    model: ir.Model, shapes: dict[str, Dims], form: OutputForm, choice: LossChoice
) -> LossHead:
    """Append the head of a loss to a scoring copy; `shapes` learns the shapes of its values.

    Args:
        model: Scoring copy; nodes and the target input are appended.
        shapes: Shape of every value by name; updated.
        form: The output the loss is taken on.
        choice: The loss.
    """
    opset = model.graph.opset_imports[""]
    write = _Writer(BackwardTape(model.graph, shapes, frozenset(), opset), shapes)
    dims = shapes[str(form.logits.name)]
    rows: Dims
    if form.is_vector:
        rows = (dims[0], form.classes or 1)
        logits = write.op("Reshape", rows, form.logits, write.tape.ints([-1, rows[1] or 1]))
    else:
        rows, logits = dims, form.logits
    if choice.targets == "class_ids":
        id_dims = (rows[0], *rows[2:])
        target = _input(model, ir.DataType.INT64, id_dims, shapes)
        dense = write.op(
            "OneHot",
            rows,
            target,
            write.tape.constant(np.asarray(rows[1], dtype=np.int64)),
            write.tape.constant(np.asarray([0.0, 1.0], dtype=_numpy_dtype(form.logits))),
            axis=1,
        )
    else:
        target = _input(model, form.logits.dtype or ir.DataType.FLOAT, rows, shapes)
        dense = target
    loss = HEADS[choice.name](write, logits, dense, rows, form)
    loss.dtype = form.logits.dtype or ir.DataType.FLOAT
    return LossHead(loss, target)


class _Writer:
    """A tape that also records the shape of what it writes."""

    def __init__(self, tape: BackwardTape, shapes: dict[str, Dims]) -> None:
        self.tape = tape
        self.shapes = shapes

    def op(self, op_type: str, dims: Dims, *inputs: ir.Value, **attributes: object) -> ir.Value:
        value = self.tape.op(op_type, *inputs, **attributes)
        value.type = (inputs[0] if op_type != "OneHot" else inputs[2]).type
        self.shapes[str(value.name)] = dims
        return value

    def sum_classes(self, value: ir.Value, dims: Dims) -> tuple[ir.Value, Dims]:
        out = (dims[0], *dims[2:])
        return self.op("ReduceSum", out, value, self.tape.ints([1]), keepdims=0), out

    def mean_per_sample(self, value: ir.Value, dims: Dims) -> ir.Value:
        if len(dims) == 1:
            return value
        axes = self.tape.ints(range(1, len(dims)))
        return self.op("ReduceMean", dims[:1], value, axes, keepdims=0)


def _cross_entropy(
    write: _Writer, logits: ir.Value, target: ir.Value, dims: Dims, form: OutputForm
) -> ir.Value:
    """−Σ_k t_k · log softmax(z)_k, mean over positions."""
    log_p = write.op("LogSoftmax", dims, logits, axis=1)
    product = write.op("Mul", dims, log_p, target)
    summed, rest = write.sum_classes(product, dims)
    return write.mean_per_sample(write.op("Neg", rest, summed), rest)


def _bce(
    write: _Writer, logits: ir.Value, target: ir.Value, dims: Dims, form: OutputForm
) -> ir.Value:
    """softplus(z) − z·t, mean over the outputs."""
    product = write.op("Mul", dims, logits, target)
    loss = write.op("Sub", dims, write.op("Softplus", dims, logits), product)
    return write.mean_per_sample(loss, dims)


def _output(write: _Writer, logits: ir.Value, dims: Dims, form: OutputForm) -> ir.Value:
    """The output itself where a distance is measured, not its logits."""
    activation = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}
    if form.final == "none":
        return logits
    attributes = {} if form.final == "sigmoid" else {"axis": 1}
    return write.op(activation[form.final], dims, logits, **attributes)


def _mse(
    write: _Writer, logits: ir.Value, target: ir.Value, dims: Dims, form: OutputForm
) -> ir.Value:
    """(y − t)², mean over the outputs."""
    gap = write.op("Sub", dims, _output(write, logits, dims, form), target)
    return write.mean_per_sample(write.op("Mul", dims, gap, gap), dims)


def _l1(
    write: _Writer, logits: ir.Value, target: ir.Value, dims: Dims, form: OutputForm
) -> ir.Value:
    """|y − t|, mean over the outputs."""
    gap = write.op("Sub", dims, _output(write, logits, dims, form), target)
    return write.mean_per_sample(write.op("Abs", dims, gap), dims)


def _projection(
    write: _Writer, logits: ir.Value, target: ir.Value, dims: Dims, form: OutputForm
) -> ir.Value:
    """⟨v, y⟩, mean over the outputs."""
    product = write.op("Mul", dims, _output(write, logits, dims, form), target)
    return write.mean_per_sample(product, dims)


Head = Callable[[_Writer, ir.Value, ir.Value, Dims, OutputForm], ir.Value]
HEADS: Mapping[LossName, Head] = {
    "cross_entropy": _cross_entropy,
    "pseudo_labels": _cross_entropy,
    "bce": _bce,
    "mse": _mse,
    "l1": _l1,
    "projection": _projection,
}


def _numpy_dtype(value: ir.Value) -> np.dtype[np.generic]:
    return value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)


def _input(model: ir.Model, dtype: ir.DataType, dims: Dims, shapes: dict[str, Dims]) -> ir.Value:
    shape = ir.Shape(["N" if d is None else d for d in dims])
    value = ir.Value(name=TARGET_INPUT, shape=shape, type=ir.TensorType(dtype))
    model.graph.inputs.append(value)
    shapes[TARGET_INPUT] = dims
    return value
