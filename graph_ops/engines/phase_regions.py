"""Where a tensor can be computed in phases (`graph_ops.engines.phases`), and where that pays.

A region is a depthwise convolution of stride 2 and what is computed for it alone, from a
convolution of single elements on that widens the tensor, as in the inverted bottleneck of
MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channels import Dims
from graph_ops.engines.tape import BLOCK
from graph_ops.graph import constant_array, int_list_of, int_of
from graph_ops.rules.windows import Windows, read_windows

STRIDE = 2
LEAST_WIDENING = 2
"""Channels are widened by this much at least: the narrow tensor leaves the blocked layout once each
way."""
POINTWISE = frozenset(
    {
        "Add",
        "Celu",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "Mul",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sub",
        "Tanh",
    }
)
"""Operators that may lie between: they work on every element by itself."""


@dataclass(frozen=True)
class Region:
    """A depthwise convolution and what is computed for it alone.

    Attributes:
        widening: The convolution of single elements where it begins.
        between: What lies between, in order.
        wide: What the depthwise convolution reads, (N, C, 2·h, 2·w).
        depthwise: The convolution.
        weight: Its weight, (C, 1, *kernel).
        windows: Its geometry.
    """

    widening: ir.Node
    between: tuple[ir.Node, ...]
    wide: ir.Value
    depthwise: ir.Node
    weight: NDArray[np.float32]
    windows: Windows

    @property
    def x(self) -> ir.Value:
        """The narrow tensor that is widened, (N, c, 2·h, 2·w), as the graph has it now."""
        value = self.widening.inputs[0]
        assert value is not None
        return value


@dataclass(frozen=True)
class Taps:
    """Taps of one axis that lie in a phase, and the padding of that phase.

    Attributes:
        taps: Which they are.
        before: Padding before the axis.
        behind: Padding behind it.
    """

    taps: slice
    before: int
    behind: int


def regions(graph: ir.Graph, shapes: Mapping[str, Dims]) -> Iterator[Region]:
    """Where it can be done, and pays."""
    for node in graph:
        wide, weight = node.inputs[0] if node.inputs else None, _float_weight(node)
        windows = None if weight is None else _windows(node, weight, shapes)
        if wide is None or weight is None or windows is None:
            continue
        found = _walk_up(graph, node, wide, shapes)
        if found is None:
            continue
        region = Region(*found, wide, node, weight, windows)
        if 0 < channels_of(region.x, shapes) * LEAST_WIDENING <= len(weight):
            yield region


def channels_of(value: ir.Value, shapes: Mapping[str, Dims]) -> int:
    """Channels of a tensor, 0 where they are not known."""
    dims = shapes.get(str(value.name))
    return int(dims[1] or 0) if dims is not None and len(dims) > 1 else 0


def _float_weight(node: ir.Node) -> NDArray[np.float32] | None:
    """The weight of a Conv of images, where it is stored in float32."""
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return None
    weight = constant_array(node.inputs[1])
    return (
        weight if weight is not None and weight.ndim == 4 and weight.dtype == np.float32 else None
    )


def _windows(
    node: ir.Node, weight: NDArray[np.float32], shapes: Mapping[str, Dims]
) -> Windows | None:
    """Windows of a depthwise convolution of stride 2 that reads every phase to its end."""
    dims, outputs = (shapes.get(str(v.name)) for v in (node.inputs[0], node.outputs[0]) if v)
    if dims is None or outputs is None or None in (*dims[1:], *outputs[1:]):
        return None
    is_depthwise = int_of(node, "group", 1) == len(weight) == dims[1] and weight.shape[1] == 1
    if not is_depthwise or len(weight) % BLOCK:
        return None
    lengths = [int(d or 0) for d in dims[2:]]
    windows = read_windows(node, weight.shape[2:], lengths, [int(d or 0) for d in outputs[2:]])
    if windows.strides != (STRIDE, STRIDE) or windows.dilations != (1, 1):
        return None
    if any(length % STRIDE for length in lengths):
        return None
    cuts = [taps_of(windows, axis, parity) for axis in range(2) for parity in range(STRIDE)]
    return windows if all(cut is not None for cut in cuts) else None


def taps_of(windows: Windows, axis: int, parity: int) -> Taps | None:
    """The taps of an axis that lie in a phase; None for none, or where the phase would be cut.

    Tap t of window o reads the input 2·o − begin + t, which is element o + (t − begin − parity) / 2
    of the phase.
    """
    begin, kernel = windows.begins[axis], windows.kernel[axis]
    first = (begin + parity) % STRIDE
    taps = range(first, kernel, STRIDE)
    if not taps:
        return None
    before = (begin + parity - first) // STRIDE
    behind = windows.outputs[axis] + len(taps) - 1 - before - windows.inputs[axis] // STRIDE
    return None if behind < 0 else Taps(slice(first, kernel, STRIDE), before, behind)


def _walk_up(
    graph: ir.Graph, depthwise: ir.Node, wide: ir.Value, shapes: Mapping[str, Dims]
) -> tuple[ir.Node, tuple[ir.Node, ...]] | None:
    """The convolution that widens, and what lies between, in order.

    None where something else lies there, or reads what lies there.
    """
    dims = shapes[str(wide.name)]
    widening: set[ir.Node] = set()
    between: set[ir.Node] = set()
    stack = [wide]
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None or shapes.get(str(value.name)) != dims or value.is_graph_output():
            return None
        if node in between or node in widening:
            continue
        if _is_of_single_elements(node):
            widening.add(node)
        elif node.op_type in POINTWISE and node.domain in ("", "ai.onnx"):
            between.add(node)
            stack += [v for v in node.inputs if v is not None and not _is_number(v)]
        else:
            return None
    inside = {depthwise, *between}
    computed = [node.outputs[0] for node in (*widening, *between)]
    if len(widening) != 1 or any(u.node not in inside for value in computed for u in value.uses()):
        return None
    return widening.pop(), tuple(n for n in graph if n in between)


def _is_of_single_elements(node: ir.Node) -> bool:
    """Whether it is a dense Conv of kernel 1 and stride 1."""
    weight = _float_weight(node)
    return (
        weight is not None
        and weight.shape[2:] == (1, 1)
        and int_of(node, "group", 1) == 1
        and int_list_of(node, "strides", [1, 1]) == [1, 1]
        and not any(int_list_of(node, "pads", []))
    )


def _is_number(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and array.size == 1
