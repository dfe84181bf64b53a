"""What a model costs: MACs, parameters, bytes, measured latency.

MACs and parameters are counted per sample over convolutions and Gemm/MatMul, in terms of how many
channels each axis has, so that the cost after a drop is known without cutting.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Labels
from graph_ops.graph import constant_dims, is_root_constant
from graph_ops.runtime import Array, Session

LATENCY_RUNS = (3, 1000)
"""Timed runs of each model: at least, at most."""
BURST_S = 0.02
"""Length of one turn, in seconds; a turn has at least one timed run."""
COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class _Term:
    """`factor` × the product of the numbers of kept channels on `axes` / `divisor`."""

    factor: int
    axes: tuple[int, ...]
    divisor: int = 1


class CostModel:
    """MACs, parameters and weight bytes as functions of which classes are dropped.

    An *axis* is one labelled axis of a tensor; many terms share one. Dropping a class takes
    `loss[axis]` indices from every axis it lies on.

    Args:
        classes: Channel classes of the model.
    """

    def __init__(self, classes: ChannelClasses) -> None:
        self._classes = classes
        self._axis_of: dict[int, int] = {}
        self._axes: list[Labels] = []
        self.macs_terms = [
            _Term(item.factor, self._register(item.axes), item.divisor)
            for item in classes.channels.costs
        ]
        self.parameter_terms: list[_Term] = []
        self.byte_terms: list[_Term] = []
        self._count_weights()
        self.are_macs_complete = not classes.channels.unknown_cost
        self._terms_of_axis: list[list[tuple[int, int]]] = [[] for _ in self._axes]
        for kind, terms in enumerate((self.macs_terms, self.parameter_terms, self.byte_terms)):
            for index, term in enumerate(terms):
                for axis in set(term.axes):
                    self._terms_of_axis[axis].append((kind, index))
        self._hits = self._class_hits()

    def _register(self, axes: tuple[Labels, ...]) -> tuple[int, ...]:
        numbers = []
        for labels in axes:
            if id(labels) not in self._axis_of:
                self._axis_of[id(labels)] = len(self._axes)
                self._axes.append(labels)
            numbers.append(self._axis_of[id(labels)])
        return tuple(numbers)

    def _count_weights(self) -> None:
        channels = self._classes.channels
        seen: set[ir.Value] = set()
        parameters = _parameters(channels.model.graph)
        for node in channels.model.graph:
            for value in node.inputs:
                if value is None or value in seen or not is_root_constant(value):
                    continue
                seen.add(value)
                dims = constant_dims(value) or ()
                axes, divisor = channels.weight_axes(value)
                size = math.prod(dims) * divisor
                factor = size // max(1, math.prod(a.size for a in axes))
                numbers = self._register(axes)
                item_bytes = _item_bytes(value)
                self.byte_terms.append(_Term(factor * item_bytes, numbers, divisor))
                if value in parameters:
                    self.parameter_terms.append(_Term(factor, numbers, divisor))

    def _class_hits(self) -> list[dict[int, int]]:
        """For every class: how many indices it holds on which axis."""
        hits: list[dict[int, int]] = [{} for _ in range(self._classes.count)]
        for axis, labels in enumerate(self._axes):
            found, counts = np.unique(self._classes.class_of[labels], return_counts=True)
            for class_id, count in zip(found.tolist(), counts.tolist(), strict=True):
                hits[class_id][axis] = count
        return hits

    def counts(self, dropped: NDArray[np.bool_]) -> NDArray[np.int64]:
        """[axes] channels that stay on each axis."""
        return np.asarray(
            [int((~dropped[self._classes.class_of[a]]).sum()) for a in self._axes], dtype=np.int64
        )

    def totals(self, dropped: NDArray[np.bool_]) -> tuple[int, int, int]:
        """MACs, parameters, weight bytes when the classes are dropped."""
        counts = self.counts(dropped)
        macs, parameters, size = (
            sum(_value(t, counts) for t in terms)
            for terms in (self.macs_terms, self.parameter_terms, self.byte_terms)
        )
        return macs, parameters, size

    def meter(self, dropped: NDArray[np.bool_]) -> Meter:
        """A running total that follows drops one by one."""
        return Meter(self, self.counts(dropped))

    def hits(self, class_id: int) -> dict[int, int]:
        """Indices a class holds, by axis."""
        return self._hits[class_id]

    def terms_touching(self, axes: list[int]) -> set[tuple[int, int]]:
        """(kind, index) of the terms that count one of the axes."""
        return {key for axis in axes for key in self._terms_of_axis[axis]}

    def term(self, kind: int, index: int) -> _Term:
        """A term by kind (0 MACs, 1 parameters, 2 bytes) and index."""
        return (self.macs_terms, self.parameter_terms, self.byte_terms)[kind][index]


class Meter:
    """Running MACs, parameters and bytes while classes are dropped; each drop costs O(members)."""

    def __init__(self, cost: CostModel, counts: NDArray[np.int64]) -> None:
        self._cost = cost
        self._counts = counts
        self.totals = [
            sum(_value(t, counts) for t in terms)
            for terms in (cost.macs_terms, cost.parameter_terms, cost.byte_terms)
        ]

    def saving(self, class_ids: list[int]) -> list[int]:
        """MACs, parameters and bytes that dropping the classes would save now."""
        hits: dict[int, int] = {}
        for class_id in class_ids:
            for axis, count in self._cost.hits(class_id).items():
                hits[axis] = hits.get(axis, 0) + count
        saved = [0, 0, 0]
        for kind, index in self._cost.terms_touching(list(hits)):
            term = self._cost.term(kind, index)
            before = after = term.factor
            for axis in term.axes:
                before *= int(self._counts[axis])
                after *= int(self._counts[axis]) - hits.get(axis, 0)
            saved[kind] += before // term.divisor - after // term.divisor
        return saved

    def drop(self, class_ids: list[int]) -> None:
        """Follow a drop."""
        saved = self.saving(class_ids)
        for class_id in class_ids:
            for axis, count in self._cost.hits(class_id).items():
                self._counts[axis] -= count
        self.totals = [t - s for t, s in zip(self.totals, saved, strict=True)]


def _parameters(graph: ir.Graph) -> set[ir.Value]:
    """Stored tensors that convolutions and Gemm/MatMul read, whoever else reads them.

    Those that a weight is computed from (scaled, reshaped, dequantised) are among them; vectors
    beside them (scales, zero points, shapes) are not.
    """
    sources: dict[ir.Value, set[ir.Value]] = {}
    found: set[ir.Value] = set()
    for node in graph:
        inputs = [v for v in node.inputs if v is not None]
        if node.op_type in COUNTED:
            found |= {v for v in inputs if is_root_constant(v)}
            found |= {source for v in inputs for source in sources.get(v, ())}
        if inputs and all(v in sources or is_root_constant(v) for v in inputs):
            stored = {v for v in inputs if is_root_constant(v) and len(constant_dims(v) or ()) > 1}
            stored |= {source for v in inputs for source in sources.get(v, ())}
            sources |= dict.fromkeys(node.outputs, stored)
    return found


def _value(term: _Term, counts: NDArray[np.int64]) -> int:
    return term.factor * math.prod(int(counts[a]) for a in term.axes) // term.divisor


def _item_bytes(value: ir.Value) -> int:
    if value.const_value is not None:
        size = value.const_value.size
        return value.const_value.nbytes // size if size else 0
    return 4


def latencies_ms(
    sessions: Sequence[Session], feeds: Mapping[str, Array], *, budget_s: float
) -> list[float]:
    """Median wall time of a run of each model, in milliseconds, after a warm-up.

    The models take turns, so that a machine that slows down slows all of them. A turn is a burst
    of runs, the first of them not counted: it finds the caches and threads of the other model.

    Args:
        sessions: The loaded models.
        feeds: One batch, the same for all.
        budget_s: No further turn is begun after this many seconds (each has at least three runs).
    """
    for session in sessions:
        session.run(feeds)
    times: list[list[float]] = [[] for _ in sessions]
    begin = time.perf_counter()
    while len(times[0]) < LATENCY_RUNS[0] or (
        len(times[0]) < LATENCY_RUNS[1] and time.perf_counter() - begin < budget_s
    ):
        for session, own in zip(sessions, times, strict=True):
            session.run(feeds)
            burst_ends = time.perf_counter() + BURST_S
            while True:
                start = time.perf_counter()
                session.run(feeds)
                own.append((time.perf_counter() - start) * 1e3)
                if time.perf_counter() >= burst_ends:
                    break
    return [statistics.median(own) for own in times]
