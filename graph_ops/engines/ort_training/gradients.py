"""In the child: the gradient graph, built by ONNX Runtime's own `GradientGraphBuilder`.

The wanted activations are outputs of the forward graph while the builder works, as it asks for;
afterwards the gradient of a tensor `t` is the tensor `t_grad`. Torch is never imported: the
builder is taken from the extension module itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

TOTAL = "score/total"
"""Name of the scalar that is differentiated: the sum of the losses of all samples."""


def gradient_name(tensor: str) -> str:
    """Name that the builder gives a gradient."""
    return f"{tensor}_grad"


def append_gradients(
    model: ir.Model, wanted: Sequence[str], stops: Sequence[str], builder: Any, options: Any
) -> tuple[ir.Model, dict[str, ir.Value]]:
    """A model with the gradients of the wanted tensors.

    Args:
        model: Trainable forward graph that ends in `TOTAL`; changed.
        wanted: Tensors to be differentiated.
        stops: Names of the Identity outputs through which no gradient flows.
        builder: The class GradientGraphBuilder.
        options: Session options for it.

    Returns:
        The new model, and the gradient of each wanted tensor by the tensor's name.
    """
    sources = _cut_stops(model.graph, stops)
    values = {str(v.name): v for v in model.graph.inputs}
    values |= {str(o.name): o for node in model.graph for o in node.outputs}
    outputs = [values[name] for name in (TOTAL, *wanted)]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    payload = ir.to_proto(model).SerializeToString()
    made = builder(payload, {TOTAL}, set(wanted), TOTAL, options)
    made.build()
    built = ir.from_proto(onnx.load_from_string(made.get_model()))
    graph = built.graph
    _feed_one(graph, gradient_name(TOTAL))
    _join_stops(graph, sources)
    made_values = {str(o.name): o for node in graph for o in node.outputs}
    made_values |= {str(v.name): v for v in graph.initializers.values()}
    gradients = {name: made_values[gradient_name(name)] for name in wanted}
    return built, gradients


def _cut_stops(graph: ir.Graph, stops: Sequence[str]) -> dict[str, str]:
    """Make every stopped copy a graph input; what each was copied from, by name."""
    outputs = {str(o.name): o for node in graph for o in node.outputs}
    sources: dict[str, str] = {}
    for name in stops:
        copy = outputs[name]
        node = copy.producer()
        assert node is not None
        source = node.inputs[0]
        assert source is not None
        sources[name] = str(source.name)
        free = ir.Value(name=f"{name}/cut", type=copy.type, shape=copy.shape)
        if free.type is None:
            free.type = ir.TensorType(ir.DataType.FLOAT)
        copy.replace_all_uses_with(free)
        graph.remove(node, safe=True)
        copy.name = f"{name}/gone"
        free.name = name
        graph.inputs.append(free)
    return sources


def _join_stops(graph: ir.Graph, sources: Mapping[str, str]) -> None:
    """Put the Identities back."""
    values = {str(v.name): v for v in graph.inputs}
    values |= {str(o.name): o for node in graph for o in node.outputs}
    for value in [v for v in graph.inputs if v.name in sources]:
        node = ir.node("Identity", [values[sources[str(value.name)]]])
        output = node.outputs[0]
        output.type = value.type
        value.replace_all_uses_with(output)
        graph.inputs.remove(value)
        name = str(value.name)
        value.name = f"{name}/cut"
        output.name = name
        graph.append(node)
    graph.sort()


def _feed_one(graph: ir.Graph, name: str) -> None:
    """The gradient of the total with respect to itself."""
    for value in [v for v in graph.inputs if v.name == name]:
        graph.inputs.remove(value)
        dtype = (value.dtype or ir.DataType.FLOAT).numpy()
        value.const_value = ir.tensor(np.asarray(1, dtype=dtype), name=name)
        value.shape = ir.Shape([])
        graph.initializers.add(value)
