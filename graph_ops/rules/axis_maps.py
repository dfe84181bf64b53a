"""Transposes of linear maps along one axis: picking by index, and interpolation.

y[…, o, …] = Σ_i A[o, i] · x[…, i, …] has the gradient Aᵀ along the same axis. Picking distinct
positions needs no arithmetic: a Gather by the inverse index undoes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import GradientError
from graph_ops.rules.windows import crop_or_pad

MAX_MATRIX_ELEMENTS = 1 << 24
"""Largest matrix stored for a map along an axis (64 MiB of float32)."""


def dims_for_reshape(tape: BackwardTape, value: ir.Value | None) -> list[int]:
    """The value's shape with −1 for the axis that holds the batch.

    Raises:
        GradientError: more than one axis is not static.
    """
    dims = tape.dims(value)
    if sum(d is None for d in dims) > 1:
        raise GradientError(
            f"Tensor {value.name if value else ''!r} has several axes of unknown length.",
            tensor=value.name if value else None,
        )
    return [-1 if d is None else d for d in dims]


def static_length(node: ir.Node, tape: BackwardTape, dims: Sequence[int], axis: int) -> int:
    """Length of an axis that must not be the batch.

    Raises:
        GradientError: the axis is the batch: samples would mix.
    """
    if dims[axis] < 0:
        raise tape.refuse(node, "it works along the batch axis")
    return dims[axis]


def unpick(
    node: ir.Node,
    tape: BackwardTape,
    gradient: ir.Value,
    dims: Sequence[int],
    axis: int,
    indices: NDArray[np.int64],
    length: int,
) -> ir.Value:
    """Gradient of picking `indices` along an axis: what was picked twice adds up.

    Args:
        node: The forward node, for the error message.
        tape: Where nodes are written.
        gradient: Gradient of the picked tensor.
        dims: Shape of `gradient`, −1 for the batch.
        axis: The axis, not negative.
        indices: Picked positions, not negative.
        length: Length of the axis before picking.
    """
    count = indices.size
    if count and np.array_equal(indices, np.arange(count) + indices[0]):
        before = int(indices[0])
        return _pad_axis(tape, gradient, dims, axis, before, length - count - before)
    if np.unique(indices).size == count:
        inverse = np.full(length, count, dtype=np.int64)
        inverse[indices] = np.arange(count)
        if count < length:
            gradient = _pad_axis(tape, gradient, dims, axis, 0, 1)
        return tape.op("Gather", gradient, tape.constant(inverse), axis=axis)
    if count * length > MAX_MATRIX_ELEMENTS:
        raise tape.refuse(node, f"it picks {count} of {length} positions, some of them repeatedly")
    matrix = np.zeros((count, length), dtype=np.float32)
    matrix[np.arange(count), indices] = 1
    return apply_transpose(tape, gradient, dims, axis, matrix, node.inputs[0])


def _pad_axis(
    tape: BackwardTape,
    gradient: ir.Value,
    dims: Sequence[int],
    axis: int,
    before: int,
    after: int,
) -> ir.Value:
    ends = np.zeros((2, len(dims)), dtype=np.int64)
    ends[:, axis] = before, after
    return crop_or_pad(tape, gradient, dims, ends[0].tolist(), ends[1].tolist(), first_axis=0)


def apply_transpose(
    tape: BackwardTape,
    gradient: ir.Value,
    dims: Sequence[int],
    axis: int,
    matrix: NDArray[np.float32],
    like: ir.Value | None,
) -> ir.Value:
    """Multiply an axis of the gradient by the transpose of `matrix` (outputs, inputs).

    Args:
        tape: Where nodes are written.
        gradient: Tensor of shape `dims`.
        dims: Its shape, −1 for the batch.
        axis: The axis, not negative.
        matrix: The forward map.
        like: A tensor of the gradient's element type.
    """
    rank = len(dims)
    dtype = like.dtype.numpy() if like is not None and like.dtype is not None else np.float32
    if axis == rank - 1:
        return tape.op("MatMul", gradient, tape.constant(matrix, dtype))
    transposed = tape.constant(matrix.T, dtype)
    if axis == rank - 2:
        return tape.op("MatMul", transposed, gradient)
    holds_batch = any(d < 0 for d in dims[axis + 1 :])
    behind = -1 if holds_batch else math.prod(dims[axis + 1 :])
    flat = tape.op("Reshape", gradient, tape.ints([*dims[: axis + 1], behind]))
    applied = tape.op("MatMul", transposed, flat)
    result = [*dims[:axis], matrix.shape[1], *dims[axis + 1 :]]
    return tape.op("Reshape", applied, tape.ints(result))
