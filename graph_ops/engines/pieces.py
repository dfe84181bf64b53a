"""A batch in pieces of equally many samples, run side by side.

Samples are independent. Threads that share the samples of a batch wait for each other once, at its
end; threads that share an operator wait at every operator, and a scoring graph has hundreds of
small ones. No more pieces live at a time than there are threads, and neither do their activations.

How a batch is cut depends on the network and the batch alone, never on the machine, so that what
comes of a sample does not either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.graph import constant_array
from graph_ops.runtime import Array

OPERATOR_BYTES = 3 << 17
"""What an operator makes of a piece, in the mean: with less, starting operators takes too long
beside what they do."""

_Result = TypeVar("_Result")


def samples_at_once(model: ir.Model, shapes: Mapping[str, Dims]) -> int:
    """Most samples of a piece: as many as keep operators busy, in a power of two like most batches.

    A matrix product reads its whole matrix for every piece, so a piece has activations of at least
    as many bytes as the matrices have.

    Args:
        model: The forward graph.
        shapes: Shape of every value by name, None for the batch axis.
    """
    outputs = [value for node in model.graph for value in node.outputs]
    sizes = [_sample_bytes(value, shapes.get(str(value.name))) for value in outputs]
    sample, operators = max(sum(sizes), 1), sum(size > 0 for size in sizes) or 1
    busy = -(-OPERATOR_BYTES * operators // sample)
    factors = [v for n in model.graph if n.op_type in ("Gemm", "MatMul") for v in n.inputs]
    matrices = [array.nbytes for v in factors if (array := constant_array(v)) is not None]
    return max(1 << (busy.bit_length() - 1), sum(matrices) // sample)


def _sample_bytes(value: ir.Value, dims: Dims | None) -> int:
    if dims is None or None not in dims:
        return 0
    itemsize = 4 if value.dtype is None else value.dtype.itemsize
    return math.prod(int(d) for d in dims if d is not None) * int(itemsize)


def piece_length(rows: int, at_once: int) -> int:
    """Samples of every piece: at most `at_once`, and as even as can be."""
    return -(-rows // -(-rows // at_once))


def cut(feeds: Mapping[str, Array], length: int) -> Iterator[dict[str, Array]]:
    """Pieces of `length` samples; the last is filled up with those the batch begins with."""
    rows = next(iter(feeds.values())).shape[0]
    for start in range(0, rows, length):
        if start + length <= rows:
            yield {name: array[start : start + length] for name, array in feeds.items()}
        else:
            chosen = np.arange(start, start + length) % rows
            yield {name: array[chosen] for name, array in feeds.items()}


def join(parts: Sequence[Sequence[Array]], rows: int) -> list[Array]:
    """What comes of a batch of so many rows, from what came of its pieces."""
    return [np.concatenate(arrays)[:rows] for arrays in zip(*parts, strict=True)]


def side_by_side(
    run: Callable[[dict[str, Array]], _Result], pieces: Sequence[dict[str, Array]], threads: int
) -> list[_Result]:
    """What comes of every piece, in order; the first error, once nothing runs any more."""
    if len(pieces) == 1 or threads == 1:
        return [run(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, pieces))
