"""The `standard` engine: a backward graph of standard ONNX operators, run by ONNX Runtime.

What is differentiated and summed is planned in `graph_ops.engines.reduction`.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort

from graph_ops.engines.backward import (
    OperatorBarrierError,
    append_backward,
    upstream,
)
from graph_ops.engines.base import EngineInfo, ScoringGraph
from graph_ops.engines.batch_size import fixes_batch_size, with_batch_size
from graph_ops.engines.gates import spread_gates
from graph_ops.engines.phases import in_phases
from graph_ops.engines.pieces import cut, join, piece_length, samples_at_once, side_by_side
from graph_ops.engines.reduction import ReductionPlan, plan_reduction, values_by_name
from graph_ops.engines.sums import GRADIENT_SUMS, PRODUCT_SUMS, append_sums, set_outputs
from graph_ops.engines.swish import expand_swish, fuse_swish
from graph_ops.errors import GradientError
from graph_ops.graph import node_label
from graph_ops.providers import device_of, thread_count
from graph_ops.runtime import Array, Session, first_provider

NAME = "standard"


class StandardEngine:
    """Gradients by our own reverse pass; runs wherever ONNX Runtime runs."""

    why = "asked for"

    def barriers(self, graph: ScoringGraph) -> dict[str, str]:
        """Taps that cannot be scored: an operator on the way to the loss has no gradient."""
        reasons: dict[str, str] = {}
        taps = {t.name for t in graph.taps}
        while True:
            model = graph.model.clone()
            values = values_by_name(model)
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
        """Append backward and reduction; the graph is loaded with the first batch."""
        return StandardSession(self.build(graph))

    def build(self, graph: ScoringGraph) -> ReductionPlan:
        """Append backward and reduction: the plan's model is what has to be run."""
        plan = plan_reduction(graph)
        spread_gates(plan.model, plan.shapes)
        plan = in_phases(plan)
        fused = fuse_swish(plan.model)
        values = values_by_name(plan.model)
        loss = values[plan.loss]
        wanted = [values[name] for name in plan.wanted]
        tape, found = append_backward(plan.model, plan.shapes, loss, wanted)
        gradients = {str(value.name): gradient for value, gradient in found.items()}
        for column in plan.columns:
            if any(t.gradient not in gradients for t in column.products):
                name = column.tap.name
                raise GradientError(f"No gradient reaches {name!r}.", tensor=name)
        sums = append_sums(tape, plan.products, plan.gradients, values.__getitem__, gradients)
        set_outputs(plan.model, [loss, *sums])
        expand_swish(plan.model, fused)
        return plan

    def open_activations(self, graph: ScoringGraph) -> StandardActivations:
        """Append backward, and hand out activations and gradients as they are."""
        model = graph.model.clone()
        values = values_by_name(model)
        wanted = [values[t.name] for t in graph.taps]
        loss = values[graph.loss]
        _, gradients = append_backward(model, graph.shapes, loss, wanted)
        names = {str(v.name): str(gradients[v].name) for v in wanted}
        set_outputs(model, [loss, *wanted, *(gradients[v] for v in wanted)])
        return StandardActivations(Session(model), graph.loss, names)

    def close(self) -> None:
        """Nothing is held outside this process."""


class StandardSession:
    """A scoring graph in ONNX Runtime, loaded for pieces of one size (`graph_ops.engines.pieces`).

    With every shape known the runtime keeps products in its blocked layout, and works out shape
    arithmetic once. It is loaded anew where the pieces of a batch have another size, so that what
    comes of a batch depends on nothing but the batch, whatever was scored before it and in which
    process.

    Args:
        plan: What is run.
    """

    def __init__(self, plan: ReductionPlan) -> None:
        self._plan = plan
        self._session: Session | None = None
        self._loaded = (0, 0)
        provider = first_provider()
        self.info = EngineInfo(
            name=NAME,
            version=ort.__version__,
            provider=provider,
            device=device_of(provider),
        )
        self._at_once = samples_at_once(plan.model, plan.shapes)
        self._is_whole = self.info.device != "cpu" or fixes_batch_size(plan.model)

    def contributions(self, feeds: Mapping[str, Array]) -> tuple[Array, list[Array]]:
        """[N] losses, and per tap [N, C] sums of activation·gradient over the positions."""
        names = [self._plan.loss, PRODUCT_SUMS]
        if self._plan.gradients:
            names.append(GRADIENT_SUMS)
        rows = next(iter(feeds.values())).shape[0]
        session = self.load(rows)
        pieces = list(cut(feeds, self.piece_length(rows)))
        callers = min(len(pieces), thread_count())
        parts = side_by_side(lambda piece: session.run(piece, names), pieces, callers)
        losses, products, *rest = join(parts, rows)
        return losses, self._plan.contributions(products, rest[0] if rest else None)

    def piece_length(self, rows: int) -> int:
        """Samples of a piece of a batch."""
        return rows if self._is_whole else piece_length(rows, self._at_once)

    def load(self, rows: int) -> Session:
        """Load the graph for batches of so many samples, unless it is.

        Threads that are left over when every piece has one work within operators.
        """
        length = self.piece_length(rows)
        threads = max(thread_count() - -(-rows // length), 0) + 1
        if self._session is None or self._loaded != (length, threads):
            self._session = None  # its memory is free before another takes its own
            model = with_batch_size(self._plan.model, length)
            self._session = Session(model, threads=threads, plan_memory=self.info.device == "cpu")
            self._loaded = length, threads
        return self._session


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
