"""Which channels belong together: one mechanism for every topology.

Every axis that carries channels holds an array of labels, one integer per index. A stored weight
has labels of its own on every axis; an operator's rule passes labels from its inputs to its
outputs and *couples* those that have to be the same channel (a residual sum, a convolution's input
and its weight's axis 1). Coupled labels form a class: what can be dropped as one. A class may be
*frozen* with a reason a person can read: it reaches a graph output, an operator mixes channels, an
operator has no rule. Dropping a class is one operation everywhere: delete the indices that hold it,
then apply the *edits* for constants that spell a channel count.

Couplings are only collected while the graph is walked once in order; the classes are the connected
components of the label graph, computed at the end. This is what dependency graphs (Torch-Pruning,
arXiv 2301.12900) do by tracing modules, done here on tensor axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from graph_ops.channel_classes import ChannelClasses
from graph_ops.edits import Edit, SpellCount, StoreNumbers
from graph_ops.graph import constant_dims, input_at, is_root_constant, node_label
from graph_ops.grouped import GroupedConvolution, settle_groups
from graph_ops.shape_arithmetic import (
    AxisLength,
    Element,
    ShapeArithmetic,
    StoredElement,
    lengths_of,
)

Labels = NDArray[np.int64]
Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class Convolution:
    """A Conv or ConvTranspose and the labels of its filters.

    Attributes:
        node: The node.
        filters: [M] labels of its output channels, or None when their number is not known or 1.
        filter_count: M, or 0 when not known.
        is_producer: Whether its filters may be scored and dropped on their own; a depthwise
            convolution only passes on the channels of its input.
    """

    node: ir.Node
    filters: Labels | None
    filter_count: int
    is_producer: bool

    @property
    def name(self) -> str:
        """Name in the report: the node's, or its first output's."""
        return node_label(self.node)

    @property
    def why_whole(self) -> str | None:
        """Why there is no filter to choose from; None where there is."""
        if self.filter_count == 1:
            return "it has a single filter"
        return "the number of its filters is not known" if self.filters is None else None


@dataclass(frozen=True)
class CostItem:
    """Multiply-accumulates of one operator per sample: `factor` × the product of axis counts.

    Attributes:
        node: The operator.
        factor: Multiplications that do not depend on channels (output positions, kernel taps).
        axes: Label arrays whose kept counts multiply the factor.
        divisor: Groups: each filter reads only its group's share of the input channels.
    """

    node: ir.Node
    factor: int
    axes: tuple[Labels, ...]
    divisor: int = 1


class Channels:
    """The label graph of one model.

    Args:
        model: The model; it is not changed.
        shapes: Static shape of every value by name (None for a symbolic dimension).
        numbers: Computed tensors that depend on nothing but the model, by name.
        in_order: What a Gather takes from a list, all of it, as it stands there.
    """

    def __init__(
        self,
        model: ir.Model,
        shapes: Mapping[str, Dims],
        numbers: Mapping[str, NDArray[Any]] | None = None,
        in_order: frozenset[str] = frozenset(),
    ) -> None:
        self.model = model
        self.shapes = shapes
        self.in_order = in_order
        self.arithmetic = ShapeArithmetic({n: len(d) for n, d in shapes.items()}, numbers or {})
        self._spelled: dict[tuple[ir.Node, int, int], list[Labels | None]] = {}
        self.opset = model.graph.opset_imports.get("", model.graph.opset_imports.get("ai.onnx", 1))
        self.convolutions: list[Convolution] = []
        self.costs: list[CostItem] = []
        self.edits: list[Edit] = []
        self.consumers: list[tuple[ir.Node, int, int]] = []
        """(node, input index, axis) where an operator contracts a channel axis."""
        self.unknown_cost: list[ir.Node] = []
        self.balances: list[Labels] = []
        """[groups, width] labels whose rows must stay equally long."""
        self.narrowed: dict[ir.Value, tuple[Labels, int]] = {}
        """Weights of grouped convolutions: labels of all input channels, number of groups."""
        self.grouped: list[GroupedConvolution] = []
        """Those whose inputs and filters both have labels, of several channels a group."""
        self._count = 0
        self._is_sealed = False
        self._labels: dict[ir.Value, list[Labels | None]] = {}
        # By identity, which no other array takes while these are held.
        self._giving_way: dict[int, Labels] = {}
        self._couplings: list[tuple[Labels, Labels]] = []
        self._frozen: list[tuple[Labels, str]] = []

    # Reading ---------------------------------------------------------------------------------

    def dims(self, value: ir.Value) -> Dims | None:
        """Shape of a value; None when even its rank is unknown."""
        if is_root_constant(value):
            return constant_dims(value)
        return self.shapes.get(value.name or "")

    def rank(self, value: ir.Value) -> int:
        """Number of axes (0 when unknown)."""
        return len(self.dims(value) or ())

    def axes(self, value: ir.Value | None) -> list[Labels | None]:
        """Labels of every axis of a value; None on axes from which nothing can be removed.

        A stored constant gets labels of its own on every axis longer than 1 when first asked.
        """
        if value is None:
            return []
        if value not in self._labels:
            dims = self.dims(value) or ()
            if is_root_constant(value) and not self._is_sealed:
                self._labels[value] = [self.fresh(d) if d and d > 1 else None for d in dims]
            else:
                self._labels[value] = [None] * len(dims)
        return self._labels[value]

    def axis(self, value: ir.Value | None, axis: int) -> Labels | None:
        """Labels of one axis (None when it carries none, or does not exist)."""
        axes = self.axes(value)
        return axes[axis] if -len(axes) <= axis < len(axes) else None

    def weight_axes(self, weight: ir.Value) -> tuple[tuple[Labels, ...], int]:
        """Label arrays whose counts multiply to a weight's size, and what divides the product."""
        axes = tuple(a for a in self.axes(weight) if a is not None)
        if weight not in self.narrowed:
            return axes, 1
        inputs, groups = self.narrowed[weight]
        return (*axes, inputs), groups

    def labelled_values(self) -> Iterable[tuple[ir.Value, list[Labels | None]]]:
        """Every value that carries labels on some axis."""
        return ((v, axes) for v, axes in self._labels.items() if any(a is not None for a in axes))

    def labelled_axes(self) -> Iterable[Labels]:
        """Every array of labels on an axis, once."""
        arrays = {id(a): a for _, axes in self.labelled_values() for a in axes if a is not None}
        return arrays.values()

    # Writing (called by rules) -----------------------------------------------------------------

    def fresh(self, count: int) -> Labels:
        """[count] new labels, coupled to nothing."""
        labels = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        return labels

    def copies(self, count: int) -> Labels:
        """[count] new labels of an axis that repeats one number: channels only if it meets some."""
        labels = self.fresh(count)
        self._giving_way[id(labels)] = labels
        return labels

    def gives_way(self, labels: Labels | None) -> bool:
        """Whether an axis loses nothing where it is frozen: it is frozen already, or repeats."""
        return id(labels) in self._giving_way

    def set_axes(self, value: ir.Value | None, axes: Sequence[Labels | None]) -> None:
        """Give an output its labels; axes of length 1 carry none (they broadcast).

        A channel that is all there is of an axis has to stay.
        """
        if value is None:
            return
        for labels in axes:
            if labels is not None and labels.size == 1:
                self.freeze(labels, f"it is the only channel of {value.name!r}")
        self._labels[value] = [a if a is not None and a.size > 1 else None for a in axes]

    def couple(self, a: Labels | None, b: Labels | None, reason: str) -> None:
        """Index i of `a` and of `b` are the same channel.

        Where one side carries no labels (or the lengths differ), nothing can be removed from the
        other either: it is frozen for the reason given.
        """
        if a is None or b is None or a.shape != b.shape:
            self.freeze(a, reason)
            self.freeze(b, reason)
        elif a is not b:
            self._couplings.append((a, b))

    def freeze(self, labels: Labels | None, reason: str) -> None:
        """None of these channels may be removed, for a reason a person can read."""
        if labels is not None and labels.size:
            self._frozen.append((labels, reason))
            self._giving_way[id(labels)] = labels

    def freeze_value(self, value: ir.Value | None, reason: str) -> None:
        """Freeze every axis of a value (a stored one that nobody else reads has no channels)."""
        if value is None:
            return
        is_private = len(value.uses()) <= 1 and not value.is_graph_output()
        if is_private and is_root_constant(value) and value not in self._labels:
            return
        for labels in self.axes(value):
            self.freeze(labels, reason)

    def opaque(self, count: int, reason: str) -> Labels:
        """[count] labels that stand for channels nothing can be removed from."""
        labels = self.fresh(count)
        self.freeze(labels, reason)
        return labels

    def edit(self, edit: Edit) -> None:
        """Record a constant or attribute that has to follow the channels."""
        self.edits.append(edit)

    def balance(self, labels: Labels, groups: int) -> Labels:
        """Equally many of each group's channels stay; which ones is free. Returns their table."""
        table = labels.reshape(groups, -1)
        self.balances.append(table)
        return table

    def contract(self, node: ir.Node, index: int, axis: int) -> None:
        """Record that the node sums over an axis of its input, so that zeros there vanish."""
        self.consumers.append((node, index, axis))

    def known_ints(self, node: ir.Node, attribute: str, index: int) -> list[int] | None:
        """Integers given as an attribute, stored, or computed from nothing but the model."""
        if attribute in node.attributes:
            return list(node.attributes[attribute].as_ints())
        return self.arithmetic.known_ints(input_at(node, index))

    def store(self, node: ir.Node, index: int, labels: Labels) -> None:
        """Record that an input of known numbers is stored when one of these channels goes.

        The counts it was computed from change then; what is made of it must not, or follows by an
        edit of its own.
        """
        value = input_at(node, index)
        if value is None or is_root_constant(value):
            return
        numbers = self.arithmetic.numbers.get(str(value.name))
        if numbers is not None:
            dtype = None if value.dtype is None else value.dtype.numpy()
            self.edit(StoreNumbers(node, index, numbers.astype(dtype or numbers.dtype), labels))

    def elements(self, node: ir.Node, source: int) -> list[Element] | None:
        """Origin of each element of the integer vector at a node's input."""
        return self.arithmetic.elements(node, source)

    def follow_lengths(
        self, node: ir.Node, source: int, axes: Sequence[Labels | None], is_shape_of: str
    ) -> None:
        """Make the numbers of a run-time shape track the channels of the axes they describe.

        A length read from an axis follows by itself, and couples the two; a number known at some
        place is rewritten there; −1 is worked out by the runtime. What cannot follow is frozen.

        Args:
            node: The node that reads the shape.
            source: Index of the input.
            axes: Labels of the axes the shape describes, aligned right.
            is_shape_of: What the shape belongs to, for the reason.
        """
        elements = self.elements(node, source)
        if elements is None:
            for labels in axes:
                self.freeze(labels, f"the shape of {is_shape_of} is computed at run time")
            return
        for position, element in enumerate(elements, len(axes) - len(elements)):
            self._follow(element, axes[position] if position >= 0 else None, is_shape_of)

    def _follow(self, element: Element, labels: Labels | None, is_shape_of: str) -> None:
        computed = f"the shape of {is_shape_of} is computed at run time"
        elsewhere = f"its count shapes another axis in {is_shape_of}"
        if isinstance(element, StoredElement):
            slot = (element.node, element.source, element.element)
            self._spelled.setdefault(slot, []).append(labels)
            if labels is None:
                return
            if element.number == 0:
                self.freeze(labels, computed)
            elif element.number > 0:
                self.store(element.node, element.source, labels)
                self.edit(SpellCount(*slot, labels))
            return
        if isinstance(element, AxisLength):
            found = self.axis(element.value, element.axis)
            if labels is not None and found is not None and found.shape == labels.shape:
                if not np.array_equal(found, labels):
                    self.couple(found, labels, "one is as long as the other")
                return
        for length in lengths_of([element]):
            self.freeze(self.axis(length.value, length.axis), elsewhere)
        self.freeze(labels, computed)

    def _settle_shared_numbers(self) -> None:
        """One number that several shapes read counts the same channels in all of them."""
        for readers in self._spelled.values():
            first = readers[0]
            for other in readers[1:]:
                if first is not None or other is not None:
                    self.couple(first, other, "one number counts it and another axis")

    def classes_among(self, labels: Labels) -> int:
        """How many of these labels are kept apart by the couplings collected so far.

        Equal positions of a grouped convolution's groups count as one: coupled across groups they
        can go, within a group they would take the whole group.
        """
        tied = [(table[0], row) for table in self.balances for row in table[1:]]
        return int(np.unique(self._components(tied)[1][labels]).size)

    def classes(self) -> ChannelClasses:
        """The connected components of the label graph; no labels can be made afterwards."""
        self._settle_shared_numbers()
        if self.grouped:
            settle_groups(self, self._components()[1])
        self._is_sealed = True
        count, class_of = self._components()
        reason_index = np.full(count, -1, dtype=np.int64)
        for index, (labels, _) in enumerate(self._frozen):
            touched = np.unique(class_of[labels])
            reason_index[touched[reason_index[touched] < 0]] = index
        return ChannelClasses(
            channels=self,
            class_of=class_of,
            count=count,
            reason_index=reason_index,
            reasons=[reason for _, reason in self._frozen],
        )

    def _components(
        self, more: Sequence[tuple[Labels, Labels]] = ()
    ) -> tuple[int, NDArray[np.int64]]:
        """Number of classes, and the class of every label, with more couplings if wanted."""
        pairs = [*self._couplings, *more]
        rows = np.concatenate([a for a, _ in pairs]) if pairs else np.empty(0, np.int64)
        columns = np.concatenate([b for _, b in pairs]) if pairs else np.empty(0, np.int64)
        graph = coo_array(
            (np.ones(rows.size, dtype=np.int8), (rows, columns)), shape=(self._count, self._count)
        )
        count, class_of = connected_components(graph, directed=False)
        return int(count), class_of.astype(np.int64)
