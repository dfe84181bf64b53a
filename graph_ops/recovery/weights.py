"""Refitted weights, kept at the shapes and in the numbering of the original network.

A network is always cut from the analysed original, in one piece. What a refit changed is laid over
the cut: every tensor is stored at its full shape, and the elements that a cut keeps are picked from
it. So another round can drop more and start from what the last one refitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.edits import set_constant_input
from graph_ops.errors import SurgeryError
from graph_ops.graph import constant_array, is_root_constant
from graph_ops.runtime import Array

BIAS_INPUT = 2
"""Where Conv, ConvTranspose and Gemm take their bias."""


@dataclass(frozen=True)
class RefittedWeights:
    """What refitting changed, as arrays that can be saved and read back.

    Attributes:
        tensors: Stored tensors of the analysed original, by name, at their full shape; elements of
            channels that were dropped hold what they held before.
        biases: [M] biases of nodes that had none, by the name of the node's first output.
    """

    tensors: Mapping[str, Array] = field(default_factory=dict)
    biases: Mapping[str, Array] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.tensors or self.biases)

    @property
    def digest(self) -> str:
        """Identifies the numbers."""
        sha256 = hashlib.sha256()
        for kind, arrays in (("tensor", self.tensors), ("bias", self.biases)):
            for name in sorted(arrays):
                sha256.update(f"{kind} {name} {arrays[name].shape}".encode())
                sha256.update(np.ascontiguousarray(arrays[name]).tobytes())
        return sha256.hexdigest()

    def lay_over(
        self, classes: ChannelClasses, dropped: NDArray[np.bool_], model: ir.Model
    ) -> None:
        """Put the refitted weights into a cut model, in place.

        Args:
            classes: Channel classes of the original.
            dropped: [classes] which were dropped from `model`.
            model: What `surgery.cut` returned for them.
        """
        if not self:
            return
        stored = stored_values(model)
        originals = stored_values(classes.channels.model)
        for name, full in self.tensors.items():
            value, mask = stored[name], kept_elements(classes, originals[name], dropped)
            old = constant_array(value)
            assert old is not None
            store(value, full[mask].reshape(old.shape))
        nodes = {str(n.outputs[0].name): n for n in model.graph}
        pairs = {str(n.outputs[0].name): n for n in classes.channels.model.graph}
        for name, bias in self.biases.items():
            kept = kept_channels(classes, pairs[name].outputs[0], 1, dropped)
            set_constant_input(nodes[name], BIAS_INPUT, bias if kept is None else bias[kept])

    def updated(
        self,
        classes: ChannelClasses,
        dropped: NDArray[np.bool_],
        model: ir.Model,
        tensors: Iterable[str],
        biases: Iterable[str],
    ) -> RefittedWeights:
        """These weights with what was refitted in a cut model.

        Args:
            classes: Channel classes of the original.
            dropped: [classes] which were dropped from `model`.
            model: The cut model, its weights refitted in place.
            tensors: Names of the stored tensors that changed.
            biases: First outputs of nodes that were given a bias they did not have.
        """
        originals, stored = stored_values(classes.channels.model), stored_values(model)
        full_tensors, full_biases = dict(self.tensors), dict(self.biases)
        for name in tensors:
            base = full_tensors.get(name)
            found = constant_array(originals[name]) if base is None else base
            new = constant_array(stored[name])
            assert found is not None
            assert new is not None
            full = np.array(found)
            full[kept_elements(classes, originals[name], dropped)] = new.reshape(-1)
            full_tensors[name] = full
        nodes = {str(n.outputs[0].name): n for n in model.graph}
        pairs = {str(n.outputs[0].name): n for n in classes.channels.model.graph}
        for name in biases:
            new = constant_array(nodes[name].inputs[BIAS_INPUT])
            assert new is not None
            kept = kept_channels(classes, pairs[name].outputs[0], 1, dropped)
            if kept is None:
                full_biases[name] = np.array(new)
                continue
            full = np.array(full_biases.get(name, np.zeros(kept.size, dtype=new.dtype)))
            full[kept] = new
            full_biases[name] = full
        return RefittedWeights(full_tensors, full_biases)


def stored_values(model: ir.Model) -> dict[str, ir.Value]:
    """Every stored tensor of the main graph by name: initializers and outputs of Constant nodes."""
    values = {str(v.name): v for v in model.graph.initializers.values()}
    values |= {str(o.name): o for n in model.graph for o in n.outputs if is_root_constant(o)}
    return values


def is_writable(value: ir.Value | None) -> bool:
    """Whether a stored tensor belongs to one reader and can be given other numbers."""
    if value is None or not is_root_constant(value) or value.is_graph_output():
        return False
    producer = value.producer()
    is_filled = producer is not None and producer.op_type == "ConstantOfShape"
    return len(value.uses()) == 1 and not is_filled


def store(value: ir.Value, array: Array) -> None:
    """Give a stored tensor other numbers of the same shape and type.

    Raises:
        SurgeryError: its form cannot hold them.
    """
    old = constant_array(value)
    producer = value.producer()
    if old is None or old.shape != array.shape or not is_writable(value):
        raise SurgeryError(f"Tensor {value.name!r} cannot be rewritten.", tensor=value.name)
    array = np.ascontiguousarray(array.astype(old.dtype, copy=False)).reshape(old.shape)
    if producer is None:
        before = value.const_value
        value.const_value = ir.tensor(
            array, name=value.name, doc_string=None if before is None else before.doc_string
        )
        return
    for name in ("value_floats", "value_float"):
        producer.attributes.pop(name, None)
    producer.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))


def kept_channels(
    classes: ChannelClasses, value: ir.Value, axis: int, dropped: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """[C] which indices of an axis stay; None where all do."""
    labels = classes.channels.axis(value, axis)
    if labels is None:
        return None
    kept = classes.kept(labels, dropped)
    return None if kept.all() else kept


def kept_elements(
    classes: ChannelClasses, value: ir.Value, dropped: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Mask of a stored tensor's full shape: the elements that a cut keeps."""
    dims = classes.channels.dims(value) or ()
    shape = tuple(int(d or 0) for d in dims)
    mask = np.ones(shape, dtype=np.bool_)
    for axis in range(len(shape)):
        kept = kept_channels(classes, value, axis, dropped)
        if kept is not None:
            mask &= kept.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    if value in classes.channels.narrowed:
        labels, groups = classes.channels.narrowed[value]
        columns = classes.kept(labels, dropped).reshape(groups, 1, -1)
        blocks = mask.reshape(groups, shape[0] // groups, *shape[1:])
        blocks &= columns.reshape(groups, 1, shape[1], *[1] * (len(shape) - 2))
    return mask
