"""Graphs with the structure of a detector, a U-Net and a super-resolution network.

They are written node by node, so that no framework is needed: small widths, random weights, and
normalisation statistics that are not trivial.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CLASSES = 3
BINS = 4


class GraphWriter:
    """Appends nodes with random weights; every method returns the name of its result."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """A node; with several outputs, the name without the number behind it."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, inputs, names, name=name, **attributes))
        return name

    def store(self, array: NDArray[np.generic] | Sequence[int]) -> str:
        """A stored tensor; plain numbers are int64."""
        name = f"stored_{len(self.weights)}"
        data = array if isinstance(array, np.ndarray) else np.asarray(array, np.int64)
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def random(self, *shape: int, low: float = -1.0, high: float = 1.0) -> str:
        """A stored tensor of random numbers."""
        return self.store(self._random.uniform(low, high, shape).astype(np.float32))

    def conv(
        self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, group: int = 1
    ) -> str:
        """Convolution that keeps the size (but for its stride), with a bias."""
        bound = (3.0 / (inputs // group * kernel * kernel)) ** 0.5
        weight = self.random(outputs, inputs // group, kernel, kernel, low=-bound, high=bound)
        pad = kernel // 2
        return self.op(
            "Conv",
            x,
            weight,
            self.random(outputs, low=-0.1, high=0.1),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=group,
        )

    def normalise(self, x: str, channels: int) -> str:
        """BatchNormalization."""
        vectors = [
            self.random(channels, low=low, high=high)
            for low, high in ((0.5, 1.5), (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5))
        ]
        return self.op("BatchNormalization", x, *vectors)

    def block(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        """Convolution, BatchNormalization, SiLU: the unit of a YOLO."""
        y = self.normalise(self.conv(x, inputs, outputs, kernel, stride), outputs)
        return self.op("Mul", y, self.op("Sigmoid", y))

    def model(self, image: Sequence[int | str], outputs: dict[str, Sequence[int | str]]) -> bytes:
        """The checked model; outputs by the name of the value and their shape."""
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(image))],
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape))
                for n, shape in outputs.items()
            ],
            self.weights,
        )
        opsets = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, ir_version=8, opset_imports=opsets)
        onnx.checker.check_model(proto, full_check=True)
        return bytes(proto.SerializeToString())


def _csp(w: GraphWriter, x: str, inputs: int, outputs: int) -> str:
    """C2f: split in halves, a residual bottleneck on one, everything joined."""
    half = outputs // 2
    y = w.block(x, inputs, outputs, kernel=1)
    parts = w.op("Split", y, w.store([half, half]), outputs=2, axis=1)
    left, right = f"{parts}_0", f"{parts}_1"
    inner = w.block(w.block(right, half, half), half, half)
    added = w.op("Add", right, inner)
    return w.block(w.op("Concat", left, right, added, axis=1), 3 * half, outputs, kernel=1)


def _pyramid_pooling(w: GraphWriter, x: str, channels: int) -> str:
    """SPPF: three max-pools of one another, joined with what they pool."""
    y = w.block(x, channels, channels // 2, kernel=1)
    found = [y]
    for _ in range(3):
        pads, kernel = [2] * 4, [5, 5]
        found.append(w.op("MaxPool", found[-1], kernel_shape=kernel, pads=pads, strides=[1, 1]))
    return w.block(w.op("Concat", *found, axis=1), 2 * channels, channels, kernel=1)


def yolo(side: int = 32) -> bytes:
    """CSP stages, SPPF, a neck with Resize and Concat, and a head that decodes boxes by DFL.

    The head reshapes each level to (N, 4·BINS + CLASSES, positions), joins the levels, parts boxes
    from classes, and takes the expectation over the bins; the batch is read at run time.
    """
    w = GraphWriter()
    p2 = _csp(w, w.block(w.block("image", 3, 8, stride=2), 8, 16, stride=2), 16, 16)
    p3 = _csp(w, w.block(p2, 16, 32, stride=2), 32, 32)
    p3 = _pyramid_pooling(w, p3, 32)
    scales = w.store(np.asarray([1, 1, 2, 2], np.float32))
    up = w.op("Resize", p3, "", scales, mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")  # fmt: skip
    n2 = _csp(w, w.op("Concat", up, p2, axis=1), 48, 16)
    n3 = _csp(w, w.op("Concat", w.block(n2, 16, 16, stride=2), p3, axis=1), 48, 32)
    rows = 4 * BINS + CLASSES
    count = w.op("Gather", w.op("Shape", "image"), w.store(np.asarray(0, np.int64)), axis=0)
    batch = w.op("Unsqueeze", count, w.store([0]))
    levels = []
    for x, channels in ((n2, 16), (n3, 32)):
        boxes = w.conv(w.block(x, channels, 16), 16, 4 * BINS, kernel=1)
        classes = w.conv(w.block(x, channels, 8), 8, CLASSES, kernel=1)
        shape = w.op("Concat", batch, w.store([rows, -1]), axis=0)
        levels.append(w.op("Reshape", w.op("Concat", boxes, classes, axis=1), shape))
    joined = w.op("Concat", *levels, axis=2)
    parts = w.op("Split", joined, w.store([4 * BINS, CLASSES]), outputs=2, axis=1)
    positions = (side // 4) ** 2 + (side // 8) ** 2
    bins = w.op("Reshape", f"{parts}_0", w.op("Concat", batch, w.store([4, BINS, -1]), axis=0))
    weights = w.op("Softmax", w.op("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    steps = w.store(np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    boxes = w.op("Conv", weights, w.op("Reshape", steps, w.store([1, BINS, 1, 1])))
    flat = w.op("Reshape", boxes, w.op("Concat", batch, w.store([4, -1]), axis=0))
    result = w.op("Concat", flat, w.op("Sigmoid", f"{parts}_1"), axis=1)
    return w.model(["N", 3, side, side], {result: ["N", 4 + CLASSES, positions]})


def unet(side: int = 32) -> bytes:
    """Two levels of convolutions down, ConvTranspose up, skips joined by Concat."""
    w = GraphWriter()

    def double(x: str, inputs: int, outputs: int) -> str:
        for channels in (inputs, outputs):
            x = w.op("Relu", w.normalise(w.conv(x, channels, outputs), outputs))
        return x

    def up(x: str, inputs: int, outputs: int) -> str:
        weight, bias = w.random(inputs, outputs, 2, 2, low=-0.3, high=0.3), w.random(outputs)
        return w.op("ConvTranspose", x, weight, bias, kernel_shape=[2, 2], strides=[2, 2])

    def pool(x: str) -> str:
        return w.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    first = double("image", 3, 8)
    second = double(pool(first), 8, 16)
    deepest = double(pool(second), 16, 32)
    x = double(w.op("Concat", second, up(deepest, 32, 16), axis=1), 32, 16)
    x = double(w.op("Concat", first, up(x, 16, 8), axis=1), 16, 8)
    result = w.conv(x, 8, 2, kernel=1)
    return w.model(["N", 3, side, side], {result: ["N", 2, side, side]})


def super_resolution(side: int = 16) -> bytes:
    """Residual blocks with PRelu, a long skip, and two steps of Conv and DepthToSpace."""
    w = GraphWriter()
    x = first = w.op("PRelu", w.conv("image", 3, 12), w.random(12, 1, 1, low=0.1, high=0.4))
    for _ in range(2):
        y = w.op("PRelu", w.conv(x, 12, 12), w.random(12, 1, 1, low=0.1, high=0.4))
        x = w.op("Add", x, w.conv(y, 12, 12))
    x = w.op("Add", first, w.conv(x, 12, 12))
    for _ in range(2):
        x = w.op("DepthToSpace", w.conv(x, 12, 48), blocksize=2, mode="CRD")
        x = w.op("PRelu", x, w.random(12, 1, 1, low=0.1, high=0.4))
    result = w.conv(x, 12, 3)
    return w.model(["N", 3, side, side], {result: ["N", 3, 4 * side, 4 * side]})
