"""A scoring graph for batches of one size."""

from __future__ import annotations

import onnx_ir as ir


def fixes_batch_size(model: ir.Model) -> bool:
    """Whether the model runs with one number of samples only."""
    shapes = [value.shape for value in model.graph.inputs]
    return any(s is not None and s.rank() > 0 and s.is_static(0) for s in shapes)


def with_batch_size(model: ir.Model, rows: int) -> ir.Model:
    """A copy whose inputs have so many rows where their first axis is open.

    Shapes inside the graph that are not fixed are left to the runtime to infer.

    Args:
        model: A graph whose inputs have the batch as their first axis.
        rows: Samples in a batch.
    """
    copy = model.clone()
    for value in copy.graph.inputs:
        if value.shape is not None and value.shape.rank() and not value.shape.is_static(0):
            value.shape = ir.Shape([rows, *value.shape.dims[1:]])
    for node in copy.graph:
        for output in node.outputs:
            if output.shape is not None and not output.shape.is_static():
                output.shape = None
    return copy
