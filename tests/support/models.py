"""Models for tests: small ones written as text, and the nine networks of the `onnx` wheel.

The wheel's `light_*` networks are real architectures whose weights are ConstantOfShape nodes, so
that the files are small. `light_network` gives them random weights of a trained network's scale.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

LIGHT_NETWORKS = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
QUICK_NETWORKS = frozenset({"bvlc_alexnet", "resnet50", "shufflenet", "squeezenet"})
"""A plain, a residual, a shuffled and a concatenating one: where each network costs seconds."""
HIDDEN_WIDTH = 4096
_LIGHT_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
_RESIDUAL_SCALE = 0.5
_LOGIT_GAIN_AFTER_SUMS = 0.1


def each_network() -> list[object]:
    """`LIGHT_NETWORKS` as parameters; those that are not quick run with the slow tests."""
    return [
        pytest.param(name, marks=[] if name in QUICK_NETWORKS else pytest.mark.slow)
        for name in LIGHT_NETWORKS
    ]


def text_model(text: str) -> bytes:
    """A model written in ONNX's text form, checked."""
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def random_weights(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """He-scaled float32 weights: variance 2 / fan-in, which keeps a ReLU network's scale."""
    fan_in = max(1, int(np.prod(shape[1:])))
    values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return values * np.float32(np.sqrt(2.0 / fan_in))


def with_weights(model: bytes, weights: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The model with arrays as initializers, in place of graph inputs of those names."""
    proto = onnx.ModelProto.FromString(model)
    for index in reversed(range(len(proto.graph.input))):
        if proto.graph.input[index].name in weights:
            del proto.graph.input[index]
    for index in reversed(range(len(proto.graph.initializer))):
        if proto.graph.initializer[index].name in weights:
            del proto.graph.initializer[index]
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return bytes(proto.SerializeToString())


def light_path(name: str) -> Path:
    """The wheel's own file of a light network, weights as ConstantOfShape."""
    return _LIGHT_FOLDER / f"light_{name}.onnx"


def light_input(name: str) -> str:
    """Name of the network's one data input, of shape (1, 3, 224, 224)."""
    graph = onnx.load(light_path(name)).graph
    stored = {tensor.name for tensor in graph.initializer}
    return next(str(i.name) for i in graph.input if i.name not in stored)


@functools.lru_cache(maxsize=2)
def light_network(
    name: str, seed: int = 0, batch: int | str | None = None, shrink: int = 1
) -> bytes:
    """A light network with random weights as initializers.

    Args:
        name: One of `LIGHT_NETWORKS`.
        seed: Of the weights.
        batch: Another fixed batch size than 1, or a symbolic name.
        shrink: Divides the width of the hidden fully connected layers (4096).
    """
    proto = onnx.load(light_path(name))
    _materialise(proto.graph, seed, shrink)
    if batch is not None:
        _set_batch(proto.graph, batch)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _materialise(graph: onnx.GraphProto, seed: int, shrink: int) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {
        tensor.name: tuple(tensor.dims)
        for tensor in graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    fills = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in fills:
        dims = onnx.numpy_helper.to_array(stored[node.input[0]])
        shapes[node.output[0]] = tuple(int(d) for d in dims)
    dropped = {node.input[0] for node in fills}
    inputs = [i for i in graph.input if i.name not in dropped and i.name not in shapes]
    kept = [t for t in graph.initializer if t.name not in dropped and t.name not in shapes]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    for field, items in (("input", inputs), ("initializer", kept), ("node", nodes)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    rng = np.random.default_rng(seed)
    for weight, array in _draw(graph, shapes, rng, shrink):
        graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
        info = graph.input.add(name=weight)
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for dim in array.shape:
            info.type.tensor_type.shape.dim.add(dim_value=dim)


def _draw(
    graph: onnx.GraphProto,
    shapes: dict[str, tuple[int, ...]],
    rng: np.random.Generator,
    shrink: int,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Weights by the place they are used in: He-scaled kernels, statistics near (1, 0, 0, 1)."""
    spreads: dict[str, tuple[float, float]] = {}
    sums = {name for node in graph.node if node.op_type == "Sum" for name in node.input}
    unsqueezed = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Unsqueeze"}
    producers = {output: node.op_type for node in graph.node for output in node.output}
    gains: dict[str, float] = {}
    hidden: set[str] = set()
    for node in graph.node:
        names = [unsqueezed.get(name, name) for name in node.input]
        if node.op_type == "BatchNormalization":
            scale = _RESIDUAL_SCALE if node.output[0] in sums else 1.0
            spreads |= dict(zip(names[1:3], ((scale, 0.1), (0.0, 0.1)), strict=True))
            spreads |= dict(zip(names[3:5], ((0.0, 0.1), (1.0, 0.1)), strict=True))
        elif node.op_type in ("Mul", "Add"):
            spreads[names[1]] = (1.0 if node.op_type == "Mul" else 0.0, 0.1)
        elif node.op_type in ("Conv", "Gemm") and len(names) > 2:
            spreads[names[2]] = (0.0, 0.05)
        if node.op_type == "Conv":
            # 2 makes up for the half that a ReLU takes away; there is none right after these.
            signed = producers.get(names[0]) in (None, "BatchNormalization")
            gains[names[1]] = 1.0 if signed else 2.0
        if node.op_type == "Gemm":
            hidden |= set(names)
            # Residual sums add up; without this the softmax of ShuffleNet is 1 to float precision.
            gains[names[1]] = _LOGIT_GAIN_AFTER_SUMS if sums else 1.0
    for name, full in shapes.items():
        shape = full
        if name in hidden:
            shape = tuple(d // shrink if d == HIDDEN_WIDTH else d for d in full)
        values = rng.standard_normal(shape, dtype=np.float32)
        if name in spreads:
            mean, spread = spreads[name]
            array = np.float32(mean) + np.float32(spread) * values
        else:
            fan_in = max(1, int(np.prod(shape[1:])))
            array = values * np.float32(np.sqrt(gains.get(name, 1.0) / fan_in))
        yield name, array.astype(np.float32, copy=False)


def _set_batch(graph: onnx.GraphProto, batch: int | str) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    data = [info for info in graph.input if info.name not in stored]
    for info in [*data, *graph.output]:
        dim = info.type.tensor_type.shape.dim[0]
        if isinstance(batch, str):
            dim.dim_param = batch
        else:
            dim.dim_value = batch
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] in stored:
            continue
        # 0 copies the axis from the input, so the constant fits every batch.
        target = onnx.numpy_helper.to_array(stored[node.input[1]]).copy()
        target[0] = 0
        stored[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(target, node.input[1]))
