"""The tape on which gradient rules write a backward graph of standard ONNX operators.

Rules are pure functions from a node and the gradients of its outputs to the gradients of its
inputs. They write with `tape.op`, which appends nodes to the scoring graph, and ask `tape.needs`
before they work for an input whose gradient nobody wants.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from graph_ops.errors import GradientError
from graph_ops.graph import constant_array, is_root_constant, node_label, stored_value

if TYPE_CHECKING:
    from graph_ops.channels import Dims


BLOCK = 16
"""Channels of a block of ONNX Runtime's blocked layout (with AVX-512). Where they do not divide
the channels of a tensor it is not in that layout."""


class BackwardTape:
    """Writes backward nodes into a scoring graph.

    Args:
        graph: The scoring graph; nodes and initializers are appended.
        shapes: Shape of every forward value by name, None for the batch axis.
        wanted: Forward values whose gradient is needed, on the way to the scored convolutions.
        opset: Opset of the scoring graph.

    Attributes:
        early: Maps [N, C, H, W], with H and W, that rules would have computed forward, as soon as
            their inputs are there, and not where backward asks for them: backward reads a slope
            then, and not the tensors it is made of, which have left the caches by that time.
    """

    def __init__(
        self, graph: ir.Graph, shapes: Mapping[str, Dims], wanted: frozenset[ir.Value], opset: int
    ) -> None:
        self.graph = graph
        self.opset = opset
        self.early: list[tuple[ir.Value, list[int]]] = []
        self._shapes = shapes
        self._wanted = wanted
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
        self._taken = {str(v.name) for v in graph.inputs} | set(graph.initializers)
        self._taken |= {str(o.name) for node in graph for o in node.outputs}
        self._taken |= {str(node.name) for node in graph}

    def needs(self, value: ir.Value | None) -> bool:
        """Whether anybody wants the gradient of a forward value."""
        return value is not None and value in self._wanted

    def dims(self, value: ir.Value | None) -> tuple[int | None, ...]:
        """Shape of a forward value (or stored constant); None for the batch axis.

        Raises:
            GradientError: the rank is not known.
        """
        if value is not None and is_root_constant(value):
            array = constant_array(value)
            assert array is not None
            return tuple(array.shape)
        dims = None if value is None else self._shapes.get(str(value.name))
        if dims is None:
            raise GradientError(
                f"The shape of tensor {value.name if value else ''!r} is not known.",
                tensor=value.name if value else None,
            )
        return dims

    def spatial(self, value: ir.Value | None, start: int = 2) -> list[int]:
        """Static lengths of the axes from `start` on.

        Raises:
            GradientError: one of them is not static.
        """
        dims = self.dims(value)[start:]
        if any(d is None for d in dims):
            raise GradientError(
                f"Tensor {value.name if value else ''!r} has axes of unknown length.",
                tensor=value.name if value else None,
            )
        return [int(d or 0) for d in dims]

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """Append a node with one output."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(
        self, op_type: str, *inputs: ir.Value | None, outputs: int, **attributes: Any
    ) -> Sequence[ir.Value]:
        """Append a node with several outputs."""
        node = ir.node(
            op_type,
            list(inputs),
            attributes=attributes or None,
            num_outputs=outputs,
            name=self._name(f"grad/{op_type}"),
        )
        for output in node.outputs:
            output.name = self._name(f"grad/{op_type}")
        self.graph.append(node)
        return node.outputs

    def constant(self, array: ArrayLike, dtype: Any = None) -> ir.Value:
        """A stored tensor (equal ones are stored once)."""
        data: NDArray[Any] = np.ascontiguousarray(np.asarray(array, dtype=dtype))
        if np.ndim(array) == 0:
            data = data.reshape(())
        key = (data.dtype.str, data.shape, hashlib.sha256(data.data).digest())
        if key not in self._constants:
            name = self._name("grad/constant")
            value = stored_value(name, data)
            self.graph.initializers.add(value)
            self._constants[key] = value
        return self._constants[key]

    def ints(self, numbers: Sequence[int]) -> ir.Value:
        """A stored int64 vector."""
        return self.constant(np.asarray(list(numbers), dtype=np.int64))

    def scalar(self, number: float, like: ir.Value | None = None) -> ir.Value:
        """A stored float scalar of the element type of `like` (float32 by default)."""
        dtype = like.dtype.numpy() if like is not None and like.dtype is not None else np.float32
        return self.constant(np.asarray(number, dtype=dtype))

    def reshape_like(self, gradient: ir.Value, value: ir.Value) -> ir.Value:
        """The gradient in the value's shape; at most one axis (the batch) is not static."""
        dims = self._shapes.get(str(value.name))
        if dims is not None and sum(d is None for d in dims) <= 1:
            return self.op("Reshape", gradient, self.ints([-1 if d is None else d for d in dims]))
        return self.op("Reshape", gradient, self.op("Shape", value))

    def sum_over(
        self, gradient: ir.Value, axes: Sequence[int], keep_dims: bool = False
    ) -> ir.Value:
        """Sum over axes (the gradient itself when there are none)."""
        if not axes:
            return gradient
        return self.op("ReduceSum", gradient, self.ints(axes), keepdims=int(keep_dims))

    def unbroadcast(self, gradient: ir.Value, value: ir.Value, result: ir.Value) -> ir.Value:
        """Undo broadcasting: sum the gradient of `result` over the axes `value` was repeated on.

        This is the only place where broadcasting is undone. `gradient` has the shape of `result`.
        """
        dims, out_dims = self.dims(value), self.dims(result)
        extra = len(out_dims) - len(dims)
        repeated = [
            axis + extra for axis, d in enumerate(dims) if d == 1 and out_dims[axis + extra] != 1
        ]
        summed = self.sum_over(gradient, repeated, keep_dims=True)
        return self.sum_over(summed, list(range(extra)))

    def blocked(self, value: ir.Value, rank: int) -> ir.Value:
        """The same tensor, in the layout ONNX Runtime's CPU convolutions like best.

        A MaxPool over single elements changes nothing but lets a large tensor that comes from an
        operator without the blocked layout re-enter it; otherwise every operator behind it leaves
        that layout too. Only 4-D tensors have it.
        """
        return self.op("MaxPool", value, kernel_shape=[1, 1]) if rank == 4 else value

    def may_be_blocked(self, value: ir.Value) -> bool:
        """Whether a forward value may be in the blocked layout: float32 images of whole blocks."""
        dims = self._shapes.get(str(value.name)) or ()
        is_image = value.dtype == ir.DataType.FLOAT and len(dims) == 4
        return is_image and bool(dims[1]) and int(dims[1] or 0) % BLOCK == 0

    def repeat(self, value: ir.Value, factors: Sequence[int]) -> ir.Value:
        """Every element repeated over a tile of so many positions along each spatial axis.

        In the blocked layout where the value is.
        """
        return self.op(
            "Resize",
            value,
            None,
            self.constant(np.asarray([1, 1, *factors], dtype=np.float32)),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def refuse(self, node: ir.Node, reason: str) -> GradientError:
        """The error a rule raises when it does not apply to a node."""
        return GradientError(
            f"No gradient for {node.op_type} {node_label(node)!r}: {reason}.",
            node=node_label(node),
            op_type=node.op_type,
        )

    def _name(self, stem: str) -> str:
        name = f"{stem}_{len(self._taken)}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
