"""Shapes and constants of working copies.

Both work on any `onnx_ir` model; shape inference is `onnx`'s own (with data propagation), given a
copy of the graph without the big weights, so that a model of any size fits through it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from graph_ops.model.guard import refusing
from graph_ops.model.protos import BIG_TENSOR_BYTES, add_tensor_input

_MAX_LIFTED_ELEMENTS = 2**29


def infer_shapes(model: ir.Model) -> None:
    """Infers types and shapes of every value, in place; known ones that cannot be inferred stay.

    The batch axis may be symbolic or fixed: symbolic dims keep their names through the graph.

    Raises:
        InvalidModelError: the operators' shapes contradict each other.
    """
    with refusing("Shape inference fails"):
        inferred_model = ir.serde.deserialize_model(_inferred(_without_big_constants(model)))
        for graph, source in zip(model.graphs(), inferred_model.graphs(), strict=True):
            known = ir.convenience.create_value_mapping(source, include_subgraphs=False)
            values = ir.convenience.create_value_mapping(graph, include_subgraphs=False)
            for name, value in values.items():
                found = known.get(name)
                if found is None:
                    continue
                if found.type is not None:
                    value.type = found.type
                if found.shape is not None:
                    value.shape = found.shape


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What `onnx` infers of a model.

    Its propagation of data holds stored numbers of two axes to be a shape and calls them
    contradictory where they are only broadcast ([7, 1] + [10], for instance). So what it refuses is
    refused if it contradicts itself without data as well, and otherwise read as far as it goes.
    """

    def infer(*, is_strict: bool, with_data: bool) -> onnx.ModelProto:
        return onnx.shape_inference.infer_shapes(
            proto, check_type=True, strict_mode=is_strict, data_prop=with_data
        )

    try:
        return infer(is_strict=True, with_data=True)
    except onnx.shape_inference.InferenceError:
        infer(is_strict=True, with_data=False)
        return infer(is_strict=False, with_data=True)


def lift_constants(model: ir.Model) -> None:
    """Turns constants written as nodes into initializers, in place, on a working copy.

    Constant nodes of every kind, and ConstantOfShape nodes whose shape is stored (how old exporters
    write weights). Those that are graph outputs stay.

    Raises:
        InvalidModelError: a constant's shape or value is malformed.
    """
    with refusing("The model's constants cannot be read"):
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        for node in list(model.graph):
            if node.op_type == "ConstantOfShape" and node.domain == "":
                _lift_constant_of_shape(node, model.graph)


def _lift_constant_of_shape(node: ir.Node, graph: ir.Graph) -> None:
    output, shape = node.outputs[0], node.inputs[0]
    if shape is None or not shape.is_initializer() or output.is_graph_output():
        return
    if shape.const_value is None:
        return
    dims = [int(dim) for dim in shape.const_value.numpy()]
    if math.prod(dims) > _MAX_LIFTED_ELEMENTS:
        return
    fill = node.attributes.get("value")
    scalar = np.float32(0) if fill is None else fill.as_tensor().numpy().reshape(())[()]
    tensor = ir.Tensor(np.full(dims, scalar), name=output.name)
    weight = ir.Value(
        name=output.name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(dims),
        const_value=tensor,
    )
    output.replace_all_uses_with(weight)
    graph.remove(node, safe=True)
    graph.register_initializer(weight)


def _without_big_constants(model: ir.Model) -> onnx.ModelProto:
    """A protobuf of the model in which big initializers and constants are graph inputs.

    Built element by element, because `ir.to_proto` would copy every weight and renames tensors that
    working copies share with their source.
    """
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    inputs = {value.name for value in model.graph.inputs}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes <= BIG_TENSOR_BYTES:
            small = graph.initializer.add()
            ir.serde.serialize_tensor_into(small, tensor)
            small.name = name
        elif name not in inputs:
            _hide(graph, name, value if tensor is None else tensor)
    for node in model.graph:
        fill = node.attributes.get("value") if node.op_type == "Constant" else None
        tensor = None if fill is None or fill.is_ref() else fill.as_tensor()
        if tensor is not None and tensor.nbytes > BIG_TENSOR_BYTES:
            _hide(graph, node.outputs[0].name or "", tensor)
            continue
        graph.node.append(ir.serde.serialize_node(node))
        for output in node.outputs:
            if output.name and output.type is not None and not output.is_graph_output():
                ir.serde.serialize_value_into(graph.value_info.add(), output)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(graph.output.add(), value)
    return proto


def _hide(graph: onnx.GraphProto, name: str, tensor: ir.TensorProtocol | ir.Value) -> None:
    dims = [] if tensor.shape is None else [dim for dim in tensor.shape if isinstance(dim, int)]
    data_type = ir.DataType.FLOAT if tensor.dtype is None else tensor.dtype
    add_tensor_input(graph, name, data_type.value, dims)
