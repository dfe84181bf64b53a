"""The sums that scoring reads back, written into a graph that has its gradients.

This module runs in the training runtime's environment too: it needs onnx_ir and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

    Where each lies there, `joined` says.

    Args:
        tape: Where nodes are written.
        products: Tensors z of which z·g is summed, g the gradient they name.
        gradients: Tensors y of which g_y is summed; there may be none.
        value_of: A tensor by name.
        gradient_of: A gradient by its tensor's name.

    Returns:
        The one or two joined outputs.
    """
    parts = {
        z: _pooled(tape, tape.op("Mul", *_factors(tape, z, value_of, gradient_of)), z)
        for z in joined(products)
    }
    outputs = [_join(tape, parts, PRODUCT_SUMS)]
    if gradients:
        sums = {y: _pooled(tape, gradient_of[y.gradient], y) for y in joined(gradients)}
        outputs.append(_join(tape, sums, GRADIENT_SUMS))
    return outputs


def joined(tensors: Sequence[SummedTensor]) -> dict[SummedTensor, slice]:
    """Where each one's means lie among those joined: maps that fill blocks, then the others.

    Of both the last come first, which is how backward finds them.
    """
    found: dict[SummedTensor, slice] = {}
    first = 0
    blocks, others = _apart(dict.fromkeys(tensors))
    for tensor in (*blocks, *others):
        found[tensor] = slice(first, first + tensor.channels)
        first += tensor.channels
    return found


def _apart(
    tensors: Iterable[SummedTensor],
) -> tuple[list[SummedTensor], list[SummedTensor]]:
    """Maps that fill blocks, and the others, which may not be in the blocked layout; reversed."""
    apart: tuple[list[SummedTensor], list[SummedTensor]] = ([], [])
    for tensor in tensors:
        fills = tensor.channels % BLOCK == 0 and tensor.positions > 1
        apart[not fills].insert(0, tensor)
    return apart


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


def _join(tape: BackwardTape, parts: dict[SummedTensor, ir.Value], name: str) -> ir.Value:
    """[N, ΣC] of parts [N, C, 1, 1]: one output is cheaper to read back than one per convolution.

    What fills blocks is joined in the blocked layout. ONNX Runtime runs first what leads to the
    input of a node whose producer was added last, so those are flattened last: one after the other,
    from the last layer on, each as soon as backward has its gradient. The few others wait until the
    end. In another order gradients and activations would be kept for their sums, and read again
    when no cache has them any more.
    """
    blocks, others = _apart(reversed(parts))
    flat = [
        tape.op("Flatten", _concatenated(tape, [parts[t] for t in tensors]), axis=1)
        for tensors in (others, blocks)
        if tensors
    ]
    result = _concatenated(tape, flat[::-1])
    result.name = name
    return result


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
