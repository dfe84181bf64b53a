"""Convolutions, pooling and resampling.

Linear maps that work on one axis at a time (pooling sums, interpolation, the zeros that a
transposed convolution puts between elements) become products with stored matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.engines.ort_training.rewrites.registry import Outputs, rewrite
from graph_ops.engines.ort_training.rewrites.writer import Writer
from graph_ops.graph import (
    float_of,
    input_at,
    int_list_of,
    int_of,
    output_at,
    string_of,
)
from graph_ops.rules.interpolation import interpolation_matrix
from graph_ops.rules.resampling import scales_of
from graph_ops.rules.windows import Windows, flipped, read_windows, transposed_windows


@rewrite("Conv")
def convolution(node: ir.Node, write: Writer) -> Outputs:
    """With auto_pad the runtime's gradient is silently wrong: the padding is spelled out."""
    if string_of(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        _spell_pads(node, write, list(write.tape.dims(node.inputs[1])[2:]))
    return None


@rewrite("MaxPool")
def max_pool(node: ir.Node, write: Writer) -> Outputs:
    """As for Conv, padding is spelled out."""
    if string_of(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        _spell_pads(node, write, int_list_of(node, "kernel_shape", []))
    return None


def _spell_pads(node: ir.Node, write: Writer, kernel: Sequence[int | None]) -> None:
    sizes = [int(k or 0) for k in kernel]
    windows = _windows(node, write, sizes)
    ends = [max(end, 0) for end in _ends(windows)]
    del node.attributes["auto_pad"]
    node.attributes["pads"] = ir.AttrInt64s("pads", [*windows.begins, *ends])


def _ends(w: Windows) -> list[int]:
    """Padding behind each axis that the last window reads; negative where input is left over."""
    return [s - b - i for s, b, i in zip(w.spans, w.begins, w.inputs, strict=True)]


def _windows(node: ir.Node, write: Writer, kernel: Sequence[int]) -> Windows:
    tape = write.tape
    return read_windows(node, kernel, tape.spatial(node.inputs[0]), tape.spatial(node.outputs[0]))


@rewrite("ConvTranspose")
def transposed_convolution(node: ir.Node, write: Writer) -> Outputs:
    """Zeros between the elements and around them, then Conv with the flipped kernel.

    An axis matrix places input i at i·stride + (extent − 1) − begin, which also pads and crops.
    """
    x, filters = node.inputs[0], node.inputs[1]
    assert x is not None
    assert filters is not None
    kernel, inputs, outputs = (write.tape.spatial(v) for v in (filters, x, node.outputs[0]))
    windows = transposed_windows(node, kernel, inputs, outputs)
    dims = write.dims(x)
    spread = x
    for position, (extent, begin) in enumerate(zip(windows.extents, windows.begins, strict=True)):
        axis = 2 + position
        length, stride = windows.outputs[position], windows.strides[position]
        padded = windows.inputs[position] + extent - 1
        places = np.arange(length) * stride + extent - 1 - begin
        inside = (places >= 0) & (places < padded)
        matrix = np.zeros((padded, length))
        matrix[places[inside], np.flatnonzero(inside)] = 1
        spread = write.map_axis(spread, dims, axis, matrix)
        dims[axis] = padded
    group = int_of(node, "group", 1)
    swapped = flipped(write.tape, filters, group)
    attributes = {"kernel_shape": kernel, "dilations": list(windows.dilations), "group": group}
    return [write.op("Conv", spread, swapped, *node.inputs[2:], **attributes)]


@rewrite("AveragePool")
def average_pool(node: ir.Node, write: Writer) -> Outputs:
    """Sums along one axis after the other, each divided by its own count.

    The runtime's gradient gets a wrong shape where the batch is not fixed.
    """
    x = node.inputs[0]
    assert x is not None
    kernel = int_list_of(node, "kernel_shape", [])
    windows = _windows(node, write, kernel)
    dims, pooled = write.dims(x), x
    for position, matrix in enumerate(_averages(node, windows)):
        pooled = write.map_axis(pooled, dims, 2 + position, matrix)
        dims[2 + position] = matrix.shape[0]
    return [pooled]


def _averages(node: ir.Node, w: Windows) -> list[NDArray[np.float64]]:
    """[outputs, inputs] per axis.

    Padding counts with `count_include_pad`, but not what only `ceil_mode` adds behind it.
    """
    rank = len(w.kernel)
    counts_pads = int_of(node, "count_include_pad", 0) == 1
    pads = int_list_of(node, "pads", [0] * (2 * rank))
    if string_of(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        pads = [
            *w.begins,
            *(s - b - i for s, b, i in zip(w.spans, w.begins, w.inputs, strict=True)),
        ]
    matrices = []
    for axis in range(rank):
        first = np.arange(w.outputs[axis]) * w.strides[axis] - w.begins[axis]
        taps = first[:, None] + np.arange(w.kernel[axis]) * w.dilations[axis]
        inside = (taps >= 0) & (taps < w.inputs[axis])
        counted = taps < w.inputs[axis] + pads[rank + axis] if counts_pads else inside
        matrix = np.zeros((w.outputs[axis], w.inputs[axis]))
        np.add.at(matrix, (np.nonzero(inside)[0], taps[inside]), 1.0)
        matrices.append(matrix / np.maximum(counted.sum(axis=1), 1)[:, None])
    return matrices


@rewrite("GlobalMaxPool")
def global_max_pool(node: ir.Node, write: Writer) -> Outputs:
    """MaxPool over all positions."""
    x = node.inputs[0]
    return [write.op("MaxPool", x, kernel_shape=write.tape.spatial(x))]


@rewrite("Resize")
def resize(node: ir.Node, write: Writer) -> Outputs:
    """Interpolation along one axis after the other."""
    x = node.inputs[0]
    assert x is not None
    if string_of(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise write.tape.refuse(node, "its keep_aspect_ratio_policy is not stretch")
    dims, out_dims = write.dims(x), write.dims(node.outputs[0])
    scales = scales_of(node, write.tape, dims, out_dims)
    result = x
    for axis, scale in scales.items():
        if scale == 1 and dims[axis] == out_dims[axis]:
            continue
        if dims[axis] < 0:
            raise write.tape.refuse(node, "it works along the batch axis")
        matrix = interpolation_matrix(node, write.tape, dims[axis], out_dims[axis], scale)
        result = write.map_axis(result, dims, axis, matrix)
        dims[axis] = out_dims[axis]
    return [write.op("Identity", result) if result is x else result]


@rewrite("DepthToSpace")
def depth_to_space(node: ir.Node, write: Writer) -> Outputs:
    """Reshape, Transpose, Reshape."""
    x, block = node.inputs[0], int_of(node, "blocksize", 1)
    channels, height, width = write.tape.spatial(x, 1)
    inner = channels // block**2
    is_crd = string_of(node, "mode", "DCR") == "CRD"
    parts = [inner, block, block] if is_crd else [block, block, inner]
    perm = [0, 1, 4, 2, 5, 3] if is_crd else [0, 3, 4, 1, 5, 2]
    parted = write.op("Reshape", x, write.ints([-1, *parts, height, width]))
    moved = write.op("Transpose", parted, perm=perm)
    shape = write.ints([-1, inner, height * block, width * block])
    return [write.op("Reshape", moved, shape)]


@rewrite("SpaceToDepth")
def space_to_depth(node: ir.Node, write: Writer) -> Outputs:
    """Reshape, Transpose, Reshape."""
    x, block = node.inputs[0], int_of(node, "blocksize", 1)
    channels, height, width = write.tape.spatial(x, 1)
    rows, columns = height // block, width // block
    parted = write.op("Reshape", x, write.ints([-1, channels, rows, block, columns, block]))
    moved = write.op("Transpose", parted, perm=[0, 3, 5, 1, 2, 4])
    return [write.op("Reshape", moved, write.ints([-1, channels * block**2, rows, columns]))]


@rewrite("BatchNormalization")
def batch_normalization(node: ir.Node, write: Writer) -> Outputs:
    """γ/√(variance + ε)·x + (β − mean·γ/√(variance + ε)), per channel."""
    if int_of(node, "training_mode", 0) or output_at(node, 1) is not None:
        raise write.tape.refuse(node, "it is in training mode")
    x, gamma, beta, mean, variance = node.inputs
    steady = write.op("Add", variance, float_of(node, "epsilon", 1e-5))
    factor = write.op("Div", gamma, write.op("Sqrt", steady))
    offset = write.op("Sub", beta, write.op("Mul", mean, factor))
    shape = write.ints([-1, *[1] * (len(write.tape.dims(x)) - 2)])
    scaled = write.op("Mul", x, write.op("Reshape", factor, shape))
    return [write.op("Add", scaled, write.op("Reshape", offset, shape))]


@rewrite("InstanceNormalization")
def instance_normalization(node: ir.Node, write: Writer) -> Outputs:
    """(x − mean)/√(variance + ε)·scale + bias, over the positions of each channel."""
    x, scale, bias = node.inputs
    rank = len(write.tape.dims(x))
    standardized = _standardized(node, write, list(range(2, rank)))
    shape = write.ints([-1, *[1] * (rank - 2)])
    scaled = write.op("Mul", standardized, write.op("Reshape", scale, shape))
    return [write.op("Add", scaled, write.op("Reshape", bias, shape))]


@rewrite("LayerNormalization")
def layer_normalization(node: ir.Node, write: Writer) -> Outputs:
    """(x − mean)/√(variance + ε)·scale + bias, over the axes from `axis` on."""
    if output_at(node, 1) is not None or output_at(node, 2) is not None:
        raise write.tape.refuse(node, "its mean or deviation is used")
    rank = len(write.tape.dims(node.inputs[0]))
    axis = int_of(node, "axis", -1)
    standardized = _standardized(node, write, list(range(axis % rank, rank)))
    result = write.op("Mul", standardized, node.inputs[1])
    bias = input_at(node, 2)
    return [result if bias is None else write.op("Add", result, bias)]


def _standardized(node: ir.Node, write: Writer, axes: Sequence[int]) -> ir.Value:
    x = node.inputs[0]
    epsilon = float_of(node, "epsilon", 1e-5)
    over = write.ints(axes)
    centred = write.op("Sub", x, write.op("ReduceMean", x, over, keepdims=1))
    square = write.op("Mul", centred, write.op("Identity", centred))
    variance = write.op("ReduceMean", square, over, keepdims=1)
    return write.op("Div", centred, write.op("Sqrt", write.op("Add", variance, epsilon)))


@rewrite("LRN")
def local_response_normalization(node: ir.Node, write: Writer) -> Outputs:
    """x·(bias + α/size·Σ x² over neighbouring channels)^(−β)."""
    x = node.inputs[0]
    assert x is not None
    dims = write.dims(x)
    size = int_of(node, "size", 1)
    alpha = float_of(node, "alpha", 1e-4)
    beta = float_of(node, "beta", 0.75)
    bias = float_of(node, "bias", 1.0)
    ahead = np.arange(dims[1]) - np.arange(dims[1])[:, None]
    window = (ahead >= -((size - 1) // 2)) & (ahead <= size // 2)
    squares = write.op("Mul", x, write.op("Identity", x))
    energy = write.map_axis(squares, dims, 1, window * (alpha / size))
    return [write.op("Mul", x, write.op("Pow", write.op("Add", energy, bias), -beta))]
