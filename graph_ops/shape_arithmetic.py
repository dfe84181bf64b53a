"""Where the numbers of a run-time shape come from.

Exporters compute the shape of a Reshape from the shape of a tensor: Shape → Gather or Slice →
Unsqueeze → Concat with stored numbers. Each element of such a vector is either stored somewhere
(and can be rewritten), or the length of some tensor's axis (and follows that axis by itself), or
not understood.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from graph_ops.graph import constant_ints, int_of, ints_of

_MAX_DEPTH = 32


@dataclass(frozen=True)
class StoredElement:
    """An integer stored at `node.inputs[source]`, position `element`."""

    node: ir.Node
    source: int
    element: int
    number: int


@dataclass(frozen=True)
class AxisLength:
    """The length of an axis of a tensor, read at run time."""

    value: ir.Value
    axis: int


Element = StoredElement | AxisLength | None


def elements_of(node: ir.Node, source: int, ranks: dict[str, int]) -> list[Element] | None:
    """Origin of each element of the integer vector at a node's input.

    Args:
        node: The node that reads the vector.
        source: Index of the input.
        ranks: Number of axes of each value by name.

    Returns:
        One entry per element (None where it is not understood), or None when even their number is
        not known.
    """
    return _trace(node, source, ranks, 0)


def _trace(node: ir.Node, source: int, ranks: dict[str, int], depth: int) -> list[Element] | None:
    value = node.inputs[source]
    if value is None or depth > _MAX_DEPTH:
        return None
    stored = constant_ints(value)
    if stored is not None:
        return [StoredElement(node, source, i, n) for i, n in enumerate(stored)]
    producer = value.producer()
    if producer is None or producer.domain not in ("", "ai.onnx"):
        return None
    elements = _computed(producer, ranks, depth)
    if elements is not None and (len(value.uses()) > 1 or value.is_graph_output()):
        return [_read_only(e) for e in elements]
    return elements


def _computed(producer: ir.Node, ranks: dict[str, int], depth: int) -> list[Element] | None:
    match producer.op_type:
        case "Concat":
            parts: list[Element] = []
            for index in range(len(producer.inputs)):
                part = _trace(producer, index, ranks, depth + 1)
                if part is None:
                    return None
                parts += part
            return parts
        case "Cast" | "Identity" | "Unsqueeze" | "Squeeze":
            return _trace(producer, 0, ranks, depth + 1)
        case "Shape":
            return _shape_elements(producer, ranks)
        case "Gather":
            inner, picks = _trace(producer, 0, ranks, depth + 1), constant_ints(producer.inputs[1])
            if inner is None or picks is None:
                return None
            return [_read_only(inner[p]) if -len(inner) <= p < len(inner) else None for p in picks]
        case "Slice":
            inner = _trace(producer, 0, ranks, depth + 1)
            starts, ends = ints_of(producer, "starts", 1), ints_of(producer, "ends", 2)
            steps = ints_of(producer, "steps", 4) or [1]
            if inner is None or starts is None or ends is None:
                return None
            return [_read_only(e) for e in inner[slice(starts[0], ends[0], steps[0])]]
    return None


def _read_only(element: Element) -> Element:
    """A stored count that others read too, or that is picked from many, is not rewritten.

    Numbers that are no counts (-1) need no rewriting.
    """
    if isinstance(element, StoredElement) and element.number > 0:
        return None
    return element


def _shape_elements(producer: ir.Node, ranks: dict[str, int]) -> list[Element] | None:
    value = producer.inputs[0]
    if value is None or value.name not in ranks:
        return None
    rank = ranks[value.name]
    start, end = int_of(producer, "start", 0), int_of(producer, "end", rank)
    return [AxisLength(value, axis) for axis in range(rank)[slice(start, end)]]
