"""Reverse mode over the rule table: a backward graph from a loss to chosen activations.

Only the nodes between the chosen activations and the loss are visited, and only gradients with
respect to activations are written, never with respect to weights: backward then costs about one
forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import GradientError
from graph_ops.graph import node_label
from graph_ops.rules import GRADIENTS

FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE})


class OperatorBarrierError(GradientError):
    """A node between the loss and a scored activation has no gradient.

    Attributes:
        operator: The node.
    """

    def __init__(self, operator: ir.Node, message: str, /, **details: object) -> None:
        super().__init__(message, **details)
        self.operator = operator


def downstream(values: Iterable[ir.Value]) -> set[ir.Value]:
    """The values and everything computed from them."""
    found = set(values)
    stack = list(found)
    while stack:
        for node in stack.pop().consumers():
            for output in node.outputs:
                if output not in found:
                    found.add(output)
                    stack.append(output)
    return found


def upstream(values: Iterable[ir.Value]) -> set[ir.Value]:
    """The values and everything they are computed from."""
    found = set(values)
    stack = list(found)
    while stack:
        producer = stack.pop().producer()
        for value in producer.inputs if producer is not None else ():
            if value is not None and value not in found:
                found.add(value)
                stack.append(value)
    return found


def append_backward(
    model: ir.Model,
    shapes: Mapping[str, Dims],
    loss: ir.Value,
    wanted: Sequence[ir.Value],
) -> tuple[BackwardTape, dict[ir.Value, ir.Value]]:
    """Append the backward graph of a per-sample loss.

    Args:
        model: Scoring copy; backward nodes are appended to its graph.
        shapes: Shape of every forward value by name.
        loss: [N] loss of each sample; samples are independent, so the gradient of its sum is each
            sample's own gradient.
        wanted: Activations whose gradient is asked for.

    Returns:
        The tape, for whoever goes on writing, and the gradient of each wanted value; a value that
        does not influence the loss is missing.

    Raises:
        OperatorBarrierError: an operator on the way has no gradient rule, or its rule refuses.
    """
    graph = model.graph
    on_path = downstream(wanted) & upstream([loss])
    opset = graph.opset_imports[""]
    forward = [n for n in graph if any(o in on_path for o in n.outputs)]
    tape = BackwardTape(graph, shapes, frozenset(on_path), opset)
    ones = tape.op("ConstantOfShape", tape.op("Shape", loss), value=_one(loss))
    gradients: dict[ir.Value, ir.Value] = {loss: ones}
    targets = set(wanted)
    for node in reversed(forward):
        outputs = [gradients.get(o) for o in node.outputs]
        inputs = [v for v in node.inputs if v is not None and v in on_path]
        if not inputs or all(g is None for g in outputs):
            continue
        rule = GRADIENTS.find(node.domain, node.op_type, opset)
        if rule is None:
            raise OperatorBarrierError(
                node,
                f"Operator {node.op_type} ({node_label(node)!r}) has no gradient rule.",
                node=node_label(node),
                op_type=node.op_type,
            )
        try:
            parts = rule(node, outputs, tape)
        except GradientError as error:
            raise OperatorBarrierError(node, error.message, **error.details) from error
        for value, part in zip(node.inputs, parts, strict=False):
            if value is None or part is None or value not in on_path:
                continue
            known = gradients.get(value)
            gradients[value] = part if known is None else tape.op("Add", known, part)
        for output in node.outputs:
            if output not in targets:
                gradients.pop(output, None)
    return tape, {v: gradients[v] for v in wanted if v in gradients}


def _one(loss: ir.Value) -> ir.TensorProtocol:
    dtype = loss.dtype if loss.dtype in FLOATS else ir.DataType.FLOAT
    return ir.tensor([1.0], dtype=dtype)
