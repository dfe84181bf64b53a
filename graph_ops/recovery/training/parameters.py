"""What of a cut network is trained, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.graph import constant_array, input_at, int_of
from graph_ops.recovery.layers import WEIGHTED
from graph_ops.recovery.weights import BIAS_INPUT, is_writable, store
from graph_ops.runtime import Array

WEIGHT_STEP = 0.01
"""Of a weight tensor in one iteration, relative to its root mean square. A bias moves as far as the
weights beside it."""
SHIFT_STEP = 0.001
"""Of a BatchNormalization's bias, relative to the root mean square of its scale."""


@dataclass(frozen=True)
class Parameter:
    """A stored tensor that is trained.

    Attributes:
        value: In the cut model.
        array: What it holds.
        step: How far it may move in one iteration, about.
        bias_of: First output of the node that earlier refits gave this bias; None where the
            original stores the tensor.
        groups: Of a layer's weights, in how many groups axis 0 falls; None for a vector.
    """

    value: ir.Value
    array: Array
    step: float
    bias_of: str | None = None
    groups: int | None = None

    @property
    def name(self) -> str:
        """Name of the tensor."""
        return str(self.value.name)


def find_parameters(nodes: Iterable[ir.Node], given_biases: frozenset[str]) -> list[Parameter]:
    """Float32 weights and biases of one reader, in graph order.

    Args:
        nodes: Of the cut model with what was refitted.
        given_biases: First outputs of nodes whose bias is not the original's.
    """
    found: list[Parameter] = []
    for node in nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in WEIGHTED:
            found += _of_layer(node, given_biases)
        elif node.op_type == "BatchNormalization":
            scale = constant_array(node.inputs[1])
            shift = _trainable(node.inputs[2])
            if scale is not None and shift is not None:
                step = SHIFT_STEP * root_mean_square(scale)
                found.append(Parameter(shift[0], shift[1], step))
    return found


def write(
    parameters: Iterable[Parameter], arrays: Mapping[str, Array]
) -> tuple[list[str], list[str]]:
    """Store what was trained in the cut model.

    Args:
        parameters: Where it is stored.
        arrays: The numbers, by name.

    Returns:
        Names of tensors of the original, and first outputs of nodes that earlier refits gave a
        bias: what `CutNetwork.changed` asks for.
    """
    tensors, biases = [], []
    for parameter in parameters:
        store(parameter.value, arrays[parameter.name])
        if parameter.bias_of is None:
            tensors.append(parameter.name)
        else:
            biases.append(parameter.bias_of)
    return tensors, biases


def _of_layer(node: ir.Node, given_biases: frozenset[str]) -> list[Parameter]:
    weight = _trainable(node.inputs[1])
    stored = constant_array(node.inputs[1])
    if stored is None:
        return []
    step = WEIGHT_STEP * root_mean_square(stored)
    groups = int_of(node, "group", 1)
    found = [] if weight is None else [Parameter(*weight, step, groups=groups)]
    bias = _trainable(input_at(node, BIAS_INPUT))
    if bias is not None:
        output = str(node.outputs[0].name)
        found.append(Parameter(*bias, step, output if output in given_biases else None))
    return found


def _trainable(value: ir.Value | None) -> tuple[ir.Value, Array] | None:
    array = constant_array(value)
    if value is None or array is None or array.dtype != np.float32 or not array.size:
        return None
    return (value, array) if is_writable(value) else None


def root_mean_square(array: Array) -> float:
    """0 for an empty array."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0
