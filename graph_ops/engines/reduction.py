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

Both engines use it: `plan_reduction` says what is differentiated, `append_sums` writes the sums
once the gradients are there, and `ReductionPlan.contributions` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.base import ScoringGraph, Tap
from graph_ops.engines.sums import SummedTensor, joined
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
class Column:
    """What is summed for a tap.

    Attributes:
        products: Tensors z whose Σ z·g is wanted; g is the gradient that they name. Several where
            the tensor lies in parts.
        gradients: Tensors y whose Σ g_y is wanted as well, where there is an offset.
        offset: [C] offset of a folded BatchNormalization, or None.
    """

    tap: Tap
    products: tuple[SummedTensor, ...]
    gradients: tuple[SummedTensor, ...] = ()
    offset: Array | None = None


@dataclass(frozen=True)
class ReductionPlan:
    """What has to be differentiated and summed.

    Attributes:
        model: The scoring graph with BatchNormalization folded; may be changed.
        shapes: Shape of every value by name.
        loss: Name of the [N] loss.
        columns: One per tap, in their order.
    """

    model: ir.Model
    shapes: dict[str, Dims]
    loss: str
    columns: tuple[Column, ...]

    @property
    def products(self) -> tuple[SummedTensor, ...]:
        """Products that are summed, tap by tap."""
        return tuple(t for column in self.columns for t in column.products)

    @property
    def gradients(self) -> tuple[SummedTensor, ...]:
        """Gradients that are summed, tap by tap."""
        return tuple(t for column in self.columns for t in column.gradients)

    @property
    def wanted(self) -> list[str]:
        """Names of the values whose gradient is needed, each once."""
        return list(dict.fromkeys(t.gradient for t in (*self.products, *self.gradients)))

    def contributions(self, products: Array, sums: Array | None) -> list[Array]:
        """Per tap [N, C] from the two arrays that the graph gives back.

        Args:
            products: [N, ΣC] means over positions of z·g, where `joined` says.
            sums: [N, ΣC] means over positions of g_y, of the taps with an offset, likewise.
        """
        lie, moved_lie = joined(self.products), joined(self.gradients)
        result: list[Array] = []
        for column in self.columns:
            part = _total(products, column.products, lie)
            if column.offset is not None:
                assert sums is not None
                part -= column.offset * _total(sums, column.gradients, moved_lie)
            result.append(part)
        return result


def _total(means: Array, parts: tuple[SummedTensor, ...], lie: dict[SummedTensor, slice]) -> Array:
    """[N, C] sums over all positions of a tensor's parts, from means over those of each."""
    return np.asarray(
        sum(means[:, lie[part]].astype(np.float64) * part.positions for part in parts)
    )


def plan_reduction(graph: ScoringGraph) -> ReductionPlan:
    """Fold a copy of the scoring graph, and find what is to be differentiated on it."""
    model, shapes = graph.model.clone(), dict(graph.shapes)
    folded = fold_batch_normalization(model)
    values = values_by_name(model)
    columns = []
    for tap in graph.taps:
        y = values[folded[tap.name].name if tap.name in folded else tap.name]
        z = _follow_channel(y)
        column = Column(tap, (_summed(_clipped(z), shapes, gradient_of=z),))
        if graph.gate == "convolution" and tap.name in folded:
            sums = (_summed(y, shapes, gradient_of=y),)
            column = replace(column, gradients=sums, offset=folded[tap.name].offset)
        columns.append(column)
    return ReductionPlan(model, shapes, graph.loss, tuple(columns))


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
    channels, positions = int(dims[1] or 0), math.prod(int(d or 0) for d in dims[2:])
    return SummedTensor(str(value.name), len(dims), channels, positions, str(gradient_of.name))
