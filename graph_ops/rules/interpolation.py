"""The matrix of Resize along one axis, as ONNX Runtime computes it.

Output o reads around the input coordinate c(o) of the `coordinate_transformation_mode`: the nearest
input, or the two next to it weighted by their distance (`linear`). Coordinates are float32, as in
ONNX Runtime, so that ties round the same way.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.engines.tape import BackwardTape
from graph_ops.graph import int_of, string_of
from graph_ops.rules.axis_maps import MAX_MATRIX_ELEMENTS


def interpolation_matrix(
    node: ir.Node, tape: BackwardTape, inputs: int, outputs: int, scale: np.float32
) -> NDArray[np.float32]:
    """[outputs, inputs] weights of a Resize or Upsample node along one axis.

    Args:
        node: The node, for its modes.
        tape: For the error.
        inputs: Length of the axis before resizing.
        outputs: Length after it.
        scale: Factor the coordinates are scaled by.

    Raises:
        GradientError: a mode other than nearest and linear, or a coordinate mode that crops.
    """
    mode = string_of(node, "mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise tape.refuse(node, f"its mode is {mode}")
    if int_of(node, "antialias", 0):
        raise tape.refuse(node, "it is antialiased")
    if inputs * outputs > MAX_MATRIX_ELEMENTS:
        raise tape.refuse(node, f"it resizes an axis from {inputs} to {outputs} elements")
    coordinates = _coordinates(node, tape, inputs, outputs, scale)
    rows = np.arange(outputs)
    matrix = np.zeros((outputs, inputs), dtype=np.float32)
    if mode == "nearest":
        nearest = _round(coordinates, string_of(node, "nearest_mode", "round_prefer_floor"))
        matrix[rows, np.clip(nearest, 0, inputs - 1).astype(np.int64)] = 1
        return matrix
    clipped = np.clip(coordinates, 0, inputs - 1)
    lower = np.floor(clipped).astype(np.int64)
    upper = np.minimum(lower + 1, inputs - 1)
    share = clipped - lower
    np.add.at(matrix, (rows, lower), 1 - share)
    np.add.at(matrix, (rows, upper), share)
    return matrix


def _coordinates(
    node: ir.Node, tape: BackwardTape, inputs: int, outputs: int, scale: np.float32
) -> NDArray[np.float32]:
    """[outputs] input coordinate of every output position."""
    default = "half_pixel" if node.op_type == "Resize" else "asymmetric"
    mode = string_of(node, "coordinate_transformation_mode", default)
    positions = np.arange(outputs, dtype=np.float32)
    half = np.float32(0.5)
    if scale == 1 and inputs == outputs:
        return positions
    if mode == "asymmetric":
        return positions / scale
    if mode == "half_pixel":
        return (positions + half) / scale - half
    if mode == "pytorch_half_pixel":
        return (positions + half) / scale - half if outputs > 1 else np.zeros_like(positions)
    if mode == "align_corners":
        if outputs == 1:
            return np.zeros_like(positions)
        return positions * np.float32(inputs - 1) / np.float32(outputs - 1)
    if mode == "half_pixel_symmetric":
        adjustment = np.float32(outputs) / (scale * np.float32(inputs))
        offset = np.float32(inputs) / np.float32(2) * (np.float32(1) - adjustment)
        return offset + (positions + half) / scale - half
    raise tape.refuse(node, f"its coordinate_transformation_mode is {mode}")


def _round(coordinates: NDArray[np.float32], mode: str) -> NDArray[np.float32]:
    half = np.float32(0.5)
    rounded = {
        "floor": np.floor(coordinates),
        "ceil": np.ceil(coordinates),
        "round_prefer_floor": np.ceil(coordinates - half),
        "round_prefer_ceil": np.floor(coordinates + half),
    }
    return np.asarray(rounded[mode], dtype=np.float32)
