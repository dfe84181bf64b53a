"""The sums that scoring reads back, written into a graph that has its gradients.

This module runs in the training runtime's environment too: it needs onnx_ir and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.engines.tape import BackwardTape

PRODUCT_SUMS = "score/products"
GRADIENT_SUMS = "score/gradients"
BLOCK = 16
"""Channels of the runtime's widest blocks: tensors of as many channels, or a multiple, are joined
in its blocked layout."""


@dataclass(frozen=True)
class SummedTensor:
    """A tensor [N, C, …] that is summed over its positions.

    Attributes:
        name: Its name.
        rank: Number of its axes.
        channels: C.
        positions: Product of the axes behind C.
        gradient: Name of the tensor, of the same shape, whose gradient is meant.
    """

    name: str
    rank: int
    channels: int
    positions: int
    gradient: str


def append_sums(
    tape: BackwardTape,
    products: Sequence[SummedTensor],
    gradients: Sequence[SummedTensor],
    value_of: Callable[[str], ir.Value],
    gradient_of: Mapping[str, ir.Value],
) -> list[ir.Value]:
    """Write means over positions, joined to `PRODUCT_SUMS` and `GRADIENT_SUMS`, both [N, ΣC].

    The last of each come first: that is how backward finds them, and the runtime takes them in
    their order, so that no gradient waits for its sum.

    Args:
        tape: Where nodes are written.
        products: Tensors z of which z·g is summed, g the gradient they name.
        gradients: Tensors y of which g_y is summed; there may be none.
        value_of: A tensor by name.
        gradient_of: A gradient by its tensor's name.

    Returns:
        The one or two joined outputs.
    """
    parts = [
        (_pooled(tape, tape.op("Mul", *_factors(tape, z, value_of, gradient_of)), z), z.channels)
        for z in reversed(products)
    ]
    outputs = [_joined(tape, parts, PRODUCT_SUMS)]
    if gradients:
        sums = [
            (_pooled(tape, gradient_of[y.gradient], y), y.channels) for y in reversed(gradients)
        ]
        outputs.append(_joined(tape, sums, GRADIENT_SUMS))
    return outputs


def _factors(
    tape: BackwardTape,
    z: SummedTensor,
    value_of: Callable[[str], ir.Value],
    gradient_of: Mapping[str, ir.Value],
) -> tuple[ir.Value, ir.Value]:
    """Gradient and tensor, or what has the same sums of products."""
    gradient = gradient_of[z.gradient]
    if z.name == z.gradient and gradient in tape.products:
        return tape.products[gradient]
    return gradient, value_of(z.name)


def _pooled(tape: BackwardTape, product: ir.Value, like: SummedTensor) -> ir.Value:
    """Mean over the positions, as [N, C, 1, 1]."""
    if like.rank == 4 and like.positions == 1:
        return product
    pooled = tape.op("GlobalAveragePool", product)
    if like.rank == 4:
        return pooled
    return tape.op("Reshape", pooled, tape.ints([-1, like.channels, 1, 1]))


def _joined(tape: BackwardTape, parts: Sequence[tuple[ir.Value, int]], name: str) -> ir.Value:
    """[N, ΣC] of parts [N, C, 1, 1]: one output is cheaper to read back than one per convolution.

    Neighbours that fill blocks are joined first, which costs one way out of the blocked layout
    instead of one each.
    """
    runs = []
    for is_whole, run in itertools.groupby(parts, key=lambda part: part[1] % BLOCK == 0):
        values = [value for value, _ in run]
        runs += [_concatenated(tape, values)] if is_whole else values
    flat = tape.op("Flatten", _concatenated(tape, runs), axis=1)
    flat.name = name
    return flat


def _concatenated(tape: BackwardTape, values: Sequence[ir.Value]) -> ir.Value:
    return tape.op("Concat", *values, axis=1) if len(values) > 1 else values[0]


def set_outputs(model: ir.Model, outputs: Sequence[ir.Value]) -> None:
    """Make these the graph's outputs and drop nodes nobody needs."""
    for value in outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.clear()
    model.graph.outputs.extend(dict.fromkeys(outputs))
    needed = set(outputs)
    for node in reversed(list(model.graph)):
        if any(o in needed for o in node.outputs):
            needed.update(v for v in node.inputs if v is not None)
        else:
            model.graph.remove(node)
    for initializer in list(model.graph.initializers.values()):
        if not initializer.uses():
            del model.graph.initializers[str(initializer.name)]
