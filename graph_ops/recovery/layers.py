"""Which layers are refitted, what each is matched to, and where its bias stands.

A layer is a Conv, ConvTranspose, Gemm or MatMul with a stored weight whose input lost channels, or
changed because something before it did. It is matched at the end of the linear stretch behind it:

    layer → BatchNormalization, Mul, Add with constants → residual sums

Matching a BatchNormalization's output instead of the convolution's own is exact: it multiplies
every channel by a constant (`scale`), which is divided out again when the weight is written. At a
residual sum the target is the original's sum, so the layer also takes up what the other branch
lost. A sum is only matched by the layer that comes last in it, because the others have to be final.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.graph import constant_array, float_of, input_at, int_of, node_label, output_at
from graph_ops.recovery.rows import LinearForm, linear_form
from graph_ops.recovery.visible import Visible, visible
from graph_ops.recovery.walk import computing_nodes, data_dependent, reads
from graph_ops.recovery.weights import BIAS_INPUT, is_writable, kept_channels
from graph_ops.runtime import Array

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class BiasSlot:
    """A vector that is added to every output of a layer on the way to where it is matched.

    Attributes:
        value: The stored vector; None where the layer has no bias yet and is given one.
        after: [M] what the vector is multiplied by between there and the match.
    """

    value: ir.Value | None
    after: NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """A layer of the cut model that is refitted.

    Attributes:
        node: The node of the cut model.
        original: The same node of the original.
        index: Its position among `computing_nodes`, the same in original and cut model.
        form: How it is linear in its weight.
        match: The value of the cut model that is compared with the original's of the same name.
        matched_to: What a person calls that place: `own output`, `normalised output` or `sum`.
        kept: [M_original] which of the original's channels are left at the match; None for all.
        kept_inputs: [C_original] which of its input channels are left; None for all. Only for
            convolutions.
        scale: [M] what its output is multiplied by on the way to the match.
        slot: Where its bias stands; None where it can have none.
        fixed: Why its weight cannot be changed, or None.
        visible: What the readers see of the values at the match.
        position: Index of the first node that is not final when the layer is refitted.
    """

    node: ir.Node
    original: ir.Node
    index: int
    form: LinearForm
    match: ir.Value
    matched_to: str
    kept: NDArray[np.bool_] | None
    kept_inputs: NDArray[np.bool_] | None
    scale: NDArray[np.float64]
    slot: BiasSlot | None
    fixed: str | None
    visible: Visible
    position: int

    @property
    def name(self) -> str:
        """Name in the report."""
        return node_label(self.node)


@dataclass(frozen=True)
class Skipped:
    """A layer that is left as it is, and why."""

    name: str
    op_type: str
    reason: str


def find_layers(
    classes: ChannelClasses, dropped: NDArray[np.bool_], model: ir.Model
) -> tuple[list[Layer], list[Skipped]]:
    """The layers of a cut model that are refitted, in the order in which they are.

    Args:
        classes: Channel classes of the original.
        dropped: [classes] which were dropped.
        model: The cut model.
    """
    return _Finder(classes, dropped, model).find()


class _Finder:
    def __init__(
        self, classes: ChannelClasses, dropped: NDArray[np.bool_], model: ir.Model
    ) -> None:
        self._classes = classes
        self._dropped = dropped
        self._model = model
        original = computing_nodes(classes.channels.model)
        self._nodes = computing_nodes(model)
        self._index = {node: i for i, node in enumerate(self._nodes)}
        self._original = dict(zip(self._nodes, original, strict=True))
        self._changed = self._find_changed()
        self._depends = data_dependent(model)
        self._refitted = {n: i for n, i in self._index.items() if self._is_refitted(n)}
        self._order = self._in_order()
        self._rank = {node: rank for rank, node in enumerate(self._order)}
        self._last = self._last_refitted(self._rank)

    def find(self) -> tuple[list[Layer], list[Skipped]]:
        layers: list[Layer] = []
        skipped: list[Skipped] = []
        positions = [self._refitted[node] for node in self._order]
        ahead = [*itertools.accumulate(reversed(positions), min)]
        for node, position in zip(self._order, reversed(ahead), strict=True):
            found = self._layer(node, position)
            if isinstance(found, Layer):
                layers.append(found)
            else:
                skipped.append(Skipped(node_label(node), node.op_type, found))
        return layers, skipped

    def _find_changed(self) -> set[ir.Value]:
        """Values that are not just what is left of the original's.

        Those are all that lie behind an operator that summed over dropped channels.
        """
        lost = {
            node
            for node, index, axis in self._classes.channels.consumers
            if (value := node.inputs[index]) is not None
            and kept_channels(self._classes, value, axis, self._dropped) is not None
        }
        changed: set[ir.Value] = set()
        for node in self._nodes:
            if self._original[node] in lost or any(v in changed for v in reads(node)):
                changed |= set(node.outputs)
        return changed

    def _is_refitted(self, node: ir.Node) -> bool:
        return (
            node.op_type in WEIGHTED
            and node.domain in ("", "ai.onnx")
            and node.outputs[0] in self._changed
        )

    def _in_order(self) -> list[ir.Node]:
        """Graph order, but what ends in a sum beside a wider layer goes before that one."""
        order = list(self._refitted)
        last = self._last_refitted(self._refitted)
        for node in self._nodes:
            if node.op_type not in ("Add", "Sum") or node.domain not in ("", "ai.onnx"):
                continue
            ends = [end for v in node.inputs if (end := self._end_of(v)) is not None]
            widest = max(ends, key=lambda e: (self._width(e), self._refitted[e]), default=None)
            for end in ends:
                if widest is None or self._refitted[end] <= self._refitted[widest]:
                    continue
                source = end.inputs[0]
                if source is None or last.get(source, -1) < self._refitted[widest]:
                    order.remove(end)
                    order.insert(order.index(widest), end)
        return order

    def _end_of(self, value: ir.Value | None) -> ir.Node | None:
        """The refitted layer that a value is a linear stretch behind."""
        while value is not None and (node := value.producer()) is not None:
            if node in self._refitted:
                return node
            varying = [v for v in node.inputs if constant_array(v) is None]
            is_linear = node.op_type in ("BatchNormalization", "Identity", "Add", "Mul")
            if not is_linear or len(varying) != 1 or node.domain not in ("", "ai.onnx"):
                return None
            value = varying[0]
        return None

    def _width(self, node: ir.Node) -> int:
        """Width of a row; 0 where the weight cannot be refitted."""
        array = constant_array(node.inputs[1])
        form = None if array is None else linear_form(node, array.shape)
        return form.inputs if form is not None and is_writable(node.inputs[1]) else 0

    def _last_refitted(self, order: Mapping[ir.Node, int]) -> dict[ir.Value, int]:
        """For every value the last place, in an order, of a layer it depends on; -1 for none."""
        last: dict[ir.Value, int] = {}
        for node in self._nodes:
            behind = max((last.get(v, -1) for v in reads(node)), default=-1)
            behind = max(behind, order.get(node, -1))
            last |= dict.fromkeys(node.outputs, behind)
        return last

    def _layer(self, node: ir.Node, position: int) -> Layer | str:
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None
        assert weight is not None
        array = constant_array(weight)
        if array is None:
            return "its weight is computed while the model runs, or is its left operand"
        if array.dtype.kind != "f":
            return f"its weight is of type {array.dtype}"
        form = linear_form(node, array.shape)
        if form is None:
            return "its left operand is transposed, or its matrix has more than two axes"
        axis = 1 if node.op_type in ("Conv", "ConvTranspose") else -1
        path = _Path(node, axis, form, array)
        self._own_bias(path)
        while self._follow(path):
            pass
        original = self._original_value(path.value)
        kept = None
        if original is not None:
            rank = len(self._classes.channels.dims(original) or ())
            kept = kept_channels(
                self._classes, original, axis if axis >= 0 else rank - 1, self._dropped
            )
        fixed = None if is_writable(weight) else "its weight is shared with another node"
        source = self._original[node].inputs[0]
        assert source is not None
        kept_inputs = kept_channels(self._classes, source, 1, self._dropped) if axis == 1 else None
        return Layer(
            node=node,
            original=self._original[node],
            index=self._index[node],
            form=form,
            match=path.value,
            matched_to=path.matched_to,
            kept=kept,
            kept_inputs=kept_inputs,
            scale=path.scale,
            slot=path.slot,
            fixed=fixed,
            visible=visible(path.value),
            position=position,
        )

    def _original_value(self, value: ir.Value) -> ir.Value | None:
        producer = value.producer()
        if producer is None:
            return None
        position = list(producer.outputs).index(value)
        return self._original[producer].outputs[position]

    def _own_bias(self, path: _Path) -> None:
        """The layer's own bias, where it has or may be given one."""
        node = path.node
        if node.op_type == "MatMul":
            return
        beta = float_of(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
        bias = input_at(node, BIAS_INPUT)
        if bias is None and beta != 0.0:
            path.spare = BiasSlot(None, np.full(path.filters, beta))
        elif bias is not None and is_writable(bias) and beta != 0.0:
            array = constant_array(bias)
            if array is not None and array.size == path.filters == array.shape[-1]:
                path.slot = BiasSlot(bias, np.full(path.filters, beta))

    def _follow(self, path: _Path) -> bool:
        """Go one linear node further; False where the stretch ends."""
        value = path.value
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return False
        user, place = uses[0].node, uses[0].idx
        if user not in self._index or user.domain not in ("", "ai.onnx"):
            return False
        if user.op_type == "BatchNormalization" and place == 0:
            return path.normalise(user)
        if user.op_type == "Identity":
            path.value = user.outputs[0]
            return True
        if user.op_type in ("Add", "Mul"):
            other = user.inputs[1 - place]
            constant = constant_array(other)
            if other is not None and constant is not None:
                return path.combine(user, other, constant)
        if user.op_type in ("Add", "Sum") and self._is_last_in(user, path):
            path.value, path.matched_to = user.outputs[0], "sum"
            return True
        return False

    def _is_last_in(self, user: ir.Node, path: _Path) -> bool:
        """Whether all else that is summed is final when the layer is refitted, and as large."""
        others = [v for v in user.inputs if v is not path.value]
        if len(others) != len(user.inputs) - 1 or any(v is None for v in others):
            return False
        own = self._rank[path.node]
        if any(self._last.get(v, -1) >= own for v in others if v is not None):
            return False
        before, after = (self._dims(path.value), self._dims(user.outputs[0]))
        return before is not None and before == after

    def _dims(self, value: ir.Value) -> tuple[int | None, ...] | None:
        original = self._original_value(value)
        return None if original is None else self._classes.channels.dims(original)


class _Path:
    """The linear stretch behind a layer, as far as it was followed."""

    def __init__(self, node: ir.Node, axis: int, form: LinearForm, weight: Array) -> None:
        self.node = node
        self.axis = axis
        self.rank = weight.ndim
        self.value: ir.Value = node.outputs[0]
        self.matched_to = "own output"
        self.filters = weight.size // (form.inputs * form.groups) * form.groups
        self.scale = np.ones(self.filters)
        self.spare: BiasSlot | None = None
        self._slot: BiasSlot | None = None

    @property
    def slot(self) -> BiasSlot | None:
        """The first stored vector on the way; else one the layer can be given."""
        return self._slot or self.spare

    @slot.setter
    def slot(self, slot: BiasSlot) -> None:
        self._slot = self._slot or slot

    def normalise(self, node: ir.Node) -> bool:
        """Go behind an inference BatchNormalization."""
        statistics = [constant_array(v) for v in node.inputs[1:5]]
        if int_of(node, "training_mode", 0) or output_at(node, 1) is not None:
            return False
        if any(s is None or s.shape != (self.filters,) for s in statistics):
            return False
        gamma, _, _, variance = (np.asarray(s, dtype=np.float64) for s in statistics)
        self._multiply(gamma / np.sqrt(variance + float_of(node, "epsilon", 1e-5)))
        if is_writable(node.inputs[2]):
            self.slot = BiasSlot(node.inputs[2], np.ones(self.filters))
        self.value, self.matched_to = node.outputs[0], "normalised output"
        return True

    def combine(self, node: ir.Node, other: ir.Value, constant: Array) -> bool:
        """Go behind an Add or Mul with a constant of one number per channel, or one for all."""
        vector = self._per_channel(constant)
        if vector is None:
            return False
        if node.op_type == "Mul":
            self._multiply(vector)
        elif constant.size == self.filters and is_writable(other):
            self.slot = BiasSlot(other, np.ones(self.filters))
        self.value = node.outputs[0]
        return True

    def _multiply(self, factor: NDArray[np.float64]) -> None:
        self.scale = self.scale * factor
        if self._slot is not None:
            self._slot = BiasSlot(self._slot.value, self._slot.after * factor)
        if self.spare is not None:
            self.spare = BiasSlot(None, self.spare.after * factor)

    def _per_channel(self, constant: Array) -> NDArray[np.float64] | None:
        if constant.dtype.kind != "f":
            return None
        vector = constant.astype(np.float64).reshape(-1)
        if constant.size == 1 and constant.ndim <= 1:
            return np.full(self.filters, vector[0])
        if constant.size != self.filters:
            return None
        if self.axis == -1:
            return vector if constant.shape[-1] == self.filters else None
        place = constant.ndim - (self.rank - 1)
        is_aligned = constant.ndim <= self.rank and 0 <= place < constant.ndim
        return vector if is_aligned and constant.shape[place] == self.filters else None
