"""The same network in half precision, and with QuantizeLinear and DequantizeLinear around it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def in_half_precision(model: bytes) -> bytes:
    """Weights, inputs and outputs as float16."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def quantised(model: bytes, step: float = 0.05) -> bytes:
    """Weights of convolutions as int8 with a scale per filter, their inputs as int8 with one."""
    proto = onnx.ModelProto.FromString(model)
    graph = proto.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    added = {"q_step": np.float32(step), "q_zero": np.int8(0)}
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(graph.node):
        if node.op_type == "Conv":
            weight = stored[node.input[1]]
            scale = np.abs(weight).max(axis=tuple(range(1, weight.ndim))) / 127
            shape = (-1, *[1] * (weight.ndim - 1))
            added[f"w{number}"] = np.round(weight / scale.reshape(shape)).astype(np.int8)
            added[f"s{number}"] = scale.astype(np.float32)
            added[f"z{number}"] = np.zeros(len(scale), np.int8)
            parts = [f"w{number}", f"s{number}", f"z{number}"]
            make = helper.make_node
            nodes.append(make("DequantizeLinear", parts, [f"wf{number}"], axis=0))
            x = node.input[0]
            nodes.append(make("QuantizeLinear", [x, "q_step", "q_zero"], [f"xq{number}"]))
            nodes.append(
                make("DequantizeLinear", [f"xq{number}", "q_step", "q_zero"], [f"xf{number}"])
            )
            node.input[0], node.input[1] = f"xf{number}", f"wf{number}"
        nodes.append(node)
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    for name, array in added.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    used = {i for n in graph.node for i in n.input}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())
