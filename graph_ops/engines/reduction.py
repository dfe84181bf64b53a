"""From activations and gradients to one number per sample and filter, inside the graph.

Three identities keep it fast:

* BatchNormalization is folded into its convolution; the convolution's own output is still what is
  scored (see `graph_ops.folding`).
* Through a positively homogeneous operator of one channel, z = relu(y) or pool(y), Euler's identity
  gives Σ y·g_y = Σ z·g_z: the product is taken as far down as the channel goes alone, Conv+Relu
  stays one kernel, and a MaxPool below the first convolution is never differentiated.
* A Clip lets a gradient through only where it changes nothing: with z = clip(y), Σ y·g_y = Σ z·g_y.
  The convolution's output itself is not read then, so that Conv+Clip stays one kernel as well.
* The sum over positions is a GlobalAveragePool of the product (times the number of positions),
  which stays in the runtime's blocked layout; only [N, ΣC] numbers are read back.

Both engines use it: `plan_reduction` says what is differentiated, `append_reduction` writes the
sums once the gradients are there, and `ReductionPlan.contributions` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.base import ScoringGraph, Tap
from graph_ops.engines.sums import SummedTensor
from graph_ops.folding import fold_batch_normalization
from graph_ops.runtime import Array

HOMOGENEOUS = frozenset(
    {
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
    }
)
"""Operators with f(t·y) = t·f(y) for t > 0 that keep every channel to itself."""


@dataclass(frozen=True)
class _Column:
    """Where a tap's numbers lie among those read back.

    Attributes:
        product_positions: Positions of the tensor the product is taken on (GlobalAveragePool
            divides by their number).
        positions: Positions of the convolution's output.
        offset: [C] offset of a folded BatchNormalization, or None.
    """

    tap: Tap
    product_positions: int
    positions: int
    offset: Array | None


@dataclass(frozen=True)
class ReductionPlan:
    """What has to be differentiated and summed.

    Attributes:
        model: The scoring graph with BatchNormalization folded; may be changed.
        shapes: Shape of every value by name.
        loss: Name of the [N] loss.
        products: Tensors z whose Σ z·g is wanted, one per tap; g is the gradient that they name.
        gradients: Tensors y whose Σ g_y is wanted as well.
    """

    model: ir.Model
    shapes: dict[str, Dims]
    loss: str
    products: tuple[SummedTensor, ...]
    gradients: tuple[SummedTensor, ...]
    columns: tuple[_Column, ...]

    @property
    def wanted(self) -> list[str]:
        """Names of the values whose gradient is needed, each once."""
        return list(dict.fromkeys(t.gradient for t in (*self.products, *self.gradients)))

    def contributions(self, products: Array, sums: Array | None) -> list[Array]:
        """Per tap [N, C] from the two arrays that the graph gives back.

        Args:
            products: [N, ΣC] means over positions of z·g, those of the last tap first.
            sums: [N, ΣC] means over positions of g_y, of the taps with an offset, likewise.
        """
        result: list[Array] = []
        first = second = 0
        for column in reversed(self.columns):
            count = column.tap.filters
            part = products[:, first : first + count].astype(np.float64)
            part *= column.product_positions
            first += count
            if column.offset is not None:
                assert sums is not None
                part -= column.offset * column.positions * sums[:, second : second + count]
                second += count
            result.append(part)
        return result[::-1]


def plan_reduction(graph: ScoringGraph) -> ReductionPlan:
    """Fold a copy of the scoring graph, and find what is to be differentiated on it."""
    model, shapes = graph.model.clone(), dict(graph.shapes)
    folded = fold_batch_normalization(model)
    values = values_by_name(model)
    products, gradients, columns = [], [], []
    for tap in graph.taps:
        y = values[folded[tap.name].name if tap.name in folded else tap.name]
        z = _follow_channel(y)
        offset = None
        if graph.gate == "convolution" and tap.name in folded:
            offset = folded[tap.name].offset
            gradients.append(_summed(y, shapes, gradient_of=y))
        products.append(_summed(_clipped(z), shapes, gradient_of=z))
        columns.append(_Column(tap, _positions(z, shapes), _positions(y, shapes), offset))
    return ReductionPlan(
        model, shapes, graph.loss, tuple(products), tuple(gradients), tuple(columns)
    )


def values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """Every input and computed value of the main graph."""
    values = {str(v.name): v for v in model.graph.inputs}
    values |= {str(o.name): o for node in model.graph for o in node.outputs}
    return values


def _follow_channel(value: ir.Value) -> ir.Value:
    """The last value on the way down through homogeneous operators that alone read it."""
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in HOMOGENEOUS or uses[0].idx != 0:
            break
        value = uses[0].node.outputs[0]
    return value


def _clipped(value: ir.Value) -> ir.Value:
    """What a Clip that alone reads a value makes of it; else the value."""
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1 or uses[0].idx != 0:
        return value
    node = uses[0].node
    return node.outputs[0] if node.op_type == "Clip" else value


def _summed(value: ir.Value, shapes: dict[str, Dims], gradient_of: ir.Value) -> SummedTensor:
    dims = shapes[str(value.name)]
    channels, positions = int(dims[1] or 0), _positions(value, shapes)
    return SummedTensor(str(value.name), len(dims), channels, positions, str(gradient_of.name))


def _positions(value: ir.Value, shapes: dict[str, Dims]) -> int:
    return math.prod(int(d or 0) for d in shapes[str(value.name)][2:])
