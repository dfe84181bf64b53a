"""Sessions over models whose weights are lent to the runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir

from graph_ops.graph import stored_value
from graph_ops.runtime import EXTERNAL_FROM_BYTES, Session

SIDE = 2100
"""So that one square matrix of float32 is over the bytes from which weights are lent."""


def model_with(*, unread: bool) -> ir.Model:
    """y = x·W; perhaps a second large tensor that nothing reads."""
    weight = stored_value("w", np.eye(SIDE, dtype=np.float32) * 2)
    assert weight.const_value is not None
    assert weight.const_value.nbytes >= EXTERNAL_FROM_BYTES
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None, SIDE]))
    node = ir.node("MatMul", [x, weight])
    y = node.outputs[0]
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
    initializers = [weight]
    if unread:
        initializers.append(stored_value("unread", np.ones((SIDE, SIDE), np.float32)))
    graph = ir.Graph(
        [x], [y], nodes=[node], initializers=initializers, opset_imports={"": 17}, name="g"
    )
    return ir.Model(graph, ir_version=9)


def test_large_weights_are_lent_and_give_the_same_numbers() -> None:
    x = np.arange(SIDE, dtype=np.float32)[None]
    for unread in (False, True):
        (y,) = Session(model_with(unread=unread)).run({"x": x})
        np.testing.assert_array_equal(y, 2 * x)


def test_memory_that_is_planned_serves_many_runs_at_once() -> None:
    model = model_with(unread=False)
    model.graph.inputs[0].shape = ir.Shape([1, SIDE])
    session = Session(model, threads=1, plan_memory=True)
    rows = [np.full((1, SIDE), number, dtype=np.float32) for number in range(12)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda x: session.run({"x": x})[0], rows))
    for x, y in zip(rows, found, strict=True):
        np.testing.assert_array_equal(y, 2 * x)
