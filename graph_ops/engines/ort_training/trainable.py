"""The canonicalisation pass: a scoring graph that onnxruntime-training can differentiate.

1. Where a gradient ends (roundings, comparisons, shapes, integers), the input gets a stopped copy:
   an Identity that the gradient builder is shown as a graph input, so that it finds no path.
2. Every operator on a path from the scored activations to the loss is native, or is rewritten by
   its rule; anything else is reported by name. Values keep their names.
3. No node uses a value twice: the runtime writes both gradients under one name.
4. Opset and IR are lowered to what that runtime reads, and nodes lose their names, which it wants
   to be unique.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.channels import Dims
from graph_ops.engines.backward import FLOATS, upstream
from graph_ops.engines.ort_training.lowering import lower
from graph_ops.engines.ort_training.rewrites import NATIVE, REWRITES, Writer
from graph_ops.engines.tape import BackwardTape
from graph_ops.errors import EngineUnsupportedError, GradientError
from graph_ops.graph import node_label
from graph_ops.rules import GRADIENTS
from graph_ops.rules.zero import zero_gradient

MAX_NAMED = 10


@dataclass(frozen=True)
class TrainableGraph:
    """A graph for the training runtime.

    Attributes:
        model: The graph.
        stops: Names of the stopped copies, each the output of an Identity.
    """

    model: ir.Model
    stops: tuple[str, ...]


def make_trainable(
    model: ir.Model, shapes: Mapping[str, Dims], loss: ir.Value, wanted: Sequence[ir.Value]
) -> TrainableGraph:
    """Rewrite a scoring copy in place.

    Args:
        model: Scoring copy with its loss head.
        shapes: Shape of every value by name.
        loss: The loss; it keeps its name, as every value does.
        wanted: Activations to be differentiated.

    Raises:
        EngineUnsupportedError: operators without an exact rewrite; `details["operators"]` has
            {op_type: reason}.
    """
    pass_ = _Pass(model, shapes, str(loss.name), [str(v.name) for v in wanted])
    pass_.stop_gradients()
    pass_.rewrite()
    pass_.separate_uses()
    obstacles = pass_.obstacles or lower(model)
    if obstacles:
        named = "; ".join(f"{op}: {why}" for op, why in list(obstacles.items())[:MAX_NAMED])
        raise EngineUnsupportedError(
            f"Engine ort-training cannot differentiate this model ({named}). Use the engine "
            "'standard', or 'auto'.",
            engine="ort-training",
            operators=obstacles,
        )
    for node in model.graph:
        node.name = None
    model.graph.sort()
    return TrainableGraph(model, tuple(pass_.stops))


class _Pass:
    def __init__(
        self, model: ir.Model, shapes: Mapping[str, Dims], loss: str, wanted: Sequence[str]
    ) -> None:
        self.obstacles: dict[str, str] = {}
        self._graph = model.graph
        self._opset = model.graph.opset_imports[""]
        self._loss, self._wanted = loss, wanted
        self._tape = BackwardTape(model.graph, shapes, frozenset(), self._opset)
        self._stopped: dict[ir.Value, ir.Value] = {}
        self._path = self._differentiable_path()

    @property
    def stops(self) -> list[str]:
        return [str(v.name) for v in self._stopped.values()]

    def _values(self) -> dict[str, ir.Value]:
        values = {str(v.name): v for v in self._graph.inputs}
        return values | {str(o.name): o for node in self._graph for o in node.outputs}

    def _differentiable_path(self) -> set[ir.Value]:
        """Values on a way from the wanted ones to the loss that passes a gradient."""
        values = self._values()
        reached = {values[name] for name in self._wanted}
        stack = list(reached)
        while stack:
            for node in stack.pop().consumers():
                if self._ends_gradient(node):
                    continue
                for output in node.outputs:
                    if output not in reached and _is_float(output):
                        reached.add(output)
                        stack.append(output)
        return reached & upstream([values[self._loss]])

    def _ends_gradient(self, node: ir.Node) -> bool:
        rule = GRADIENTS.find(node.domain, node.op_type, self._opset)
        return rule is zero_gradient or not any(_is_float(o) for o in node.outputs)

    def stop_gradients(self) -> None:
        """Give nodes that pass no gradient stopped copies of what they read."""
        for node in list(self._graph):
            if not self._ends_gradient(node):
                continue
            for index, value in enumerate(node.inputs):
                if value is not None and value in self._path:
                    node.replace_input_with(index, self._stop(value))

    def _stop(self, value: ir.Value) -> ir.Value:
        if value not in self._stopped:
            copy = self._tape.op("Identity", value)
            copy.type, copy.shape = value.type, value.shape
            self._stopped[value] = copy
        return self._stopped[value]

    def rewrite(self) -> None:
        for node in list(self._graph):
            if any(o in self._path for o in node.outputs) and any(
                v in self._path for v in node.inputs if v is not None
            ):
                self._rewrite_node(node)

    def _rewrite_node(self, node: ir.Node) -> None:
        rule = REWRITES.find(node.domain, node.op_type, self._opset)
        if rule is None:
            if node.op_type not in NATIVE or node.domain not in ("", "ai.onnx"):
                self._object(
                    node, f"{node_label(node)!r} has neither a gradient there nor a rewrite"
                )
            return
        try:
            outputs = rule(node, self._writer(node))
        except GradientError as error:
            self._object(node, error.message)
            return
        if outputs is None:
            return
        for old, new in zip(node.outputs, outputs, strict=False):
            self._replace(old, new)
        self._graph.remove(node, safe=True)

    def _object(self, node: ir.Node, reason: str) -> None:
        self.obstacles.setdefault(node.op_type, reason)

    def _writer(self, node: ir.Node) -> Writer:
        like = next((o for o in node.outputs if _is_float(o)), None)
        return Writer(self._tape, self._stop, lambda v: v is not None and v in self._path, like)

    def _replace(self, old: ir.Value, new: ir.Value) -> None:
        """Put a new value in the place, and under the name, of an old one."""
        name, stopped = str(old.name), self._stopped.pop(old, None)
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = f"{name}/rewritten"
        new.name = name
        if stopped is not None:
            self._stopped[new] = stopped
        if old in self._path:
            self._path.discard(old)
            self._path.add(new)

    def separate_uses(self) -> None:
        """Let every further use of a value by one node go through an Identity."""
        path = self._differentiable_path()
        for node in list(self._graph):
            seen: set[ir.Value] = set()
            for index, value in enumerate(node.inputs):
                if value is None or value not in path:
                    continue
                if value in seen:
                    copy = self._tape.op("Identity", value)
                    copy.type, copy.shape = value.type, value.shape
                    node.replace_input_with(index, copy)
                seen.add(value)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype in FLOATS
