"""Tensors that are written as a list and read back in its order.

PyTorch exports `as_strided` that way: Reshape to one axis, and a Gather whose indices count up with
the batch. Where the tensor has its own shape again, nothing has happened to it.
"""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.channels import Channels


def tensor_read_in_order(gather: ir.Node, channels: Channels) -> ir.Value | None:
    """The tensor that a Gather restores from a list of its numbers; None where it does not."""
    output, data = gather.outputs[0], gather.inputs[0]
    producer = None if data is None else data.producer()
    if output.name not in channels.in_order or producer is None or producer.op_type != "Reshape":
        return None
    x = producer.inputs[0]
    dims = None if x is None else channels.dims(x)
    return x if dims is not None and dims == channels.dims(output) else None


def is_read_in_order(reshape: ir.Node, channels: Channels) -> bool:
    """Whether nothing but such Gathers reads what a Reshape makes."""
    value = reshape.outputs[0]
    uses = list(value.uses())
    return (
        bool(uses)
        and not value.is_graph_output()
        and all(
            use.node.op_type == "Gather"
            and use.idx == 0
            and tensor_read_in_order(use.node, channels) is not None
            for use in uses
        )
    )
