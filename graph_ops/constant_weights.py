"""Weights computed from stored tensors alone are stored, where the computing mixes channels.

Weight standardisation (NFNet, BiT) and the like subtract means and divide by norms over a filter's
inputs at run time. Dropping an input would change those; the result, which is the same in every
run, loses its column like any other weight. So it is computed once, by ONNX Runtime, and stored.
What works element by element stays as it is: channels are followed through it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graph_ops.graph import is_root_constant, stored_value
from graph_ops.runtime import Session

MIXING = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "Einsum",
        "Gemm",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MatMul",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
    }
)
"""Operators whose every result depends on many elements along an axis."""


def store_computed_weights(model: ir.Model) -> None:
    """Store what mixing operators make of stored tensors, in place."""
    graph = model.graph
    constants: set[ir.Value] = set()
    mixed: set[ir.Value] = set()
    chain: list[ir.Node] = []
    for node in graph:
        inputs = [v for v in node.inputs if v is not None]
        has_graph = any(a.type == ir.AttributeType.GRAPH for a in node.attributes.values())
        is_default = node.domain in ("", "ai.onnx") and not node.op_type.startswith("Random")
        if not inputs or has_graph or not is_default:
            continue
        if all(v in constants or is_root_constant(v) for v in inputs):
            chain.append(node)
            constants |= set(node.outputs)
            if node.op_type in MIXING or any(v in mixed for v in inputs):
                mixed |= set(node.outputs)
    members = set(chain)
    wanted = [
        output
        for node in chain
        for output in node.outputs
        if output in mixed
        and not output.is_graph_output()
        and any(use.node not in members for use in output.uses())
    ]
    if not wanted:
        return
    for value, array in zip(wanted, _computed(model, chain, wanted), strict=True):
        stored = stored_value(f"{value.name}/stored", array)
        graph.initializers.add(stored)
        value.replace_all_uses_with(stored)
    for node in reversed(chain):
        if not any(o.uses() or o.is_graph_output() for o in node.outputs):
            graph.remove(node, safe=True)


def _computed(model: ir.Model, chain: list[ir.Node], wanted: list[ir.Value]) -> list[np.ndarray]:
    """The values, from a model of their own that has no inputs."""
    copy = model.clone()
    pairs = dict(zip(model.graph, copy.graph, strict=True))
    kept = {pairs[node] for node in chain}
    outputs = {str(o.name): o for node in kept for o in node.outputs if o.name}
    copy.graph.outputs[:] = [outputs[str(value.name)] for value in wanted]
    for node in reversed(list(copy.graph)):
        if node not in kept and not is_root_constant(node.outputs[0]):
            for output in node.outputs:
                for user, index in list(output.uses()):
                    user.replace_input_with(index, None)
            copy.graph.remove(node, safe=True)
    for value in [v for v in copy.graph.inputs if not v.is_initializer()]:
        copy.graph.inputs.remove(value)
    used = {v for node in copy.graph for v in node.inputs}
    for name, value in list(copy.graph.initializers.items()):
        if value not in used and not value.is_graph_input():
            del copy.graph.initializers[name]
    found = Session(copy, keep_memory=False).run({}, [str(value.name) for value in wanted])
    return [np.asarray(array) for array in found]
