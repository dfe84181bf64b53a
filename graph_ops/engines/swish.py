"""x·σ(x) as one operator while it is differentiated.

ONNX writes it as Sigmoid and Mul before opset 24. Differentiated one after the other, the product
rule makes two gradients of x and adds them: six passes over memory, where the derivative of the
whole, σ + y·(1 − σ), takes four.
"""

from __future__ import annotations

import onnx_ir as ir

from graph_ops.graph import take_place


def fuse_swish(model: ir.Model) -> list[ir.Node]:
    """Write every x·σ(x) whose σ(x) nothing else reads as Swish, in place.

    Returns:
        The new nodes, for `expand_swish`.
    """
    graph = model.graph
    fused = []
    for node in list(graph):
        sigmoid = _sigmoid_of_other(node)
        if sigmoid is None:
            continue
        swish = ir.node("Swish", [sigmoid.inputs[0]], name=node.name)
        _replace(graph, node, swish)
        graph.remove(sigmoid, safe=True)
        fused.append(swish)
    return fused


def expand_swish(model: ir.Model, fused: list[ir.Node]) -> None:
    """Write them as Sigmoid and Mul again: no runtime has to know the operator."""
    for node in fused:
        x = node.inputs[0]
        sigmoid = ir.node("Sigmoid", [x], name=f"{node.outputs[0].name}/sigmoid")
        sigmoid.outputs[0].name = sigmoid.name
        model.graph.insert_before(node, sigmoid)
        _replace(model.graph, node, ir.node("Mul", [x, sigmoid.outputs[0]], name=node.name))


def _sigmoid_of_other(node: ir.Node) -> ir.Node | None:
    """The Sigmoid of one factor that a Mul multiplies by that factor."""
    if node.op_type != "Mul" or node.domain not in ("", "ai.onnx"):
        return None
    for gate, x in (tuple(node.inputs), tuple(reversed(node.inputs))):
        producer = None if gate is None else gate.producer()
        if gate is None or producer is None or producer.op_type != "Sigmoid":
            continue
        if producer.inputs[0] is x and len(gate.uses()) == 1 and not gate.is_graph_output():
            return producer
    return None


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a node in another's place; its output keeps name, shape and type."""
    graph.insert_before(old, new)
    take_place(new.outputs[0], old.outputs[0])
    graph.remove(old, safe=True)
