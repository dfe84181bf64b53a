"""Walks over a model's protobuf, and the small copy of it that native checks are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

BIG_TENSOR_BYTES = 1024
"""Larger constants are hidden from native checks: no shape is ever computed from them, and a
message must stay under 2 GB."""


def iter_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and, depth first, every graph in an attribute of one of its nodes."""
    yield graph
    for node in graph.node:
        yield from _graphs_of(node)


def iter_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the main graph, of subgraphs, and of function bodies."""
    for graph in iter_graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield node
            for graph in _graphs_of(node):
                yield from graph.node


def iter_tensors(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """Every tensor with words for where it stands."""
    graphs = list(iter_graphs(model.graph))
    for function in model.functions:
        for node in function.node:
            graphs.extend(_graphs_of(node))
    for graph in graphs:
        for tensor in graph.initializer:
            yield f"initializer {tensor.name!r}", tensor
        for sparse in graph.sparse_initializer:
            yield f"values of sparse initializer {sparse.values.name!r}", sparse.values
            yield f"indices of sparse initializer {sparse.values.name!r}", sparse.indices
    for node in iter_nodes(model):
        label = node_label(node)
        for attribute in node.attribute:
            where = f"attribute {attribute.name!r} of {label}"
            if attribute.HasField("t"):
                yield where, attribute.t
            for tensor in attribute.tensors:
                yield where, tensor


def node_label(node: onnx.NodeProto) -> str:
    """A node for a person: its type, and its name or else its first output."""
    name = node.name or next((output for output in node.output if output), "")
    return f"{node.op_type} node {name!r}"


def _graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from iter_graphs(attribute.g)
        for graph in attribute.graphs:
            yield from iter_graphs(graph)


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which big constants of the main graph are graph inputs.

    Sparse initializers too: `onnx` infers the shape of their values, not that of the tensor.
    """
    small = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name in ("graph", "training_info"):
            continue
        if field.is_repeated:
            getattr(small, field.name).MergeFrom(value)
        else:
            setattr(small, field.name, value)
    _add_skeleton_graph(small.graph, model.graph)
    return small


def _add_skeleton_graph(small: onnx.GraphProto, graph: onnx.GraphProto) -> None:
    for field, value in graph.ListFields():
        if field.name in ("initializer", "sparse_initializer", "node"):
            continue
        if field.is_repeated:
            getattr(small, field.name).MergeFrom(value)
        else:
            setattr(small, field.name, value)
    inputs = {value.name for value in graph.input}

    def hide(name: str, tensor: onnx.TensorProto) -> None:
        if name not in inputs:
            inputs.add(name)
            add_tensor_input(small, name, tensor.data_type, tensor.dims)

    for tensor in graph.initializer:
        if is_big(tensor):
            hide(tensor.name, tensor)
        else:
            small.initializer.add().CopyFrom(tensor)
    for sparse in graph.sparse_initializer:
        if sparse.values.name not in inputs:
            inputs.add(sparse.values.name)
            add_tensor_input(small, sparse.values.name, sparse.values.data_type, sparse.dims)
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.HasField("t")), None)
        if node.op_type == "Constant" and value is not None and is_big(value) and node.output:
            hide(node.output[0], value)
        else:
            small.node.add().CopyFrom(node)


def is_big(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data is hidden from native checks."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL or (
        tensor.ByteSize() > BIG_TENSOR_BYTES
    )


def add_tensor_input(
    graph: onnx.GraphProto, name: str, data_type: int, dims: Iterable[int]
) -> None:
    """Adds a graph input of the given element type and static shape."""
    info = graph.input.add()
    info.name = name
    info.type.tensor_type.elem_type = data_type
    info.type.tensor_type.shape.SetInParent()
    for dim in dims:
        info.type.tensor_type.shape.dim.add().dim_value = dim
