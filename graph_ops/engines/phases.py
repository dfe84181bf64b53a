"""What only a depthwise convolution of stride 2 reads, computed as its four phases.

The positions of a tensor (N, C, 2·h, 2·w) that have the same parities are a phase of it,
(N, C, h, w). A convolution of stride 2 is a sum of four convolutions of stride 1, one over each
phase, with the taps that lie there. Its gradient then is four convolutions of stride 1 as well,
where otherwise zeros would be put between the elements: four times the elements, in operators that
leave ONNX Runtime's blocked layout.

The tensor is taken apart where it is narrow (`graph_ops.engines.phase_regions`). From there on
everything is done once for each phase, on tensors that are more likely to fit a cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channels import Dims
from graph_ops.engines.phase_regions import STRIDE, Region, channels_of, regions, taps_of
from graph_ops.engines.reduction import ReductionPlan
from graph_ops.engines.sums import SummedTensor
from graph_ops.graph import stored_value, take_place

PHASES = tuple(itertools.product(range(STRIDE), repeat=2))
"""Row and column parity, row by row."""


def in_phases(plan: ReductionPlan) -> ReductionPlan:
    """Write every such region of the plan's model in phases; the plan of what it is now."""
    phases: dict[str, list[ir.Value]] = {}
    for region in list(regions(plan.model.graph, plan.shapes)):
        phases |= _Writer(plan.model.graph, plan.shapes, region).write()

    def spread(tensors: Sequence[SummedTensor]) -> tuple[SummedTensor, ...]:
        return tuple(part for tensor in tensors for part in _parts(tensor, phases))

    columns = [
        replace(c, products=spread(c.products), gradients=spread(c.gradients)) for c in plan.columns
    ]
    return replace(plan, columns=tuple(columns))


def _parts(
    tensor: SummedTensor, phases: Mapping[str, Sequence[ir.Value]]
) -> Iterator[SummedTensor]:
    """A tensor, or its phases."""
    if tensor.name not in phases:
        yield tensor
        return
    positions = tensor.positions // len(PHASES)
    for value, gradient in zip(phases[tensor.name], phases[tensor.gradient], strict=True):
        name, of = str(value.name), str(gradient.name)
        yield replace(tensor, name=name, positions=positions, gradient=of)


class _Writer:
    """Writes a region in phases in front of its depthwise convolution."""

    def __init__(self, graph: ir.Graph, shapes: dict[str, Dims], region: Region) -> None:
        self._graph = graph
        self._shapes = shapes
        self._region = region
        self._numbers = itertools.count()
        self._name = str(region.depthwise.outputs[0].name)
        rows, _, height, width = shapes[str(region.wide.name)]
        self._rows, self._channels = rows, len(region.weight)
        self._lengths = (int(height or 0) // STRIDE, int(width or 0) // STRIDE)
        self._out_dims = shapes[self._name]

    def write(self) -> dict[str, list[ir.Value]]:
        """Replace the region; the phases of each value that was in it, by name."""
        region = self._region
        x = region.x
        phases = {x: self._apart(x)}
        for node in (region.widening, *region.between):
            phases[node.outputs[0]] = [self._copy(node, phases, k) for k in range(len(PHASES))]
        total, *parts = [self._part(phase, k) for k, phase in enumerate(phases[region.wide])]
        for k, part in enumerate(parts, start=1):
            (total,) = self._op("Add", [total, part], f"sum{k}", self._out_dims)
        if any(use.node.op_type == "Clip" for use in region.depthwise.outputs[0].uses()):
            total = self._passed_on(total)
        self._replace(total)
        del phases[x]
        return {str(value.name): parts for value, parts in phases.items()}

    def _op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dims: Dims,
        attributes: Mapping[str, Any] | None = None,
        outputs: int = 1,
    ) -> Sequence[ir.Value]:
        """A node in front of the depthwise convolution; its outputs have one shape."""
        node = ir.node(
            op_type,
            inputs,
            attributes=dict(attributes or {}),
            num_outputs=outputs,
            name=f"{self._name}/{name}",
        )
        for number, output in enumerate(node.outputs):
            output.name = f"{node.name}/{number}"
            output.type = ir.TensorType(ir.DataType.FLOAT)
            self._shapes[output.name] = dims
        self._graph.insert_before(self._region.depthwise, node)
        return node.outputs

    def _apart(self, x: ir.Value) -> list[ir.Value]:
        """The phases of a tensor.

        Channels stand last meanwhile, so that those of a position are moved as one: ONNX Runtime
        has that order as cheap a way into its blocked layout and out of it as any, and needs a
        quarter of the time of SpaceToDepth and DepthToSpace.
        """
        channels, rows, (height, width) = channels_of(x, self._shapes), self._rows, self._lengths
        last, second = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
        dims: Dims = (rows, height * STRIDE, width * STRIDE, channels)
        pixels = self._op("Transpose", [x], "pixels", dims, last)
        dims = (rows, height, STRIDE, width * STRIDE * channels)
        lines = self._op("Reshape", [*pixels, self._like(dims)], "lines", dims)
        dims = (rows, height, 1, width * STRIDE * channels)
        parities = self._split(lines[0], 2, 1, "rows", dims)
        found: list[ir.Value] = []
        for parity, line in enumerate(parities):
            dims = (rows, height, width, STRIDE * channels)
            pairs = self._op("Reshape", [line, self._like(dims)], f"row{parity}/pairs", dims)
            dims = (rows, height, width, channels)
            for part in self._split(pairs[0], 3, channels, f"row{parity}/columns", dims):
                dims = (rows, channels, height, width)
                found += self._op("Transpose", [part], f"phase{len(found)}", dims, second)
        return found

    def _split(
        self, value: ir.Value, axis: int, length: int, name: str, dims: Dims
    ) -> Sequence[ir.Value]:
        """Parts of a value for each parity."""
        lengths = self._ints([length] * STRIDE)
        return self._op("Split", [value, lengths], name, dims, {"axis": axis}, STRIDE)

    def _copy(self, node: ir.Node, phases: Mapping[ir.Value, list[ir.Value]], k: int) -> ir.Value:
        """What a node of the region makes of a phase."""
        inputs = [v if v is None else phases[v][k] if v in phases else v for v in node.inputs]
        dims = (self._rows, self._channels, *self._lengths)
        name = f"{node.outputs[0].name}/phase{k}"
        return self._op(node.op_type, inputs, name, dims, node.attributes)[0]

    def _part(self, phase: ir.Value, k: int) -> ir.Value:
        """What the taps that lie in a phase make of it; the first takes the bias."""
        row, column = PHASES[k]
        windows = self._region.windows
        rows, columns = taps_of(windows, 0, row), taps_of(windows, 1, column)
        assert rows is not None
        assert columns is not None
        weight = self._region.weight[:, :, rows.taps, columns.taps]
        attributes = {
            "group": self._channels,
            "kernel_shape": list(weight.shape[2:]),
            "pads": [rows.before, columns.before, rows.behind, columns.behind],
        }
        bias = self._region.depthwise.inputs[2:] if k == 0 else ()
        inputs = [phase, self._stored(f"taps{k}", weight), *bias]
        return self._op("Conv", inputs, f"part{k}", self._out_dims, attributes)[0]

    def _passed_on(self, value: ir.Value) -> ir.Value:
        """The same, from a convolution: a Clip is taken into one, but not into a sum."""
        ones = self._stored("ones", np.ones((self._channels, 1, 1, 1), np.float32))
        attributes = {"group": self._channels}
        return self._op("Conv", [value, ones], "same", self._out_dims, attributes)[0]

    def _like(self, dims: Dims) -> ir.Value:
        """The shape for a Reshape that leaves the batch as it is."""
        return self._ints([0, *(int(d or 0) for d in dims[1:])])

    def _ints(self, numbers: Sequence[int]) -> ir.Value:
        return self._stored(f"ints{next(self._numbers)}", np.asarray(numbers, dtype=np.int64))

    def _stored(self, name: str, array: NDArray[Any]) -> ir.Value:
        value = stored_value(f"{self._name}/{name}", array)
        self._graph.initializers.add(value)
        return value

    def _replace(self, total: ir.Value) -> None:
        """Put the sum in the place of the convolution's output, and drop what was there."""
        region = self._region
        take_place(total, region.depthwise.outputs[0])
        for node in (region.depthwise, *reversed(region.between), region.widening):
            self._graph.remove(node, safe=True)
