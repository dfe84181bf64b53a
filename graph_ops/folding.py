"""Fold inference BatchNormalization into the convolution before it, on a scoring copy.

y = γ/σ·(W∗x + b − μ) + β is one convolution, which ONNX Runtime runs with the next Relu in one
kernel. With a the convolution's own output and g the gradients,

    a·g_a        = y·g_y − offset·g_y,   offset = β − γ·μ/σ     (gate at the convolution)
    (a − a₀)·g_a = y·g_y,                a₀ = −offset·σ/γ       (gate after the normalisation)

so the folded output and one number per channel give both scores. a₀ is the output that the
normalisation maps to zero: dropping a filter moves a there, not to zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import constant_array, float_of, input_at, int_of, output_at, stored_value


@dataclass(frozen=True)
class Folded:
    """A convolution that took a BatchNormalization in.

    Attributes:
        name: Name of the folded output y.
        offset: [C] β − γ·μ/σ.
        factor: [C] γ/σ.
    """

    name: str
    offset: NDArray[np.float64]
    factor: NDArray[np.float64]

    @property
    def origin(self) -> NDArray[np.float64]:
        """[C] a₀; 0 where γ is 0 and no output of the convolution matters."""
        safe = np.where(self.factor == 0, 1.0, self.factor)
        return np.where(self.factor == 0, 0.0, -self.offset / safe)


def fold_batch_normalization(model: ir.Model) -> dict[str, Folded]:
    """Fold every BatchNormalization whose input is read by nothing else, in place.

    Returns:
        What was folded, by the convolution's former output name.
    """
    graph = model.graph
    folded: dict[str, Folded] = {}
    for node in list(graph):
        if node.op_type != "BatchNormalization" or int_of(node, "training_mode", 0):
            continue
        x = node.inputs[0]
        convolution = None if x is None else x.producer()
        if x is None or convolution is None or convolution.op_type != "Conv":
            continue
        if len(x.uses()) != 1 or x.is_graph_output() or output_at(node, 1) is not None:
            continue
        weight = constant_array(convolution.inputs[1])
        bias = constant_array(input_at(convolution, 2))
        statistics = [constant_array(v) for v in node.inputs[1:5]]
        has_bias = input_at(convolution, 2) is not None
        if weight is None or any(s is None for s in statistics) or (has_bias and bias is None):
            continue
        gamma, beta, mean, variance = (np.asarray(s, dtype=np.float64) for s in statistics)
        factor = gamma / np.sqrt(variance + float_of(node, "epsilon", 1e-5))
        offset = beta - factor * mean
        shape = (-1, *[1] * (weight.ndim - 1))
        new_weight = (weight * factor.reshape(shape)).astype(weight.dtype)
        old_bias = np.zeros_like(offset) if bias is None else bias.astype(np.float64)
        new_bias = (offset + factor * old_bias).astype(weight.dtype)
        _replace(graph, convolution, 1, new_weight)
        _replace(graph, convolution, 2, new_bias)
        y = node.outputs[0]
        former, name = str(x.name), str(y.name)
        y.replace_all_uses_with(x, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        y.name = f"{name}/unfolded"
        x.name = name
        folded[former] = Folded(name, offset, factor)
    return folded


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: NDArray[np.generic]) -> None:
    name = f"{node.outputs[0].name}/folded_{index}"
    value = stored_value(name, array)
    graph.initializers.add(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
