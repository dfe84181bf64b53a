"""The blocks of a network: pieces that one tensor alone enters, and one alone leaves.

Between two of them everything passes through a single value, as it does between the residual
blocks of a ResNet. So a block can be run, compared with the original's and trained by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.canonical import ScoringCopy
from graph_ops.channel_classes import ChannelClasses
from graph_ops.graph import constant_array, node_label
from graph_ops.recovery.layers import WEIGHTED
from graph_ops.recovery.training.teacher import output_values
from graph_ops.recovery.walk import data_dependent, reads
from graph_ops.recovery.weights import kept_channels
from graph_ops.runtime import Array

MIN_LAYERS = 2
"""Layers of a block, at least: one by itself was fitted by regression already."""


@dataclass(frozen=True)
class Compared:
    """A value that is held against the original's.

    Attributes:
        value: Its name, in the cut network and in the original.
        kept: For every axis of the original's, [length] what is left; None for all.
        sizes: Numbers of one sample: of the cut network, and of the original.
    """

    value: str
    kept: tuple[NDArray[np.bool_] | None, ...]
    sizes: tuple[int, int]

    def of_original(self, array: Array) -> Array:
        """What the cut network should give where the original gives an array."""
        for axis, kept in enumerate(self.kept):
            if kept is not None:
                array = np.compress(kept, array, axis=axis)
        return array


@dataclass(frozen=True)
class NetworkBlock:
    """A piece of a network.

    Attributes:
        begin: The value that enters it; None for what the graph's inputs enter.
        end: The value that leaves it; None for what the graph's outputs leave.
        compared: What is held against the original: the value at its end, and the logits of
            outputs that are made in it.
        layers: Its weighted layers, by their first output.
        weights: Names of the tensors that its nodes read.
    """

    begin: Compared | None
    end: Compared | None
    compared: tuple[Compared, ...]
    layers: Mapping[str, str]
    weights: frozenset[str]

    @property
    def name(self) -> str:
        """The last value that is compared."""
        return self.compared[-1].value

    @property
    def outputs(self) -> list[str]:
        """Names of what is compared."""
        return [c.value for c in self.compared]


def find_blocks(
    classes: ChannelClasses, dropped: NDArray[np.bool_], cut: ScoringCopy, original: ScoringCopy
) -> list[NetworkBlock]:
    """The blocks of a cut network, in order.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        cut: Scoring copy of the cut network.
        original: Scoring copy of the original.

    Returns:
        An empty list where the two copies are not node for node the same.
    """
    pairs = list(zip(cut.model.graph, original.model.graph, strict=False))
    if len(cut.model.graph) != len(original.model.graph) or any(
        a.op_type != b.op_type or [o.name for o in a.outputs] != [o.name for o in b.outputs]
        for a, b in pairs
    ):
        return []
    return _Partition(classes, dropped, cut, original).blocks()


class _Partition:
    def __init__(
        self,
        classes: ChannelClasses,
        dropped: NDArray[np.bool_],
        cut: ScoringCopy,
        original: ScoringCopy,
    ) -> None:
        self._classes = classes
        self._dropped = dropped
        self._cut = cut
        self._original = original
        self._nodes = list(cut.model.graph)
        self._values = {str(o.name): o for n in classes.channels.model.graph for o in n.outputs}
        self._depends = data_dependent(cut.model)
        ends = list(dict.fromkeys(output_values(cut).values()))
        self._outputs = {v: c for v in ends if (c := self._compared(v)) is not None}

    def blocks(self) -> list[NetworkBlock]:
        found: list[NetworkBlock] = []
        begin: Compared | None = None
        start = 0
        for index, end in self._ends():
            found.append(self._block(start, index + 1, begin, end))
            start, begin = index + 1, end
        tail = self._block(start, len(self._nodes), begin, None)
        if tail.compared and tail.layers:
            found.append(tail)
        return found

    def _block(
        self, start: int, stop: int, begin: Compared | None, end: Compared | None
    ) -> NetworkBlock:
        nodes = self._nodes[start:stop]
        made = {o for n in nodes for o in n.outputs}
        compared = [c for v, c in self._outputs.items() if v in made]
        if end is not None and end not in compared:
            compared.append(end)
        return NetworkBlock(
            begin=begin,
            end=end,
            compared=tuple(compared),
            layers={str(n.outputs[0].name): node_label(n) for n in nodes if _is_layer(n)},
            weights=frozenset(str(v.name) for n in nodes for v in reads(n) if v.is_initializer()),
        )

    def _ends(self) -> list[tuple[int, Compared]]:
        """Index of the last node of every block but the last, and what leaves it.

        Of the values between two layers that could be it, the last of the largest: behind
        activations, before pooling, which hides where things are.
        """
        found: list[tuple[int, Compared]] = []
        best: tuple[int, Compared] | None = None
        layers = 0
        passages = self._passages()
        for index, node in enumerate(self._nodes):
            if _is_layer(node):
                if best is not None:
                    found.append(best)
                    best, layers = None, 0
                layers += 1
            place = passages.get(index)
            if place is None or layers < MIN_LAYERS:
                continue
            if best is None or place.sizes[0] >= best[1].sizes[0]:
                best = (index, place)
        return found

    def _passages(self) -> dict[int, Compared]:
        """Where one value alone is passed on, by the index of the node before."""
        last_read: dict[ir.Value, int] = {}
        for index, node in enumerate(self._nodes):
            last_read |= {v: index for v in reads(node) if v in self._depends}
        found: dict[int, Compared] = {}
        live = {v for v in self._cut.model.graph.inputs if v in last_read}
        for index, node in enumerate(self._nodes):
            live |= {o for o in node.outputs if o in self._depends and last_read.get(o, -1) > index}
            live = {v for v in live if last_read[v] > index}
            if len(live) == 1:
                compared = self._compared(next(iter(live)))
                if compared is not None:
                    found[index] = compared
        return found

    def _compared(self, value: ir.Value) -> Compared | None:
        """A value that the original has too, of a shape that is what is left of the original's."""
        name = str(value.name)
        source = self._values.get(name)
        ours, theirs = self._cut.shapes.get(name), self._original.shapes.get(name)
        if source is None or value.dtype != ir.DataType.FLOAT or not ours or not theirs:
            return None
        if len(ours) != len(theirs) or ours[0] != theirs[0] or None in ours[1:] + theirs[1:]:
            return None
        kept = tuple(
            None if axis == 0 else kept_channels(self._classes, source, axis, self._dropped)
            for axis in range(len(theirs))
        )
        left = [
            length if mask is None else int(mask.sum())
            for mask, length in zip(kept[1:], theirs[1:], strict=True)
        ]
        if left != list(ours[1:]):
            return None
        return Compared(name, kept, (_numbers(ours), _numbers(theirs)))


def _numbers(dims: Sequence[int | None]) -> int:
    return math.prod(int(d or 0) for d in dims[1:])


def _is_layer(node: ir.Node) -> bool:
    return (
        node.op_type in WEIGHTED
        and node.domain in ("", "ai.onnx")
        and constant_array(node.inputs[1]) is not None
    )


def largest_numbers(blocks: Sequence[NetworkBlock], inputs: Mapping[str, Sequence[int]]) -> int:
    """Numbers of one sample that are kept at most while a block is trained, of both networks."""
    of_inputs = sum(math.prod(shape) for shape in inputs.values())
    most = 0
    for block in blocks:
        begins = (of_inputs, of_inputs) if block.begin is None else block.begin.sizes
        ends = tuple(sum(c.sizes[i] for c in block.compared) for i in (0, 1))
        most = max(most, sum(max(pair) for pair in zip(begins, ends, strict=True)))
    return most
