"""Where the numbers of a run-time shape come from.

Exporters compute the shape of a Reshape from the shape of a tensor: Shape → Gather or Slice →
Unsqueeze → Concat with stored numbers. Each element of such a vector is either a number that is
known at a place where it can be rewritten (stored there, or computed from nothing but the model),
or the length of some tensor's axis (and follows that axis by itself), or made from such lengths, or
not understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.graph import constant_ints, int_of, ints_of

_MAX_DEPTH = 32


PASSING = frozenset(
    {"Cast", "Concat", "Equal", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
    | {"Where"}
)
"""Operators that hand numbers on as they are, or choose among them."""
CALCULATING = frozenset(
    {"Abs", "Add", "Ceil", "Div", "Floor", "Max", "Min", "Mod", "Mul", "Neg", "Pow", "Round"}
    | {"ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Sqrt", "Sub"}
)
"""Operators that make numbers of numbers."""


@dataclass(frozen=True)
class StoredElement:
    """An integer known at `node.inputs[source]`, position `element`: stored, or computed."""

    node: ir.Node
    source: int
    element: int
    number: int


@dataclass(frozen=True)
class AxisLength:
    """The length of an axis of a tensor, read at run time."""

    value: ir.Value
    axis: int


@dataclass(frozen=True)
class Calculated:
    """A number made from lengths."""

    lengths: frozenset[AxisLength]


Element = StoredElement | AxisLength | Calculated | None


@dataclass(frozen=True)
class ShapeArithmetic:
    """What is known of a model's shapes.

    Attributes:
        ranks: Number of axes of each value by name.
        numbers: Computed tensors that depend on nothing but the model, by name.
    """

    ranks: Mapping[str, int]
    numbers: Mapping[str, NDArray[Any]]

    def known_ints(self, value: ir.Value | None) -> list[int] | None:
        """A stored or known tensor of integers as a flat list."""
        stored = constant_ints(value)
        if stored is not None or value is None:
            return stored
        array = self.numbers.get(str(value.name))
        if array is None or array.dtype.kind not in "iu":
            return None
        return [int(n) for n in array.reshape(-1)]

    def elements(self, node: ir.Node, source: int, depth: int = 0) -> list[Element] | None:
        """Origin of each element of the integer vector at a node's input.

        Returns:
            One entry per element (None where it is not understood), or None when even their number
            is not known.
        """
        value = node.inputs[source]
        if value is None or depth > _MAX_DEPTH:
            return None
        known = self.known_ints(value)
        if known is not None:
            return [StoredElement(node, source, i, n) for i, n in enumerate(known)]
        producer = value.producer()
        if producer is None or producer.domain not in ("", "ai.onnx"):
            return None
        return self._computed(producer, depth)

    def _computed(self, producer: ir.Node, depth: int) -> list[Element] | None:
        match producer.op_type:
            case "Concat":
                parts: list[Element] = []
                for index in range(len(producer.inputs)):
                    part = self.elements(producer, index, depth + 1)
                    if part is None:
                        return None
                    parts += part
                return parts
            case "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze":
                return self.elements(producer, 0, depth + 1)
            case "Shape":
                return self._shape_elements(producer)
            case "Gather":
                inner = self.elements(producer, 0, depth + 1)
                picks = constant_ints(producer.inputs[1])
                if inner is None or picks is None:
                    return None
                return [
                    _read_only(inner[p]) if -len(inner) <= p < len(inner) else None for p in picks
                ]
            case "Slice":
                inner = self.elements(producer, 0, depth + 1)
                starts, ends = ints_of(producer, "starts", 1), ints_of(producer, "ends", 2)
                steps = ints_of(producer, "steps", 4) or [1]
                if inner is None or starts is None or ends is None:
                    return None
                return [_read_only(e) for e in inner[slice(starts[0], ends[0], steps[0])]]
            case "Where":
                return self._chosen(producer, depth)
        if producer.op_type in CALCULATING:
            return self._calculated(producer, depth)
        return None

    def _chosen(self, producer: ir.Node, depth: int) -> list[Element] | None:
        """Sizes of which -1 stays as it is are exported as Where(Equal(shape, -1), …, shape)."""
        condition = producer.inputs[0]
        test = None if condition is None else condition.producer()
        if test is None or test.op_type != "Equal":
            return None
        sides = [(test, 0), (test, 1), (producer, 1), (producer, 2)]
        operands = [self.elements(node, source, depth + 1) for node, source in sides]
        if any(o is None for o in operands):
            return None
        count = max(len(o or ()) for o in operands)
        rows = [o * count if len(o) == 1 else o for o in operands if o is not None]
        if any(len(row) != count for row in rows):
            return None
        return [_choice(*four) for four in zip(*rows, strict=True)]

    def _calculated(self, producer: ir.Node, depth: int) -> list[Element] | None:
        """Numbers of one element each are told apart; of longer vectors every length counts."""
        operands = [self.elements(producer, i, depth + 1) for i in range(len(producer.inputs))]
        if any(o is None or None in o for o in operands):
            return None
        lengths = frozenset(lengths_of(e for o in operands for e in o or ()))
        is_reduced = producer.op_type.startswith("Reduce")
        count = 1 if is_reduced else max(len(o or ()) for o in operands)
        return [Calculated(lengths)] * count

    def _shape_elements(self, producer: ir.Node) -> list[Element] | None:
        value = producer.inputs[0]
        rank = None if value is None else self.ranks.get(str(value.name))
        if value is None or rank is None:
            return None
        start, end = int_of(producer, "start", 0), int_of(producer, "end", rank)
        return [AxisLength(value, axis) for axis in range(rank)[slice(start, end)]]


def lengths_of(elements: Iterable[Element]) -> set[AxisLength]:
    """The lengths that numbers are read or made from."""
    found: set[AxisLength] = set()
    for element in elements:
        if isinstance(element, AxisLength):
            found.add(element)
        elif isinstance(element, Calculated):
            found |= element.lengths
    return found


def _choice(a: Element, b: Element, if_equal: Element, otherwise: Element) -> Element:
    """What Where takes, as far as no count that may change decides it."""
    if isinstance(a, StoredElement) and isinstance(b, StoredElement):
        if a.number < 0 and b.number < 0:
            return if_equal if a.number == b.number else otherwise
        return otherwise if a.number < 0 or b.number < 0 else None
    marker = a if isinstance(a, StoredElement) else b
    is_length = isinstance(a, AxisLength) or isinstance(b, AxisLength)
    if is_length and isinstance(marker, StoredElement) and marker.number < 0:
        return otherwise
    return None


def _read_only(element: Element) -> Element:
    """A stored count that is picked from many is not rewritten there.

    Numbers that are no counts (-1) need no rewriting.
    """
    if isinstance(element, StoredElement) and element.number > 0:
        return None
    return element
