"""How each operator is linear in its weight: output = row · matrix + bias, at every position.

The row of an output position is what the operator reads there; the matrix is its weight:

    operator        row, [groups, inputs]                     outputs
    Conv            the window's taps × the group's channels  the group's filters
    ConvTranspose   the same, from the input positions that reach the output position
    Gemm            a row of A                                columns of αB
    MatMul          a vector of the left operand              columns of the right one

Taps outside the input are zero, as the operator pads, so border positions are rows like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import float_of, int_of
from graph_ops.rules.windows import Windows, read_windows, transposed_windows
from graph_ops.runtime import Array

Positions = NDArray[np.int64]
"""[n, 1 + axes] sample and output coordinates of each position."""


class LinearForm(Protocol):
    """A weighted operator seen as a stack of matrices."""

    @property
    def inputs(self) -> int:
        """Width of a row of one group."""
        ...

    @property
    def groups(self) -> int:
        """Number of independent matrices."""
        ...

    def grid(self, output: Array, samples: int) -> tuple[int, ...]:
        """Shape of the output positions of one sample."""
        ...

    def rows(self, x: Array, at: Positions, samples: int) -> Array:
        """[groups, n, inputs] what the operator reads at the positions."""
        ...

    def outputs(self, y: Array, at: Positions, samples: int) -> Array:
        """[n, outputs] of a tensor shaped like the operator's output."""
        ...

    def split(self, outputs: Array) -> Array:
        """[groups, n, outputs] of [n, outputs]."""
        ...

    def to_stored(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """A matrix [groups, inputs, outputs] in the layout of the stored weight."""
        ...

    def matrix(self, stored: Array) -> Array:
        """[groups, taps, channels, outputs] of a stored weight."""
        ...


@dataclass(frozen=True)
class WindowForm:
    """Conv and ConvTranspose.

    Attributes:
        node: The node.
        weight: Shape of its weight: (M, C / groups, *kernel), or for ConvTranspose
            (C, M / groups, *kernel).
    """

    node: ir.Node
    weight: tuple[int, ...]

    @property
    def is_transposed(self) -> bool:
        """Whether it is a ConvTranspose."""
        return self.node.op_type == "ConvTranspose"

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return int_of(self.node, "group", 1)

    @property
    def _channels(self) -> int:
        """Input channels of a group."""
        return self.weight[0] // self.groups if self.is_transposed else self.weight[1]

    @property
    def inputs(self) -> int:
        """Taps × the group's channels."""
        return self._channels * math.prod(self.weight[2:])

    def grid(self, output: Array, samples: int) -> tuple[int, ...]:
        """Spatial shape of the output."""
        return tuple(output.shape[2:])

    def rows(self, x: Array, at: Positions, samples: int) -> Array:
        """[groups, n, taps × channels] the windows at the positions."""
        tables = self._tables(x.shape[2:])
        rank = len(tables)
        shape = (at.shape[0], *self.weight[2:])
        inside = np.ones(shape, dtype=np.bool_)
        index: Any = [at[:, 0].reshape(-1, *[1] * rank), slice(None)]
        for axis, table in enumerate(tables):
            taps = table(at[:, 1 + axis])
            taps = taps.reshape(at.shape[0], *[-1 if a == axis else 1 for a in range(rank)])
            valid = (taps >= 0) & (taps < x.shape[2 + axis])
            inside &= valid
            index.append(np.where(valid, taps, 0))
        found = x[tuple(index)]  # (n, *kernel, C): indices around a slice put its axis last
        found = found * inside[..., None]
        found = found.reshape(at.shape[0], -1, self.groups, self._channels)
        return np.ascontiguousarray(found.transpose(2, 0, 1, 3)).reshape(
            self.groups, at.shape[0], self.inputs
        )

    def outputs(self, y: Array, at: Positions, samples: int) -> Array:
        """[n, filters] of the output at the positions."""
        index: Any = (at[:, 0], slice(None), *(at[:, 1 + axis] for axis in range(y.ndim - 2)))
        return np.asarray(y[index])

    def split(self, outputs: Array) -> Array:
        """[groups, n, filters of a group] of [n, filters]."""
        return outputs.reshape(outputs.shape[0], self.groups, -1).swapaxes(0, 1)

    def to_stored(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """(groups, *kernel · channels, filters) to the layout of the weight."""
        kernel = shape[2:]
        rank = len(kernel)
        taps = matrix.reshape(self.groups, *kernel, self._channels, -1)
        channels, filters, spatial = 1 + rank, 2 + rank, range(1, 1 + rank)
        order = (channels, filters) if self.is_transposed else (filters, channels)
        return np.ascontiguousarray(taps.transpose(0, *order, *spatial)).reshape(shape)

    def matrix(self, stored: Array) -> Array:
        """[groups, taps, channels, filters] of a stored weight."""
        kernel = stored.shape[2:]
        order = (1, 2) if self.is_transposed else (2, 1)  # axes of channels and filters
        split = stored.reshape(self.groups, -1, *stored.shape[1:])
        taps = split.transpose(0, *range(3, 3 + len(kernel)), *order)
        return np.ascontiguousarray(taps).reshape(
            self.groups, -1, stored.shape[0 if self.is_transposed else 1], taps.shape[-1]
        )

    def _tables(self, spatial: tuple[int, ...]) -> list[_Taps]:
        kernel = self.weight[2:]
        if self.is_transposed:
            lengths = self._transposed_lengths(spatial)
            w = transposed_windows(self.node, kernel, spatial, lengths)
        else:
            w = read_windows(self.node, kernel, spatial, [0] * len(kernel))
        return [_Taps(w, axis, self.is_transposed) for axis in range(len(kernel))]

    def _transposed_lengths(self, spatial: tuple[int, ...]) -> list[int]:
        """Output lengths where they decide the padding: `output_shape`, or stride × input."""
        if "output_shape" in self.node.attributes:
            return list(self.node.attributes["output_shape"].as_ints())[-len(spatial) :]
        w = transposed_windows(self.node, self.weight[2:], spatial, [0] * len(spatial))
        return [length * stride for length, stride in zip(spatial, w.strides, strict=True)]


@dataclass(frozen=True)
class _Taps:
    """Input index of every tap of an output position, along one axis; negative for none."""

    windows: Windows
    axis: int
    is_transposed: bool

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """[n, taps]; an index past the end of the input stands for padding too."""
        stride, begin = self.windows.strides[self.axis], self.windows.begins[self.axis]
        offsets = np.arange(self.windows.kernel[self.axis]) * self.windows.dilations[self.axis]
        if not self.is_transposed:
            return np.asarray(positions[:, None] * stride - begin + offsets)
        reach = positions[:, None] + begin - offsets
        return np.where(reach % stride == 0, reach // stride, -1)


@dataclass(frozen=True)
class MatrixForm:
    """Gemm (its left operand not transposed) and MatMul with a stored matrix on the right.

    Attributes:
        node: The node.
        weight: Shape of its matrix as it is stored.
    """

    node: ir.Node
    weight: tuple[int, ...]

    groups: int = 1

    @property
    def _is_turned(self) -> bool:
        return self.node.op_type == "Gemm" and int_of(self.node, "transB", 0) == 1

    @property
    def inputs(self) -> int:
        """Rows of the matrix."""
        return self.weight[1 if self._is_turned else 0]

    def grid(self, output: Array, samples: int) -> tuple[int, ...]:
        """Vectors of one sample."""
        return (math.prod(output.shape[:-1]) // samples,)

    def rows(self, x: Array, at: Positions, samples: int) -> Array:
        """[1, n, inputs] the vectors at the positions."""
        return np.asarray(x.reshape(samples, -1, x.shape[-1])[at[:, 0], at[:, 1]])[None]

    def outputs(self, y: Array, at: Positions, samples: int) -> Array:
        """[n, outputs] of the output at the positions."""
        return np.asarray(y.reshape(samples, -1, y.shape[-1])[at[:, 0], at[:, 1]])

    def split(self, outputs: Array) -> Array:
        """[1, n, outputs] of [n, outputs]."""
        return outputs[None]

    def to_stored(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        """The matrix as it is stored: turned, and divided by α."""
        alpha = float_of(self.node, "alpha", 1.0) if self.node.op_type == "Gemm" else 1.0
        stored = matrix[0].T if self._is_turned else matrix[0]
        return np.asarray(stored / alpha)

    def matrix(self, stored: Array) -> Array:
        """[1, 1, inputs, outputs] of a stored weight, times α."""
        alpha = float_of(self.node, "alpha", 1.0) if self.node.op_type == "Gemm" else 1.0
        turned = stored.T if self._is_turned else stored
        return np.asarray(turned[None, None] * stored.dtype.type(alpha))


def linear_form(node: ir.Node, weight: tuple[int, ...]) -> LinearForm | None:
    """The form of a node with a stored weight, or None where it has none of these.

    Args:
        node: Any node.
        weight: Shape of its weight, input 1.
    """
    if node.op_type in ("Conv", "ConvTranspose"):
        return WindowForm(node, weight)
    if node.op_type == "Gemm" and int_of(node, "transA", 0) == 0:
        return MatrixForm(node, weight)
    if node.op_type == "MatMul" and len(weight) == 2:
        return MatrixForm(node, weight)
    return None


@dataclass(frozen=True)
class Draw:
    """Output positions of every sample, in the order in which they were drawn.

    Attributes:
        grid: Shape of the positions of one sample.
        flat: [samples, drawn] their places in the flattened grid; none twice.
        is_whole: Whether there was nothing to draw, because all were wanted.
    """

    grid: tuple[int, ...]
    flat: NDArray[np.int64]
    is_whole: bool

    @property
    def positions(self) -> Positions:
        """All of them, as they were drawn."""
        return self._coordinates(self.flat)

    def first(self, count: int) -> Positions:
        """The first so many of every sample, in the order of the grid."""
        return self._coordinates(np.sort(self.flat[:, :count], axis=1))

    def pick(self, values: Array, count: int) -> Array:
        """[samples · count, channels] of values [samples, drawn, channels], as `first` has them."""
        order = np.argsort(self.flat[:, :count], axis=1)
        picked = np.take_along_axis(values[:, :count], order[..., None], axis=1)
        return picked.reshape(-1, values.shape[2])

    def _coordinates(self, flat: NDArray[np.int64]) -> Positions:
        coordinates = np.unravel_index(flat.reshape(-1), self.grid)
        sample = np.repeat(np.arange(flat.shape[0]), flat.shape[1])
        return np.stack([sample, *coordinates], axis=1).astype(np.int64)


def draw(
    rng: np.random.Generator, samples: int, grid: tuple[int, ...], count: int, pool: int = 0
) -> Draw:
    """`count` output positions of every sample, drawn without repetition (all if there are fewer).

    Args:
        rng: The generator.
        samples: Number of samples.
        grid: Shape of the positions of one sample.
        count: How many of them to draw for each sample.
        pool: How many to go on to draw to, if that is more; the first `count` are the same.
    """
    total = math.prod(grid)
    if count >= total:
        return Draw(grid, np.tile(np.arange(total), (samples, 1)), is_whole=True)
    drawn = min(max(count, pool), total)
    chances = rng.random((samples, total))
    flat = np.argpartition(chances, drawn - 1, axis=1)[:, :drawn]
    if drawn > count:
        order = np.argsort(np.take_along_axis(chances, flat, axis=1), axis=1)
        flat = np.take_along_axis(flat, order, axis=1)
    return Draw(grid, flat, is_whole=False)


def draw_positions(
    rng: np.random.Generator, samples: int, grid: tuple[int, ...], count: int
) -> Positions:
    """The positions of `draw`, in the order of the grid."""
    return draw(rng, samples, grid, count).first(count)
