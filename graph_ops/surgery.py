"""Surgery: drop channel classes from stored tensors, attributes and shapes.

1. Every stored tensor loses, on every labelled axis, the indices of dropped classes.
2. Every recorded edit rewrites the count or position it stands for.
3. Every value's known shape follows.
4. What only such an edit's node read, and nothing reads any more, is removed.

Nothing else is touched. The analysed model is not changed; a copy is cut.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from graph_ops.channel_classes import ChannelClasses
from graph_ops.channels import Labels
from graph_ops.collector import without_collector
from graph_ops.edits import set_constant_input
from graph_ops.errors import SurgeryError
from graph_ops.graph import constant_array, is_root_constant


@without_collector
def cut(classes: ChannelClasses, dropped: NDArray[np.bool_]) -> ir.Model:
    """A copy of the analysed model without the dropped classes.

    Args:
        classes: The channel classes of the model.
        dropped: [classes] which of them go.

    Raises:
        SurgeryError: a dropped class is frozen, nothing would be left of an axis, or the groups
            of a grouped convolution would differ in width.
    """
    if (dropped & classes.is_frozen).any():
        frozen = int(np.flatnonzero(dropped & classes.is_frozen)[0])
        raise SurgeryError(
            f"Channel class {frozen} cannot be dropped: {classes.reason(frozen)}.", channel=frozen
        )
    if not classes.balances.hold(dropped):
        raise SurgeryError("The groups of a grouped convolution would differ in width.")
    original = classes.channels.model
    model = original.clone()
    counterpart = dict(zip(original.graph, model.graph, strict=True))
    values = _values_by_name(model)

    def keep(labels: Labels) -> NDArray[np.bool_]:
        return classes.kept(labels, dropped)

    for value, axes in classes.channels.labelled_values():
        kept = [None if labels is None else keep(labels) for labels in axes]
        if all(k is None or k.all() for k in kept):
            continue
        if any(k is not None and not k.any() for k in kept):
            raise SurgeryError(
                f"Nothing would be left of tensor {value.name!r}.", tensor=value.name
            )
        copy = values[str(value.name)]
        if is_root_constant(copy):
            _shrink(copy, kept)
        _follow_shape(copy, kept)
    for edit in classes.channels.edits:
        edit.apply(counterpart[edit.node], keep)
    _remove_unread(model.graph, counterpart)
    return model


def _remove_unread(graph: ir.Graph, counterpart: dict[ir.Node, ir.Node]) -> None:
    """Remove nodes whose results were read before the edits, and are no more."""
    for node, copy in reversed(counterpart.items()):
        was_read = any(output.uses() for output in node.outputs)
        is_read = any(output.uses() or output.is_graph_output() for output in copy.outputs)
        if was_read and not is_read:
            graph.remove(copy, safe=True)


def _values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    values = {str(v.name): v for v in model.graph.inputs}
    values |= {str(v.name): v for v in model.graph.initializers.values()}
    values |= {str(o.name): o for node in model.graph for o in node.outputs}
    return values


def _shrink(value: ir.Value, kept: list[NDArray[np.bool_] | None]) -> None:
    """Delete indices from a stored tensor, in the form in which it is stored."""
    producer = value.producer()
    if producer is not None and producer.op_type == "ConstantOfShape":
        shape = constant_array(producer.inputs[0])
        assert shape is not None
        sizes = [d if k is None else int(k.sum()) for d, k in zip(shape, kept, strict=True)]
        set_constant_input(producer, 0, np.asarray(sizes, dtype=np.int64))
        return
    array = constant_array(value)
    assert array is not None
    for axis, mask in enumerate(kept):
        if mask is not None and not mask.all():
            array = np.compress(mask, array, axis=axis)
    array = np.ascontiguousarray(array)
    if producer is None:
        old = value.const_value
        value.const_value = ir.tensor(
            array, name=value.name, doc_string=None if old is None else old.doc_string
        )
        return
    for name in ("value_ints", "value_floats", "value_int", "value_float"):
        producer.attributes.pop(name, None)
    producer.attributes["value"] = ir.AttrTensor("value", ir.tensor(array))


def _follow_shape(value: ir.Value, kept: list[NDArray[np.bool_] | None]) -> None:
    if value.shape is None or len(value.shape) != len(kept):
        return
    dims = list(value.shape)
    for axis, mask in enumerate(kept):
        if mask is not None:
            dims[axis] = int(mask.sum())
    value.shape = ir.Shape(dims)
