"""The `ort-training` engine: gradients by onnxruntime-training, in a process of its own.

A scoring graph is folded and its sums are planned as for the `standard` engine; the training
runtime differentiates a canonical form of it (`trainable`) and runs the batches. What can be
scored at all is decided by the same rule table, so that both engines drop the same filters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import onnx_ir as ir

from graph_ops.engines.base import EngineInfo, ScoringGraph
from graph_ops.engines.ort_training.environment import ENGINE
from graph_ops.engines.ort_training.gradients import TOTAL, gradient_name
from graph_ops.engines.ort_training.process import TrainingProcess
from graph_ops.engines.ort_training.trainable import TrainableGraph, make_trainable
from graph_ops.engines.reduction import ReductionPlan, plan_reduction, values_by_name
from graph_ops.engines.standard import StandardEngine
from graph_ops.engines.sums import GRADIENT_SUMS, PRODUCT_SUMS, set_outputs
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import EngineUnsupportedError
from graph_ops.runtime import EXTERNAL_BYTES, PROTOBUF_LIMIT, Array


class OrtTrainingEngine:
    """Gradients by ONNX Runtime's own gradient builder.

    Opening a graph starts the child; it is asked again when the next graph is opened.
    """

    why = "asked for"

    def __init__(self) -> None:
        self._process: TrainingProcess | None = None

    def describe(self) -> dict[str, Any]:
        """Version, providers, and whether CUDA really works: {"cuda": {"works", "reason"}}.

        Raises:
            EngineUnavailableError: the training environment is missing or wrong.
            EngineProcessError: the child does not come up.
        """
        return self._running().description

    def barriers(self, graph: ScoringGraph) -> dict[str, str]:
        """Taps that cannot be scored, as the `standard` engine has them."""
        return StandardEngine().barriers(graph)

    def open(self, graph: ScoringGraph) -> OrtTrainingSession:
        """Canonicalise, let the child build gradients and sums, and load them there.

        Raises:
            EngineUnavailableError: the training environment is missing or wrong.
            EngineUnsupportedError: an operator has no exact rewrite.
            EngineProcessError: the child ended.
        """
        plan = plan_reduction(graph)
        trainable = _trainable(plan.model, plan, plan.wanted)
        request: dict[str, object] = {
            "loss": plan.loss,
            "products": [astuple(t) for t in plan.products],
            "gradients": [astuple(t) for t in plan.gradients],
            "handed_out": [],
        }
        process = self._running()
        return OrtTrainingSession(process, _open(process, trainable, request), plan)

    def open_activations(self, graph: ScoringGraph) -> OrtTrainingActivations:
        """Let the child hand out activations and gradients as they are.

        Raises:
            EngineUnavailableError: the training environment is missing or wrong.
            EngineUnsupportedError: an operator has no exact rewrite.
            EngineProcessError: the child ended.
        """
        names = [t.name for t in graph.taps]
        model = graph.model.clone()
        plan = ReductionPlan(model, dict(graph.shapes), graph.loss, ())
        trainable = _trainable(model, plan, names)
        request: dict[str, object] = {
            "loss": graph.loss,
            "products": [],
            "gradients": [],
            "handed_out": names,
        }
        process = self._running()
        return OrtTrainingActivations(process, _open(process, trainable, request), graph)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def _running(self) -> TrainingProcess:
        if self._process is None or not self._process.is_open:
            self._process = TrainingProcess()
        return self._process


def _trainable(model: ir.Model, plan: ReductionPlan, wanted: Sequence[str]) -> TrainableGraph:
    """Add the sum of all losses, drop what leads nowhere else, and canonicalise."""
    values = values_by_name(model)
    loss = values[plan.loss]
    tape = BackwardTape(model.graph, plan.shapes, frozenset(), model.graph.opset_imports[""])
    shapes = {**plan.shapes, TOTAL: ()}
    total = tape.op("ReduceSum", loss, tape.ints([0]), keepdims=0)
    total.name = TOTAL
    total.type = loss.type
    activations = [values[name] for name in wanted]
    set_outputs(model, [total, loss, *activations])
    return make_trainable(model, shapes, total, activations)


def _open(
    process: TrainingProcess, trainable: TrainableGraph, request: dict[str, object]
) -> EngineInfo:
    model = trainable.model
    arrays = _detach_weights(model)
    payload = ir.to_proto(model).SerializeToString()
    arrays["model"] = np.frombuffer(payload, dtype=np.uint8)
    message = {"action": "open", "stops": list(trainable.stops), **request}
    answer = process.ask(message, arrays)
    return EngineInfo(ENGINE, answer["version"], answer["provider"], answer["device"])


def _detach_weights(model: ir.Model) -> dict[str, Array]:
    """Hand large weights over beside the graph, which sees them as inputs until it is loaded."""
    arrays: dict[str, Array] = {}
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes < EXTERNAL_BYTES or not _is_plain(tensor.dtype):
            continue
        arrays[name] = tensor.numpy()
        value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        del graph.initializers[name]
        value.const_value = None
        graph.inputs.append(value)
    rest = sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value)
    if rest > PROTOBUF_LIMIT:
        raise EngineUnsupportedError(
            f"Engine {ENGINE} cannot take {rest} bytes of weights below {EXTERNAL_BYTES} bytes "
            "each. Use the engine 'standard', or 'auto'.",
            engine=ENGINE,
            operators={},
        )
    return arrays


def _is_plain(dtype: ir.DataType) -> bool:
    """Whether numpy has the element type itself."""
    return dtype.numpy().isbuiltin == 1


class OrtTrainingSession:
    """A scoring graph that is open in the child."""

    def __init__(self, process: TrainingProcess, info: EngineInfo, plan: ReductionPlan) -> None:
        self._process = process
        self._plan = plan
        self.info = info

    def contributions(self, feeds: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """[N] losses, and per tap [N, C] sums of activation·gradient over the positions."""
        answer = self._process.ask({"action": "run"}, feeds)
        arrays = self._process.arrays(answer)
        losses = np.array(arrays[self._plan.loss])
        return losses, self._plan.contributions(arrays[PRODUCT_SUMS], arrays.get(GRADIENT_SUMS))


class OrtTrainingActivations:
    """A scoring graph whose activations and gradients the child hands out."""

    def __init__(self, process: TrainingProcess, info: EngineInfo, graph: ScoringGraph) -> None:
        self._process = process
        self._loss = graph.loss
        self._names = [t.name for t in graph.taps]
        self.info = info

    def run(self, feeds: Mapping[str, Array]) -> tuple[Array, dict[str, Array], dict[str, Array]]:
        """[N] losses, activations and gradients [N, C, …] by tap name."""
        arrays = self._process.arrays(self._process.ask({"action": "run"}, feeds))
        copies = {name: np.array(array) for name, array in arrays.items()}
        activations = {name: copies[name] for name in self._names}
        gradients = {name: copies[gradient_name(name)] for name in self._names}
        return copies[self._loss], activations, gradients
