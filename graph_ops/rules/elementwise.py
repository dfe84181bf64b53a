"""Operators that work element by element, with NumPy broadcasting.

One input: the labels pass. Several: where two of them have the same axis (neither of length 1),
their channels are the same and are coupled.

The gradients are in `activations`, `arithmetic` and `zero`; here are those of the operators that
hand their numbers on.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graph_ops.channels import Channels, Dims, Labels
from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import constant_array, input_at, node_label
from graph_ops.rules.registry import coupling, gradient
from graph_ops.rules.unary import FLOATING, Unary, unary

UNARY = (
    "Abs",
    "Cast",
    "CastLike",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
)

BROADCASTING = (
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)


@coupling(*UNARY)
def couple_unary(node: ir.Node, channels: Channels) -> None:
    """The channels of the first input pass to every output (Dropout's mask included)."""
    axes = channels.axes(node.inputs[0])
    for output in node.outputs:
        channels.set_axes(output, axes)


@coupling(*BROADCASTING)
def couple_broadcasting(node: ir.Node, channels: Channels) -> None:
    """Channels that meet on an axis are the same channel."""
    name = f"{node.op_type} {node_label(node)!r}"
    operands = []
    for value in node.inputs:
        if value is None:
            continue
        dims = channels.dims(value)
        if dims is None:
            for other in node.inputs:
                channels.freeze_value(other, f"the shape of an input of {name} is not known")
            return
        operands.append((dims, channels.axes(value)))
    reason = f"{name} combines it with a tensor whose channels cannot be removed"
    channels.set_axes(node.outputs[0], broadcast_axes(channels, operands, reason))


def broadcast_axes(
    channels: Channels,
    operands: Sequence[tuple[Dims, Sequence[Labels | None]]],
    reason: str,
) -> list[Labels | None]:
    """Labels of the result of broadcasting operands given as (dims, labels), aligned right.

    Axes of length 1 take part in nothing. Where several operands have the axis, their labels are
    coupled; where one of them has it without labels, the others are frozen for the reason given,
    and stay frozen for that reason behind it.
    """
    rank = max((len(dims) for dims, _ in operands), default=0)
    result: list[Labels | None] = []
    for position in range(-rank, 0):
        meeting = [
            axes[position]
            for dims, axes in operands
            if len(dims) >= -position and dims[position] != 1
        ]
        labelled = next((m for m in meeting if m is not None), None)
        for other in meeting:
            if other is not labelled:
                channels.couple(labelled, other, reason)
        result.append(labelled)
    return result


@unary("Identity")
def identity_gradient(u: Unary) -> ir.Value:
    """The gradient itself."""
    return u.g


@gradient("Dropout")
def dropout_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """At inference nothing is dropped."""
    mode = input_at(node, 2)
    stored = constant_array(mode)
    if mode is not None and (stored is None or bool(stored.any())):
        raise tape.refuse(node, "it is in training mode and drops at random")
    return [gradients[0]]


@gradient("Cast", "CastLike")
def cast_gradient(
    node: ir.Node, gradients: Sequence[ir.Value | None], tape: BackwardTape
) -> Sequence[ir.Value | None]:
    """Cast back; a cast from or to integers or booleans passes nothing."""
    x = node.inputs[0]
    source = None if x is None else x.dtype
    target = (
        ir.DataType(node.attributes["to"].as_int())
        if "to" in node.attributes
        else getattr(node.inputs[1], "dtype", None)
    )
    if source not in FLOATING or target not in FLOATING:
        return [None]
    return [gradients[0] if source == target else tape.op("Cast", gradients[0], to=source.value)]
