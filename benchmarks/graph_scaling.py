"""Time of analysis and surgery against the number of nodes; linear is wanted.

Two families of generated graphs: chains (convolution, BatchNormalization, ReLU), whose label graph
falls into one small component per layer, and DenseNets with dense blocks of a fixed number of
layers, whose Concats carry the labels of many layers. No network is run.

    python -m benchmarks.graph_scaling
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from benchmarks.tables import markdown_table
from graph_ops.analysis import analyse
from graph_ops.canonical import bind_shapes
from graph_ops.model import SourceModel, load_model
from graph_ops.sharing import reshare, unshare
from graph_ops.surgery import cut
from tests.support.cutting import random_drop
from tests.support.models import light_network

NODE_COUNTS = (100, 300, 1000, 3000, 10_000)
WIDTH = 8
GROWTH = 4
DENSE_LAYERS = 6
"""Layers in a dense block; a transition (1×1 convolution) ends each block."""
DROP_SHARE = 0.3


@dataclass(frozen=True)
class Timing:
    """Seconds of each phase for a graph of `nodes` nodes (best of the repeats)."""

    nodes: int
    shapes_s: float
    analyse_s: float
    cut_s: float

    @property
    def total_s(self) -> float:
        """All phases together."""
        return self.shapes_s + self.analyse_s + self.cut_s


class _Builder:
    """Emits convolution blocks into one graph."""

    def __init__(self) -> None:
        self.input = ir.Value(
            name="x", shape=ir.Shape(["N", WIDTH, 8, 8]), type=ir.TensorType(ir.DataType.FLOAT)
        )
        self.nodes: list[ir.Node] = []
        self.stored: list[ir.Value] = []
        self._rng = np.random.default_rng(0)

    def weight(self, name: str, array: NDArray[np.float32]) -> ir.Value:
        tensor = ir.tensor(array.astype(np.float32), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.stored.append(value)
        return value

    def emit(self, op_type: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
        name = f"{op_type.lower()}_{len(self.nodes)}"
        output = ir.Value(name=f"{name}_out")
        attrs = [ir.AttrInt64(key, number) for key, number in attributes.items()]
        self.nodes.append(ir.Node("", op_type, inputs, attrs, outputs=[output], name=name))
        return output

    def block(self, x: ir.Value, channels: int, filters: int) -> ir.Value:
        """Convolution, BatchNormalization, ReLU: three nodes."""
        name = f"block_{len(self.nodes)}"
        kernel = self._rng.standard_normal((filters, channels, 1, 1), dtype=np.float32)
        y = self.emit("Conv", [x, self.weight(f"{name}.weight", kernel)])
        ones, zeros = np.ones(filters, np.float32), np.zeros(filters, np.float32)
        statistics_ = [("scale", ones), ("bias", zeros), ("mean", zeros), ("var", ones)]
        vectors = [self.weight(f"{name}.{part}", array) for part, array in statistics_]
        return self.emit("Relu", [self.emit("BatchNormalization", [y, *vectors])])

    def model(self, x: ir.Value, channels: int) -> SourceModel:
        """The model, ended by global pooling and a fully connected layer, through a file's form."""
        pooled = self.emit("Flatten", [self.emit("GlobalAveragePool", [x])])
        head = self._rng.standard_normal((channels, 10), dtype=np.float32)
        y = self.emit("MatMul", [pooled, self.weight("head", head)])
        y.shape, y.type = ir.Shape(["N", 10]), ir.TensorType(ir.DataType.FLOAT)
        graph = ir.Graph(
            [self.input],
            [y],
            nodes=self.nodes,
            initializers=self.stored,
            opset_imports={"": 17},
            name="generated",
        )
        proto = ir.to_proto(ir.Model(graph, ir_version=8))
        return load_model(proto.SerializeToString())


def chain(nodes: int) -> SourceModel:
    """A chain of convolution blocks of about `nodes` nodes."""
    builder = _Builder()
    x = builder.input
    for _ in range(max(1, (nodes - 3) // 3)):
        x = builder.block(x, WIDTH, WIDTH)
    return builder.model(x, WIDTH)


def densenet(nodes: int) -> SourceModel:
    """Dense blocks, each layer reading all earlier ones of its block, of about `nodes` nodes."""
    builder = _Builder()
    x = builder.input
    while len(builder.nodes) + 3 < nodes:
        parts, channels = [x], WIDTH
        for _ in range(DENSE_LAYERS):
            joined = builder.emit("Concat", parts, axis=1) if len(parts) > 1 else x
            parts.append(builder.block(joined, channels, GROWTH))
            channels += GROWTH
        x = builder.block(builder.emit("Concat", parts, axis=1), channels, WIDTH)
    return builder.model(x, WIDTH)


def measure(source: SourceModel, repeats: int = 3) -> Timing:
    """Time shape inference, analysis, and a cut of a random share of what may go."""
    best = [float("inf")] * 3
    for _ in range(repeats):
        gc.collect()
        clock = [time.process_time()]
        model = source.clone()
        uses = unshare(model)
        shapes = bind_shapes(model, {})
        clock.append(time.process_time())
        classes = analyse(model, shapes)
        clock.append(time.process_time())
        dropped = random_drop(classes, np.random.default_rng(0), DROP_SHARE)
        clock.append(time.process_time())
        reshare(cut(classes, dropped), uses)
        clock.append(time.process_time())
        spent = np.diff(clock)
        best = [min(b, s) for b, s in zip(best, (spent[0], spent[1], spent[3]), strict=True)]
    return Timing(sum(1 for _ in source.model.graph), *best)


def fitted_exponent(nodes: Sequence[int], seconds: Sequence[float]) -> float:
    """The p of seconds ~ nodes^p: slope of the least-squares line in logarithms."""
    return statistics.linear_regression(np.log(nodes).tolist(), np.log(seconds).tolist()).slope


def scaling(family: Callable[[int], SourceModel], counts: Sequence[int]) -> list[Timing]:
    """Timings of one family of graphs."""
    return [measure(family(count), repeats=3 if count < NODE_COUNTS[-1] else 2) for count in counts]


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.graph_scaling", description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODE_COUNTS)
    options = parser.parse_args(arguments)
    timing = measure(load_model(light_network("densenet121")))
    print("## Analysis and surgery\n")
    print(f"DenseNet-121, {timing.nodes} nodes: {timing.total_s:.2f} s\n")
    rows = []
    for name, family in (("chain", chain), ("DenseNet", densenet)):
        timings = scaling(family, options.nodes)
        rows += [_row(name, timing) for timing in timings]
        large = [t for t in timings if t.nodes >= 300] or timings
        if len(large) > 1:
            p = fitted_exponent([t.nodes for t in large], [t.total_s for t in large])
            rows.append([name, "fit from 300 nodes", "", "", "", f"time ~ nodes^{p:.2f}", ""])
    header = ["graph", "nodes", "shapes s", "analysis s", "cut s", "total s", "µs per node"]
    print(markdown_table(header, rows))


def _row(name: str, timing: Timing) -> list[str]:
    numbers = (timing.shapes_s, timing.analyse_s, timing.cut_s, timing.total_s)
    per_node = f"{timing.total_s / timing.nodes * 1e6:.0f}"
    return [name, str(timing.nodes), *(f"{n:.3f}" for n in numbers), per_node]


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
