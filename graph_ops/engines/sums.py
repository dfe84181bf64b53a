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
        z: _pooled(tape, tape.op("Mul", gradient_of[z.gradient], value_of(z.name)), z)
        for z in joined(products)
    }
    outputs = [_behind_what_is_early(tape, _join(tape, parts), list(parts))]
    outputs[0].name = PRODUCT_SUMS
    if gradients:
        sums = {y: _pooled(tape, gradient_of[y.gradient], y) for y in joined(gradients)}
        outputs.append(_join(tape, sums))
        outputs[-1].name = GRADIENT_SUMS
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


def _pooled(tape: BackwardTape, product: ir.Value, like: SummedTensor) -> ir.Value:
    """Mean over the positions, as [N, C, 1, 1]."""
    if like.rank == 4 and like.positions == 1:
        return product
    pooled = tape.op("GlobalAveragePool", product)
    if like.rank == 4:
        return pooled
    return tape.op("Reshape", pooled, tape.ints([-1, like.channels, 1, 1]))


def _join(tape: BackwardTape, parts: dict[SummedTensor, ir.Value]) -> ir.Value:
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
    return _concatenated(tape, flat[::-1])


def _behind_what_is_early(
    tape: BackwardTape, result: ir.Value, tensors: Sequence[SummedTensor]
) -> ir.Value:
    """The same joined sums, which ONNX Runtime comes to after what is to be computed forward.

    By its order (`_join`) that is what leads to the node written last. So a corner of each such
    map, from the first layer on, is joined to the sums and cut off again.
    """
    if not tape.early:
        return result
    corners = [
        tape.op("MaxPool", value, kernel_shape=[1, 1], strides=lengths)
        for value, lengths in reversed(tape.early)
    ]
    end = sum(tensor.channels for tensor in tensors)
    flat = tape.op("Flatten", _concatenated(tape, corners), axis=1)
    both = tape.op("Concat", result, flat, axis=1)
    return tape.op("Slice", both, tape.ints([0]), tape.ints([end]), tape.ints([1]))


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
