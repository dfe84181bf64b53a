"""Activations in graph order: a network is run piece by piece, from the latest point kept.

Refitting goes through the graph in order, and each layer's regression reads activations that
depend on every layer refitted before it. A walker remembers the *frontier*: the values that later
nodes still need, of every batch, at some position in the node order. The next layer's activations
are computed from there by a model of only the nodes in between. A frontier that would take more
memory than the budget is not kept; the next layer then starts from the last one that was. So time
is traded for memory, and memory never grows with the number of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graph_ops.bundle import Batch
from graph_ops.graph import captured_values, graph_inputs, is_root_constant
from graph_ops.runtime import Array, Session

Batches = Callable[[], Iterable[Batch]]
"""The samples, in the same batches and order each time."""
Frontier = list[dict[str, Array]] | None
"""Values of every batch that later nodes need."""
HELD_BYTES = 200_000_000
"""Inputs held in memory, at most; more are read anew each time."""
MIN_IR_VERSION = 8
"""A part's stored tensors are not listed as its inputs, which older versions ask for."""


class Walker:
    """Runs a model's nodes in order, over all batches, a piece at a time.

    Args:
        model: The model; its stored tensors may be rewritten between calls for nodes that were not
            passed yet.
        batches: The samples.
        budget_bytes: Most that a kept frontier may take.
    """

    def __init__(self, model: ir.Model, batches: Batches, budget_bytes: int) -> None:
        self._model = model
        self._batches = batches
        self._budget_bytes = budget_bytes
        self._nodes = computing_nodes(model)
        self._index = {node: i for i, node in enumerate(self._nodes)}
        self._depends = data_dependent(model)
        self._kept: Frontier = None

    def run(
        self, wanted: Sequence[ir.Value], position: int
    ) -> Iterator[tuple[Batch, dict[str, Array]]]:
        """Each batch with the values that are wanted; has to be read to the end.

        Args:
            wanted: Values of the model. All that they depend on up to `position` is final.
            position: Index of the node (`computing_nodes`) that is refitted next; the frontier
                moves there.
        """
        names = [str(v.name) for v in wanted]
        live = self._live(position)
        live_names = [str(v.name) for v in live]
        outputs = {str(v.name): v for v in (*wanted, *live)}
        sources = self._source_types()
        computed = [v for name, v in outputs.items() if name not in sources]
        session = Session(self._part(computed), keep_waiting=False) if computed else None
        kept: list[dict[str, Array]] | None = []
        held_bytes = 0
        for number, batch in enumerate(self._batches()):
            feeds = dict(batch.inputs)
            if self._kept is not None:
                feeds |= self._kept[number]
            found = dict(feeds)
            if session is not None:
                run_names = [n for n in session.output_names if kept is not None or n in set(names)]
                if run_names:
                    found |= zip(run_names, session.run(feeds, run_names), strict=True)
            yield batch, {n: found[n] for n in names}
            if kept is not None:
                kept.append({n: found[n] for n in live_names})
                held_bytes += sum(a.nbytes for a in kept[-1].values())
                if held_bytes > self._budget_bytes:
                    kept = None
        if kept is not None:
            self._kept = kept

    def move(self, position: int) -> Frontier:
        """Go to a position; what is kept there (None where it would take too much memory)."""
        for _ in self.run([], position):
            pass
        return self._kept

    def go_back(self, frontier: Frontier) -> None:
        """Stand where it stood when `move` returned this: weights behind it were rewritten."""
        self._kept = frontier

    def fork(self, model: ir.Model) -> Walker:
        """A walker of another model from where this one stands; it keeps nothing on its way.

        Args:
            model: Of nodes with the same names of values; what was passed computes the same.
        """
        other = Walker(model, self._batches, 0)
        other._kept = self._kept
        return other

    def _live(self, position: int) -> list[ir.Value]:
        """Values made before a position and read from there on, in the order they are made."""
        needed: dict[ir.Value, None] = {}
        for node in self._nodes[position:]:
            needed |= dict.fromkeys(reads(node))
        needed |= dict.fromkeys(self._model.graph.outputs)
        return [
            value
            for value in needed
            if value in self._depends
            and (producer := value.producer()) is not None
            and self._index[producer] < position
        ]

    def _part(self, outputs: Sequence[ir.Value]) -> ir.Model:
        """A model of the nodes between what is known and what is wanted."""
        sources = self._source_types()
        return extract(self._model, nodes_between(self._model, sources, outputs), outputs, sources)

    def _source_types(self) -> dict[str, np.dtype[Any]]:
        """Element types of what is known: the graph's inputs and the frontier."""
        types = {
            str(v.name): v.dtype.numpy() if v.dtype is not None else np.dtype(np.float32)
            for v in graph_inputs(self._model.graph)
        }
        if self._kept:
            types |= {name: array.dtype for name, array in self._kept[0].items()}
        return types


def held(batches: Batches) -> Batches:
    """The same batches, read once where they fit: images are slow to decode."""
    found: list[Batch] = []
    size = 0
    for batch in batches():
        found.append(batch)
        size += sum(array.nbytes for array in batch.inputs.values())
        if size > HELD_BYTES:
            return batches
    return lambda: found


def nodes_between(
    model: ir.Model, known: Container[str], outputs: Iterable[ir.Value]
) -> list[ir.Node]:
    """The nodes that outputs take, in order, where values of some names are known."""
    waiting = list(outputs)
    needed: set[ir.Node] = set()
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if producer is None or producer in needed or str(value.name) in known:
            continue
        needed.add(producer)
        waiting += reads(producer)
    return [n for n in model.graph if n in needed]


def extract(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    outputs: Sequence[ir.Value],
    fed: Mapping[str, np.dtype[Any]],
) -> ir.Model:
    """A model of some of a graph's nodes, which keep their names; tensors are shared, not copied.

    Args:
        model: The whole model.
        nodes: Its nodes that are run, in order.
        outputs: Values the part returns.
        fed: Element types of the values that are fed, by name.
    """
    part = part_of(model, nodes, outputs, fed)
    for value in part.graph.inputs:
        value.dtype = ir.DataType.from_numpy(fed[str(value.name)])
        value.shape = None
    for node in part.graph:
        for output in node.outputs:
            output.shape = None
            output.type = None
    return part


def part_of(
    model: ir.Model, nodes: Sequence[ir.Node], outputs: Sequence[ir.Value], fed: Container[str]
) -> ir.Model:
    """As `extract`; types and shapes stay as the model has them."""
    read = dict.fromkeys(v for n in nodes for v in reads(n))
    view = ir.GraphView(
        [v for v in read if str(v.name) in fed and not v.is_initializer()],
        outputs,
        nodes=nodes,
        initializers=[v for v in read if v.is_initializer()],
        opset_imports=model.graph.opset_imports,
        name="part",
    )
    return ir.Model(
        view.clone(),
        ir_version=max(model.ir_version, MIN_IR_VERSION),
        functions=tuple(f.clone() for f in model.functions.values()),
    )


def computing_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of a model but those that store a constant, in order.

    They are the same in a cut model and its original, and are counted alike. A constant that a cut
    rewrites becomes an initializer, and its node goes.
    """
    return [n for n in model.graph if not any(is_root_constant(o) for o in n.outputs)]


def reads(node: ir.Node) -> list[ir.Value]:
    """What a node and the subgraphs in its attributes read."""
    return [v for v in (*node.inputs, *captured_values(node)) if v is not None]


def data_dependent(model: ir.Model) -> set[ir.Value]:
    """Values that depend on a graph input."""
    found = set(graph_inputs(model.graph))
    for node in model.graph:
        if any(v in found for v in reads(node) if not is_root_constant(v)):
            found |= set(node.outputs)
    return found
