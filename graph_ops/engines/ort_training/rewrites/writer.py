"""What a rewrite is written with: a tape, masks, and values that pass no gradient.

Piecewise operators are split with `stop`: a copy of a value that the gradient does not flow
through. With x̄ the stopped copy of x,

    y = stop(f(x)) + (x − x̄)·f′(x̄)

has the value of f (the second term is exactly 0) and the derivative f′, whatever the training
runtime knows of f. Masks such as [x > 0] are taken from stopped copies as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import GradientError
from graph_ops.rules.axis_maps import MAX_MATRIX_ELEMENTS, dims_for_reshape

Operand = ir.Value | float


class Writer:
    """Writes the replacement of one node into a scoring graph.

    Args:
        tape: Where nodes go.
        stop: Makes, or finds, the stopped copy of a value.
        is_differentiable: Whether a gradient flows through a value.
        like: A value of the element type that numbers take.
    """

    def __init__(
        self,
        tape: BackwardTape,
        stop: Callable[[ir.Value], ir.Value],
        is_differentiable: Callable[[ir.Value | None], bool],
        like: ir.Value | None,
    ) -> None:
        self.tape = tape
        self.stop = stop
        self.is_differentiable = is_differentiable
        self._like = like

    @property
    def dtype(self) -> ir.DataType:
        """Element type of the values that are written."""
        return self._like.dtype if self._like and self._like.dtype else ir.DataType.FLOAT

    def op(self, op_type: str, *inputs: Operand | None, **attributes: Any) -> ir.Value:
        """Append a node; numbers among the inputs become stored scalars."""
        values = [self.number(i) if isinstance(i, int | float) else i for i in inputs]
        return self.tape.op(op_type, *values, **attributes)

    def number(self, value: float) -> ir.Value:
        """A stored scalar."""
        return self.tape.scalar(value, like=self._like)

    def constant(self, array: ArrayLike) -> ir.Value:
        """A stored tensor of the written element type."""
        return self.tape.constant(array, self.dtype.numpy())

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A stored int64 vector."""
        return self.tape.ints(numbers)

    def dims(self, value: ir.Value | None) -> list[int]:
        """Shape with −1 for the axis that holds the batch.

        Raises:
            GradientError: more than one axis is not static.
        """
        return dims_for_reshape(self.tape, value)

    def is_above(self, value: ir.Value, threshold: Operand) -> ir.Value:
        """[value > threshold] as a stopped 0.0 or 1.0."""
        return self.as_number(self.op("Greater", self.stop(value), threshold))

    def as_number(self, mask: ir.Value) -> ir.Value:
        """A boolean as 0.0 or 1.0."""
        return self.op("Cast", mask, to=self.dtype.value)

    def stopped_outputs(self, node: ir.Node) -> Sequence[ir.Value]:
        """The node once more, on stopped copies of its inputs."""
        inputs = [
            self.stop(v) if v is not None and self.is_differentiable(v) else v for v in node.inputs
        ]
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        return self.tape.ops(node.op_type, *inputs, outputs=len(node.outputs), **attributes)

    def tangent(
        self, value: ir.Value, terms: Sequence[tuple[ir.Value, ir.Value | None]]
    ) -> ir.Value:
        """`value` + Σ (x − stop(x))·slope over the (x, slope) pairs; no slope stands for 1.

        Args:
            value: A value through which no gradient flows.
            terms: Inputs with their stopped slopes.
        """
        for x, slope in terms:
            difference = self.op("Sub", x, self.stop(x))
            product = difference if slope is None else self.op("Mul", difference, slope)
            value = self.op("Add", value, product)
        return value

    def map_axis(
        self, value: ir.Value, dims: Sequence[int], axis: int, matrix: NDArray[Any]
    ) -> ir.Value:
        """y[…, o, …] = Σ_i matrix[o, i]·x[…, i, …] along an axis.

        Args:
            value: x, of shape `dims`.
            dims: Shape with −1 for the batch.
            axis: The axis, not negative and not the batch.
            matrix: [outputs, inputs].

        Raises:
            GradientError: the matrix is too large to be stored.
        """
        rank = len(dims)
        if matrix.size > MAX_MATRIX_ELEMENTS:
            raise GradientError(
                f"Tensor {value.name!r} has an axis of {matrix.shape[1]} elements, too many to be "
                "mapped by a stored matrix.",
                tensor=value.name,
            )
        if axis == rank - 1:
            return self.op("MatMul", value, self.constant(matrix.T))
        behind = int(np.prod(dims[axis + 1 :]))
        flat = self.op("Reshape", value, self.ints([*dims[: axis + 1], behind]))
        mapped = self.op("MatMul", self.constant(matrix), flat)
        result = [*dims[:axis], matrix.shape[0], *dims[axis + 1 :]]
        return self.op("Reshape", mapped, self.ints(result))

    def pick(
        self, value: ir.Value, axis: int, indices: Sequence[int] | NDArray[np.int64]
    ) -> ir.Value:
        """Elements of an axis by stored index."""
        return self.op("Gather", value, self.ints([int(i) for i in indices]), axis=axis)
