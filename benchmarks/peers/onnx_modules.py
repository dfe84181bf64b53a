"""A PyTorch module made from an ONNX graph, and the graph with the module's weights again.

Only operators of plain classifiers. It runs in Torch-Pruning's environment.
"""

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

LAYERS = ("Conv", "BatchNormalization", "Gemm")


class GraphModule(nn.Module):
    """Runs the nodes of a graph in order; a final Softmax is left out.

    Attributes:
        layers: Modules by output name of their node, with dots replaced.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.nodes = list(model.graph.node)
        if self.nodes[-1].op_type == "Softmax":
            self.nodes.pop()
        self.input_name = model.graph.input[0].name
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.layers = nn.ModuleDict()
        for node in self.nodes:
            if node.op_type in LAYERS:
                self.layers[key_of(node)] = self._layer(node)

    def _layer(self, node: onnx.NodeProto) -> nn.Module:
        given = attributes(node)
        arrays = [torch.from_numpy(self.constants[n].copy()) for n in node.input[1:]]
        if node.op_type == "BatchNormalization":
            layer: nn.Module = nn.BatchNorm2d(len(arrays[0]), eps=given.get("epsilon", 1e-5))
            names = ("weight", "bias", "running_mean", "running_var")
            layer.load_state_dict(dict(zip(names, arrays, strict=True)), strict=False)
            return layer
        weight, has_bias = arrays[0], len(arrays) > 1
        if node.op_type == "Gemm":
            weight = weight if given.get("transB", 0) else weight.T.contiguous()
            layer = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
        else:
            pads, groups = given.get("pads", [0, 0, 0, 0]), given.get("group", 1)
            if pads[:2] != pads[2:]:
                raise ValueError(f"asymmetric padding {pads}")
            layer = nn.Conv2d(
                weight.shape[1] * groups,
                weight.shape[0],
                tuple(weight.shape[2:]),
                tuple(given.get("strides", [1, 1])),
                tuple(pads[:2]),
                tuple(given.get("dilations", [1, 1])),
                groups,
                bias=has_bias,
            )
        layer.load_state_dict({"weight": weight, **({"bias": arrays[1]} if has_bias else {})})
        return layer

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to logits [N, classes]."""
        values = {self.input_name: x}
        for node in self.nodes:
            if node.op_type in LAYERS:
                result = self.layers[key_of(node)](values[node.input[0]])
            else:
                result = self._apply(node, [values[n] for n in node.input if n in values])
            values[node.output[0]] = result
        return result

    def _apply(self, node: onnx.NodeProto, inputs: list[Tensor]) -> Tensor:
        given, first = attributes(node), inputs[0]
        match node.op_type:
            case "Relu":
                return functional.relu(first)
            case "Sigmoid":
                return torch.sigmoid(first)
            case "Identity":
                return first
            case "Clip":
                low, high = (float(self.constants[n]) for n in node.input[1:3])
                return torch.clamp(first, low, high)
            case "Add":
                return inputs[0] + inputs[1]
            case "Mul":
                return inputs[0] * inputs[1]
            case "Concat":
                return torch.cat(inputs, given["axis"])
            case "Flatten":
                return torch.flatten(first, given.get("axis", 1))
            case "GlobalAveragePool":
                return functional.adaptive_avg_pool2d(first, 1)
            case "MaxPool" | "AveragePool":
                pads = given.get("pads", [0, 0, 0, 0])
                if pads[:2] != pads[2:] or given.get("ceil_mode", 0):
                    raise ValueError(f"{node.op_type} with pads {pads} or ceil_mode")
                pool = functional.max_pool2d
                if node.op_type == "AveragePool":
                    pool = functional.avg_pool2d
                return pool(first, given["kernel_shape"], given.get("strides"), pads[:2])
        raise ValueError(f"operator {node.op_type} has no counterpart here")

    def last_linear(self) -> nn.Module:
        """The layer that gives the classes."""
        return list(self.layers.values())[-1]


def with_plain_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every layer has initializers of its own.

    Exporters store equal weights once and pass them on through Identity, and numbers as Constant.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(result.graph.node):
        if node.op_type == "Constant":
            tensor = result.graph.initializer.add()
            tensor.CopyFrom(attributes(node)["value"])
            tensor.name = node.output[0]
            result.graph.node.remove(node)
        elif node.op_type == "Identity" and node.input[0] in constants:
            tensor = result.graph.initializer.add()
            tensor.CopyFrom(constants[node.input[0]])
            tensor.name = node.output[0]
            result.graph.node.remove(node)
    return result


def key_of(node: onnx.NodeProto) -> str:
    """A name for a module; PyTorch allows no dots."""
    return node.output[0].replace(".", "_")


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    """Attributes of a node as plain values."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def with_weights(model: onnx.ModelProto, module: GraphModule) -> onnx.ModelProto:
    """The graph with the weights and groups that the module has now."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    arrays = {}
    for node in result.graph.node:
        if node.op_type not in LAYERS:
            continue
        layer = module.layers[key_of(node)]
        tensors = [layer.weight, layer.bias]
        if node.op_type == "BatchNormalization":
            tensors += [layer.running_mean, layer.running_var]
        if node.op_type == "Gemm" and not attributes(node).get("transB", 0):
            tensors[0] = tensors[0].T
        for name, tensor in zip(node.input[1:], tensors, strict=False):
            arrays[name] = tensor.detach().numpy().copy()
        for attribute in node.attribute:
            if node.op_type == "Conv" and attribute.name == "group":
                attribute.i = layer.groups
    for tensor in result.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    del result.graph.value_info[:]
    return result
