"""Which loss fits a model's output and the bundle's targets, and why.

The decision stands in the report. Without targets the loss must not be the distance to the model's
own output, whose gradient is zero there: a classifier is scored against its own most likely class
(pseudo-labels), anything else through random projections ⟨v, f(x)⟩, whose squared gradient is in
expectation the squared change of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import ArrayInfo
from graph_ops.channels import Dims
from graph_ops.errors import LossError
from graph_ops.graph import int_of, normalized_axis

LossName = Literal["cross_entropy", "bce", "mse", "l1", "pseudo_labels", "projection"]
TargetForm = Literal["class_ids", "dense", "projection"]

_PASSING = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_LOGIT_MAKERS = ("Gemm", "MatMul", "Add", "Conv", "GlobalAveragePool", "AveragePool", "ReduceMean")
_LEAST_CLASSES = 3
"""A [N, K] output that ends in a linear operator counts as logits from this many columns on."""


@dataclass(frozen=True)
class OutputForm:
    """What a model output is, as far as its last operators show.

    Attributes:
        name: Name of the graph output.
        dims: Its shape, None for the batch axis.
        final: The last activation: the loss is taken before it, where it is numerically stable.
        logits: The value the activation reads, or the output itself.
        classes: Length of axis 1 (0 when there is none).
    """

    name: str
    dims: Dims
    final: Literal["softmax", "log_softmax", "sigmoid", "none"]
    logits: ir.Value
    classes: int

    @property
    def is_vector(self) -> bool:
        """Whether there is one row of classes per sample (trailing axes have length 1)."""
        return len(self.dims) >= 2 and all(d == 1 for d in self.dims[2:])

    @property
    def is_classifier(self) -> bool:
        """Whether the output reads as scores of mutually exclusive classes."""
        if self.classes < 2:
            return False
        if self.final in ("softmax", "log_softmax"):
            return True
        producer = self.logits.producer()
        while producer is not None and producer.op_type in _PASSING:
            inner = producer.inputs[0]
            producer = inner.producer() if inner is not None else None
        ends_linear = producer is not None and producer.op_type in _LOGIT_MAKERS
        return (
            self.final == "none"
            and self.is_vector
            and self.classes >= _LEAST_CLASSES
            and ends_linear
        )


@dataclass(frozen=True)
class LossChoice:
    """A loss and the reason it was chosen.

    Attributes:
        name: The loss.
        why: A sentence for the report.
        targets: How targets are fed: class ids, an array like the output, or a projection vector.
    """

    name: LossName
    why: str
    targets: TargetForm

    @property
    def is_unlabelled(self) -> bool:
        """Whether no targets of the bundle are used."""
        return self.name in ("pseudo_labels", "projection")


def output_form(model: ir.Model, shapes: Mapping[str, Dims], name: str | None) -> OutputForm:
    """Recognise the output the loss is taken on.

    Args:
        model: Scoring copy.
        shapes: Shape of every value by name.
        name: Name of the output; the first one when None.

    Raises:
        LossError: there is no such output, or it is not a float tensor of known rank.
    """
    outputs = list(model.graph.outputs)
    names = [str(o.name) for o in outputs]
    if name is not None and name not in names:
        raise LossError(
            f"Option 'output': the model has no output {name!r}; it has {', '.join(names)}.",
            field="output",
            found=name,
            expected=names,
        )
    output = outputs[names.index(name)] if name is not None else outputs[0]
    dims = shapes.get(str(output.name))
    if not dims or output.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16):
        raise LossError(
            f"A loss needs a float output of known rank; {output.name!r} is not one. "
            "Name another with the option 'output'.",
            field="output",
            found=str(output.name),
        )
    final, logits = _final_activation(output, shapes)
    classes = int(dims[1] or 0) if len(dims) > 1 else 0
    return OutputForm(str(output.name), dims, final, logits, classes)


def _final_activation(
    output: ir.Value, shapes: Mapping[str, Dims]
) -> tuple[Literal["softmax", "log_softmax", "sigmoid", "none"], ir.Value]:
    """Look through operators that only reshape for a final Softmax or Sigmoid."""
    value = output
    while (node := value.producer()) is not None:
        source = node.inputs[0] if node.inputs else None
        if source is None:
            break
        if node.op_type in ("Softmax", "LogSoftmax"):
            rank = len(shapes.get(str(source.name), ()))
            if normalized_axis(int_of(node, "axis", -1), rank) == 1:
                return ("softmax" if node.op_type == "Softmax" else "log_softmax"), source
            break
        if node.op_type == "Sigmoid":
            return "sigmoid", source
        if node.op_type not in _PASSING or not _keeps_rows(value, source, shapes):
            break
        value = source
    return "none", output


def _keeps_rows(value: ir.Value, source: ir.Value, shapes: Mapping[str, Dims]) -> bool:
    """Whether a reshape only adds or removes axes of length 1 after the classes."""
    dims = [d for d in shapes.get(str(value.name), ())[1:] if d != 1]
    before = [d for d in shapes.get(str(source.name), ())[1:] if d != 1]
    return len(dims) == 1 and dims == before


def choose_loss(form: OutputForm, targets: ArrayInfo | None, wanted: str) -> LossChoice:
    """The loss for an output, the bundle's targets and the option `loss`.

    Args:
        form: The output the loss is taken on.
        targets: Dtype and shape [N, ...] of the targets, or None when the bundle has none.
        wanted: Option `loss`.

    Raises:
        LossError: the option does not fit the output or the targets.
    """
    if wanted == "unlabelled" or (wanted == "auto" and targets is None):
        reason = "asked for" if wanted == "unlabelled" else "the bundle has no targets"
        return _unlabelled(form, reason)
    if targets is None:
        raise LossError(
            f"Loss {wanted!r} needs targets, and the bundle has none. Add them, name their array "
            "with the option 'targets', or use loss 'unlabelled'.",
            field="loss",
            found=wanted,
        )
    if wanted == "auto":
        return _from_targets(form, targets)
    why = "asked for"
    if wanted == "cross_entropy":
        if form.classes < 2:
            raise _misfit(form, targets, "cross_entropy needs a class axis of at least 2")
        if _are_class_ids(form, targets):
            return LossChoice("cross_entropy", why, "class_ids")
        _require_like_output(form, targets, "cross_entropy takes class ids or an array like")
        return LossChoice("cross_entropy", why, "dense")
    _require_like_output(form, targets, f"{wanted} takes an array like")
    name: LossName = "bce" if wanted == "bce" else "mse" if wanted == "mse" else "l1"
    return LossChoice(name, why, "dense")


def _unlabelled(form: OutputForm, reason: str) -> LossChoice:
    if form.is_classifier:
        return LossChoice(
            "pseudo_labels",
            f"{reason}, and output {form.name!r} is a classifier's: cross-entropy against the "
            "original model's own most likely class",
            "class_ids",
        )
    return LossChoice(
        "projection",
        f"{reason}, and output {form.name!r} is not a classifier's: random projections of it",
        "projection",
    )


def _from_targets(form: OutputForm, targets: ArrayInfo) -> LossChoice:
    if _are_class_ids(form, targets) and form.classes >= 2:
        return LossChoice(
            "cross_entropy",
            f"the targets are class ids and output {form.name!r} has {form.classes} classes"
            + (f" (its final {form.final} is looked through)" if form.final != "none" else ""),
            "class_ids",
        )
    _require_like_output(form, targets, "the targets are neither class ids nor an array like")
    if form.final in ("softmax", "log_softmax"):
        why = f"the targets are rows like output {form.name!r}, which ends in {form.final}"
        return LossChoice("cross_entropy", why, "dense")
    if form.final == "sigmoid":
        return LossChoice("bce", f"output {form.name!r} ends in a Sigmoid", "dense")
    return LossChoice("mse", f"the targets are numbers like output {form.name!r}", "dense")


def _are_class_ids(form: OutputForm, targets: ArrayInfo) -> bool:
    """Integers of shape [N], [N, 1], or [N, …] like the output without its class axis."""
    if np.dtype(targets.dtype).kind not in "iu":
        return False
    shape = targets.shape[1:]
    rest = form.dims[2:]
    return shape in ((), (1,)) if form.is_vector else shape == rest or shape == (1, *rest)


def _require_like_output(form: OutputForm, targets: ArrayInfo, problem: str) -> None:
    size = int(np.prod(targets.shape[1:], dtype=np.int64))
    wanted = int(np.prod([d or 0 for d in form.dims[1:]], dtype=np.int64))
    if size != wanted:
        raise _misfit(form, targets, f"{problem} the output")


def _misfit(form: OutputForm, targets: ArrayInfo, problem: str) -> LossError:
    return LossError(
        f"Targets {targets.name!r} of shape {list(targets.shape)} do not fit output {form.name!r} "
        f"of shape {[d or 'N' for d in form.dims]}: {problem}.",
        field="targets",
        tensor=targets.name,
        expected=[d or "N" for d in form.dims],
        found=list(targets.shape),
    )
