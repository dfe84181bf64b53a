"""Edits: constants and attributes that spell channel counts or positions.

A rule records what follows the channels; surgery applies it once it knows which indices stay.
Every edit is a pure description: it names the node by reference and is applied to the node's
counterpart in the copy that is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import constant_array, is_root_constant, stored_value

Labels = NDArray[np.int64]
Keep = Callable[[Labels], NDArray[np.bool_]]
"""Which indices of a labelled axis stay."""


class Edit(Protocol):
    """A change of one node that follows from dropping channels."""

    @property
    def node(self) -> ir.Node:
        """The node of the analysed model."""
        ...

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Change the node's counterpart in the copy that is cut."""
        ...


def set_constant_input(node: ir.Node, index: int, array: NDArray[np.generic]) -> None:
    """Give a node a stored input of its own; the old one stays for its other users."""
    graph = node.graph
    assert graph is not None
    old = node.inputs[index] if index < len(node.inputs) else None
    base = (old.name if old is not None and old.name else f"{node.outputs[0].name}_{index}") or ""
    is_private = (
        old is not None
        and old.is_initializer()
        and len(old.uses()) == 1
        and not old.is_graph_input()
        and not old.is_graph_output()
    )
    if is_private:
        assert old is not None
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    taken = set(graph.initializers)
    name = next(n for n in (f"{base}_pruned", *_numbered(base)) if n not in taken)
    value = stored_value(name, array)
    graph.initializers.add(value)
    if _initializers_are_inputs(graph):
        graph.inputs.append(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _numbered(base: str) -> list[str]:
    return [f"{base}_pruned_{i}" for i in range(1, 100_000)]


def _initializers_are_inputs(graph: ir.Graph) -> bool:
    """Whether every stored tensor is listed as a graph input (IR version 3 requires it)."""
    stored = list(graph.initializers.values())
    listed = [v for v in stored if v.is_graph_input()]
    return bool(listed) and len(listed) >= len(stored) - 1


@dataclass(frozen=True)
class SpellCount:
    """Element `element` of the stored integers at an input (or attribute) counts `labels`.

    Attributes:
        node: The node.
        source: Input index, or attribute name.
        element: Position among the integers; None for a plain integer attribute.
        labels: The channels it counts.
    """

    node: ir.Node
    source: int | str
    element: int | None
    labels: Labels

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Write the number of channels that stay."""
        kept = keep(self.labels)
        if kept.all():
            return
        count = int(kept.sum())
        if isinstance(self.source, str):
            if self.element is None:
                node.attributes[self.source] = ir.AttrInt64(self.source, count)
            else:
                numbers = list(node.attributes[self.source].as_ints())
                numbers[self.element] = count
                node.attributes[self.source] = ir.AttrInt64s(self.source, numbers)
            return
        array = constant_array(node.inputs[self.source])
        assert array is not None
        array = array.copy()
        array.reshape(-1)[self.element if self.element is not None else 0] = count
        set_constant_input(node, self.source, array)


@dataclass(frozen=True)
class StoreNumbers:
    """Known numbers that are computed from channel counts; they are stored when a count changes.

    Attributes:
        node: The node that reads them.
        source: Input index.
        numbers: What the input is in the analysed model.
        labels: The channels whose count they may be computed from.
    """

    node: ir.Node
    source: int
    numbers: NDArray[np.generic]
    labels: Labels

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Store the numbers, unless another edit did."""
        value = node.inputs[self.source]
        if keep(self.labels).all() or value is None or is_root_constant(value):
            return
        set_constant_input(node, self.source, self.numbers)


@dataclass(frozen=True)
class PassOn:
    """A Gather that gives a list of all numbers of a tensor the tensor's own shape again.

    Its indices count by the channels there were.

    Attributes:
        node: The Gather node; it reads a Reshape of the tensor.
        labels: The tensor's channels.
    """

    node: ir.Node
    labels: Labels

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Hand the tensor on as it is."""
        if keep(self.labels).all():
            return
        reshape = node.inputs[0]
        producer = None if reshape is None else reshape.producer()
        assert producer is not None
        node.op_type = "Identity"
        node.attributes.clear()
        node.replace_input_with(0, producer.inputs[0])
        node.resize_inputs(1)


@dataclass(frozen=True)
class SpellAxes:
    """The axes of a Squeeze that takes every axis of length 1, which one of channels may become.

    Attributes:
        node: The Squeeze node.
        axes: The axes it takes.
        labels: Channels of an axis that stays.
        as_attribute: Whether this opset writes the axes as an attribute.
    """

    node: ir.Node
    axes: tuple[int, ...]
    labels: Labels
    as_attribute: bool

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Name the axes once a single channel is left."""
        if int(keep(self.labels).sum()) > 1:
            return
        if self.as_attribute:
            node.attributes["axes"] = ir.AttrInt64s("axes", self.axes)
        else:
            set_constant_input(node, 1, np.asarray(self.axes, dtype=np.int64))


@dataclass(frozen=True)
class SpellSplit:
    """The sizes of a Split along a labelled axis, given or (equal parts) implied.

    Attributes:
        node: The Split node.
        parts: Labels of each output along the axis.
        as_attribute: Whether this opset writes the sizes as an attribute.
    """

    node: ir.Node
    parts: tuple[Labels, ...]
    as_attribute: bool

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Write the sizes that stay."""
        kept = [keep(part) for part in self.parts]
        if all(k.all() for k in kept):
            return
        sizes = [int(k.sum()) for k in kept]
        if self.as_attribute:
            node.attributes["split"] = ir.AttrInt64s("split", sizes)
            return
        node.attributes.pop("num_outputs", None)
        for output in node.outputs:
            if isinstance(output.type, ir.SequenceType):
                output.shape = None  # the parts may differ now
        set_constant_input(node, 1, np.asarray(sizes, dtype=np.int64))


@dataclass(frozen=True)
class SpellRange:
    """The start and end of a Slice along a labelled axis (step 1).

    Attributes:
        node: The Slice node.
        element: Position of the axis among the node's starts and ends.
        start: First index of the range.
        end: One past its last index.
        labels: Labels of the sliced axis.
    """

    node: ir.Node
    element: int
    start: int
    end: int
    labels: Labels

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Write where the range begins and ends among the indices that stay."""
        kept = keep(self.labels)
        if kept.all():
            return
        before = int(kept[: self.start].sum())
        until = int(kept[: self.end].sum())
        for name, index, position in (("starts", 1, before), ("ends", 2, until)):
            if name in node.attributes:
                numbers = list(node.attributes[name].as_ints())
                numbers[self.element] = position
                node.attributes[name] = ir.AttrInt64s(name, numbers)
                continue
            array = constant_array(node.inputs[index])
            assert array is not None
            array = array.copy()
            array.reshape(-1)[self.element] = position
            set_constant_input(node, index, array)


@dataclass(frozen=True)
class NarrowGroups:
    """The input axis of a grouped convolution's weight (M, C / groups, *kernel).

    Rows of dropped filters are gone by the time this is applied. Group i's rows read group i's
    channels, so each block of rows loses its own columns.

    Attributes:
        node: The convolution.
        labels: [C] labels of its input channels.
        groups: Number of groups.
    """

    node: ir.Node
    labels: Labels
    groups: int

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Delete each group's own columns."""
        kept = keep(self.labels).reshape(self.groups, -1)
        if kept.all():
            return
        weight = constant_array(node.inputs[1])
        assert weight is not None
        blocks = weight.reshape(self.groups, -1, *weight.shape[1:])
        parts = [np.compress(k, block, axis=1) for k, block in zip(kept, blocks, strict=True)]
        set_constant_input(node, 1, np.ascontiguousarray(np.concatenate(parts)))


@dataclass(frozen=True)
class RenumberIndices:
    """Stored indices into a labelled axis (Gather).

    The indices whose channel goes have been deleted by the time this is applied, since the stored
    tensor carries the labels itself; what is left is renumbered.

    Attributes:
        node: The node.
        source: Input index of the indices.
        labels: Labels of the axis they point into.
    """

    node: ir.Node
    source: int
    labels: Labels

    def apply(self, node: ir.Node, keep: Keep) -> None:
        """Point at the new positions of the same channels."""
        kept = keep(self.labels)
        if kept.all():
            return
        array = constant_array(node.inputs[self.source])
        assert array is not None
        position = np.cumsum(kept) - 1
        renumbered = position[np.where(array < 0, array + kept.size, array)]
        set_constant_input(node, self.source, renumbered.astype(array.dtype))
