"""The `standard` engine: a backward graph of standard ONNX operators, run by ONNX Runtime.

Three identities keep it fast:

* BatchNormalization is folded into its convolution; the convolution's own output is still what is
  scored (see `graph_ops.folding`).
* Through a positively homogeneous operator of one channel, z = relu(y) or pool(y), Euler's identity
  gives Σ y·g_y = Σ z·g_z: the product is taken as far down as the channel goes alone, Conv+Relu
  stays one kernel, and a MaxPool below the first convolution is never differentiated.
* The sum over positions is a GlobalAveragePool of the product (times the number of positions),
  which stays in the runtime's blocked layout; only [N, ΣC] numbers are read back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from graph_ops.engines.backward import (
    OperatorBarrierError,
    append_backward,
    upstream,
)
from graph_ops.engines.base import EngineInfo, ScoringGraph, Tap
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import GradientError
from graph_ops.folding import fold_batch_normalization
from graph_ops.graph import node_label
from graph_ops.runtime import Array, Session

NAME = "standard"
PRODUCT_SUMS = "score/products"
GRADIENT_SUMS = "score/gradients"


@dataclass(frozen=True)
class _Column:
    """Where a tap's numbers lie among those read back.

    Attributes:
        product_positions: Positions of the tensor the product is taken on (GlobalAveragePool
            divides by their number).
        positions: Positions of the convolution's output.
        offset: [C] offset of a folded BatchNormalization, or None.
    """

    tap: Tap
    product_positions: int
    positions: int
    offset: Array | None


class StandardEngine:
    """Gradients by our own reverse pass; runs wherever ONNX Runtime runs."""

    def barriers(self, graph: ScoringGraph) -> dict[str, str]:
        """Taps that cannot be scored: an operator on the way to the loss has no gradient."""
        reasons: dict[str, str] = {}
        taps = {t.name for t in graph.taps}
        while True:
            model = graph.model.clone()
            values = _values(model)
            loss = values[graph.loss]
            wanted = [values[name] for name in taps if name not in reasons]
            connected = upstream([loss])
            for value in [v for v in wanted if v not in connected]:
                reasons[str(value.name)] = "it does not influence the output the loss is taken on"
            wanted = [v for v in wanted if v in connected]
            if not wanted:
                return reasons
            try:
                append_backward(model, graph.shapes, loss, wanted)
            except OperatorBarrierError as barrier:
                before = upstream(v for v in barrier.operator.inputs if v is not None)
                blocked = [v for v in wanted if v in before]
                if not blocked:
                    raise
                for value in blocked:
                    reasons[str(value.name)] = (
                        f"its path to the loss runs through {barrier.operator.op_type} "
                        f"{node_label(barrier.operator)!r}, which has no gradient"
                    )
                continue
            return reasons

    def open(self, graph: ScoringGraph) -> StandardSession:
        """Append backward and reduction, and load the graph."""
        model, shapes = graph.model.clone(), dict(graph.shapes)
        folded = fold_batch_normalization(model)
        values = _values(model)
        ys = [values[folded[t.name].name if t.name in folded else t.name] for t in graph.taps]
        zs = [_follow_channel(y) for y in ys]
        loss = values[graph.loss]
        offsets = [
            folded[t.name].offset if graph.gate == "convolution" and t.name in folded else None
            for t in graph.taps
        ]
        shifted = [y for y, offset in zip(ys, offsets, strict=True) if offset is not None]
        tape, gradients = append_backward(model, shapes, loss, [*zs, *shifted])
        columns, products, sums = [], [], []
        for tap, y, z, offset in zip(graph.taps, ys, zs, offsets, strict=True):
            if z not in gradients:
                raise GradientError(f"No gradient reaches {tap.name!r}.", tensor=tap.name)
            counts = (math.prod(tape.spatial(z)), math.prod(tape.spatial(y)))
            columns.append(_Column(tap, *counts, offset))
            products.append(_pooled(tape, tape.op("Mul", gradients[z], z), z))
            if offset is not None:
                sums.append(_pooled(tape, gradients[y], y))
        outputs = [loss, _joined(tape, products, PRODUCT_SUMS)]
        if sums:
            outputs.append(_joined(tape, sums, GRADIENT_SUMS))
        _set_outputs(model, outputs)
        return StandardSession(Session(model), graph.loss, columns)

    def open_activations(self, graph: ScoringGraph) -> StandardActivations:
        """Append backward, and hand out activations and gradients as they are."""
        model = graph.model.clone()
        values = _values(model)
        wanted = [values[t.name] for t in graph.taps]
        loss = values[graph.loss]
        _, gradients = append_backward(model, graph.shapes, loss, wanted)
        names = {str(v.name): str(gradients[v].name) for v in wanted}
        _set_outputs(model, [loss, *wanted, *(gradients[v] for v in wanted)])
        return StandardActivations(Session(model), graph.loss, names)


class StandardSession:
    """A scoring graph loaded in ONNX Runtime."""

    def __init__(self, session: Session, loss: str, columns: Sequence[_Column]) -> None:
        self._session = session
        self._loss = loss
        self._columns = columns
        provider = session.provider
        self.info = EngineInfo(
            name=NAME,
            version=ort.__version__,
            provider=provider,
            device="cpu" if provider == "CPUExecutionProvider" else "gpu",
        )

    def contributions(self, feeds: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """[N] losses, and per tap [N, C] sums of activation·gradient over the positions."""
        names = [self._loss, PRODUCT_SUMS]
        if GRADIENT_SUMS in self._session.output_names:
            names.append(GRADIENT_SUMS)
        losses, products, *rest = self._session.run(feeds, names)
        sums = rest[0] if rest else None
        result: list[Array] = []
        first = second = 0
        for column in self._columns:
            count = column.tap.filters
            part = products[:, first : first + count].astype(np.float64)
            part *= column.product_positions
            first += count
            if column.offset is not None:
                assert sums is not None
                part -= column.offset * column.positions * sums[:, second : second + count]
                second += count
            result.append(part)
        return losses, result


class StandardActivations:
    """A scoring graph whose activations and gradients are read back."""

    def __init__(self, session: Session, loss: str, names: Mapping[str, str]) -> None:
        self._session = session
        self._loss = loss
        self._names = names

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """[N] losses, activations and gradients [N, C, …] by tap name."""
        taps = list(self._names)
        arrays = self._session.run(feeds, [self._loss, *taps, *self._names.values()])
        count = len(taps)
        activations = dict(zip(taps, arrays[1 : 1 + count], strict=True))
        return arrays[0], activations, dict(zip(taps, arrays[1 + count :], strict=True))


def _values(model: ir.Model) -> dict[str, ir.Value]:
    values = {str(v.name): v for v in model.graph.inputs}
    return values | {str(o.name): o for node in model.graph for o in node.outputs}


HOMOGENEOUS = frozenset(
    {
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Relu",
    }
)
"""Operators with f(t·y) = t·f(y) for t > 0 that keep every channel to itself."""


def _follow_channel(value: ir.Value) -> ir.Value:
    """The last value on the way down through homogeneous operators that alone read it."""
    while not value.is_graph_output():
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in HOMOGENEOUS or uses[0].idx != 0:
            break
        value = uses[0].node.outputs[0]
    return value


def _pooled(tape: BackwardTape, product: ir.Value, like: ir.Value) -> ir.Value:
    """Mean over the positions, as [N, C, 1, 1]."""
    pooled = tape.op("GlobalAveragePool", product)
    if len(tape.dims(like)) == 4:
        return pooled
    channels = tape.dims(like)[1]
    return tape.op("Reshape", pooled, tape.ints([-1, int(channels or 0), 1, 1]))


def _joined(tape: BackwardTape, parts: Sequence[ir.Value], name: str) -> ir.Value:
    """[N, ΣC]: one output is cheaper to read back than one per convolution."""
    joined = tape.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    flat = tape.op("Flatten", joined, axis=1)
    flat.name = name
    return flat


def _set_outputs(model: ir.Model, outputs: Sequence[ir.Value]) -> None:
    """Make these the graph's outputs and drop nodes nobody needs."""
    for value in outputs:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.clear()
    model.graph.outputs.extend(dict.fromkeys(outputs))
    needed = upstream(outputs)
    for node in reversed(list(model.graph)):
        if not any(o in needed for o in node.outputs):
            model.graph.remove(node)
    for initializer in list(model.graph.initializers.values()):
        if not initializer.uses():
            del model.graph.initializers[str(initializer.name)]
