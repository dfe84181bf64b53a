"""What is refused before a model is used: versions, domains, malformed tensors, `onnx.checker`.

The tensor checks come first because native code trusts them: a tensor whose data is shorter than
its dims say, a negative or an overflowing dim would be read past its end.
"""

from __future__ import annotations

import math
import re
from collections import Counter

import onnx
import onnx_ir as ir

from graph_ops.errors import (
    InvalidModelError,
    NoConvolutionError,
    UnknownDomainError,
    UnsupportedVersionError,
)
from graph_ops.model.guard import refusing
from graph_ops.model.protos import iter_graphs, iter_nodes, iter_tensors, node_label, skeleton

MIN_IR_VERSION = 3
MIN_OPSET = 7
DEFAULT_DOMAINS = ("", "ai.onnx")
KNOWN_DOMAINS = frozenset({*DEFAULT_DOMAINS, "ai.onnx.ml", "com.microsoft"})
"""Domains whose operators ONNX Runtime registers (its docs/ContribOperators.md)."""
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
MAX_TENSOR_ELEMENTS = 2**40

_DATA_FIELDS: dict[str, frozenset[str]] = {
    "float_data": frozenset({"FLOAT", "COMPLEX64"}),
    "double_data": frozenset({"DOUBLE", "COMPLEX128"}),
    "int64_data": frozenset({"INT64"}),
    "uint64_data": frozenset({"UINT64", "UINT32"}),
    "string_data": frozenset({"STRING"}),
}
_NODES_IN_MESSAGES = (
    re.compile(r"\bName: (?P<name>[^\n]*?) OpType: (?P<op_type>\w+)"),
    re.compile(r"\(op_type:(?P<op_type>\w+), node name: (?P<name>[^\n]*?)\)"),
)


def check_versions(model: onnx.ModelProto) -> None:
    """Refuses IR and opset versions that the installed `onnx` or this library does not know.

    Raises:
        UnsupportedVersionError: with the version found and the versions supported.
        InvalidModelError: no opset, or two, for the default domain.
    """
    if not MIN_IR_VERSION <= model.ir_version <= onnx.IR_VERSION:
        raise UnsupportedVersionError(
            f"The model has IR version {model.ir_version}; supported are {MIN_IR_VERSION} to"
            f" {onnx.IR_VERSION}. Export it again with a supported version.",
            found=model.ir_version,
            supported=[MIN_IR_VERSION, onnx.IR_VERSION],
        )
    versions = [o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS]
    newest = onnx.defs.onnx_opset_version()
    if len(versions) != 1:
        raise InvalidModelError(
            f"The model must import exactly one opset of the default domain; it imports"
            f" {len(versions)}.",
            field="opset_import",
            found=versions,
        )
    if not MIN_OPSET <= versions[0] <= newest:
        raise UnsupportedVersionError(
            f"The model uses opset {versions[0]}; supported are {MIN_OPSET} to {newest}. Convert it"
            " with onnx.version_converter or export it again.",
            found=versions[0],
            supported=[MIN_OPSET, newest],
        )


def check_domains(model: onnx.ModelProto) -> None:
    """Refuses operators of domains ONNX Runtime does not know; model-local functions are fine.

    Raises:
        UnknownDomainError: names the first such node, its type and its domain.
    """
    functions = {(f.domain, f.name, f.overload) for f in model.functions}
    for node in iter_nodes(model):
        known = node.domain in KNOWN_DOMAINS
        if not known and (node.domain, node.op_type, node.overload) not in functions:
            raise UnknownDomainError(
                f"{node_label(node)} is of domain {node.domain!r}, which ONNX Runtime does not"
                " know; export it with standard operators, or with the function's definition.",
                node=node.name,
                op_type=node.op_type,
                domain=node.domain,
            )


def check_has_convolution(model: onnx.ModelProto) -> None:
    """Refuses a model without Conv and ConvTranspose nodes.

    Raises:
        NoConvolutionError: lists the operators that are there.
    """
    counts = Counter(node.op_type for node in iter_nodes(model))
    if not CONVOLUTIONS & counts.keys():
        found = ", ".join(name for name, _ in counts.most_common(5)) or "no operators"
        raise NoConvolutionError(
            f"The model has no Conv or ConvTranspose, so there are no filters to prune (it has"
            f" {found}).",
            operators=dict(counts),
        )


def check_tensors(model: onnx.ModelProto) -> None:
    """Refuses tensors whose type, dims and data disagree, and initializers without a unique name.

    Raises:
        InvalidModelError: names the tensor.
    """
    for graph in iter_graphs(model.graph):
        seen: set[str] = set()
        names = [t.name for t in graph.initializer]
        names += [s.values.name for s in graph.sparse_initializer]
        for name in names:
            if not name or name in seen:
                problem = "occurs twice" if name else "has no name"
                raise InvalidModelError(f"Initializer {name!r} {problem}.", tensor=name)
            seen.add(name)
    for where, tensor in iter_tensors(model):
        fault = _tensor_problem(tensor)
        if fault:
            raise InvalidModelError(
                f"The {where} is malformed: {fault}.",
                tensor=tensor.name,
                where=where,
                dims=list(tensor.dims),
            )


def element_count(dims: list[int]) -> int:
    """Number of elements of a tensor with these dims."""
    return math.prod(dims)


def data_size_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that the tensor's data takes in raw form."""
    bits = ir.DataType(tensor.data_type).bitwidth
    return -(-element_count(list(tensor.dims)) * bits // 8)


def _tensor_problem(tensor: onnx.TensorProto) -> str | None:
    """What is wrong with a tensor, or None."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        return f"its element type {tensor.data_type} is unknown"
    if dtype is ir.DataType.UNDEFINED:
        return "its element type is undefined"
    dims = list(tensor.dims)
    if any(dim < 0 for dim in dims):
        return f"it has a negative dim in {dims}"
    count = element_count(dims)
    if count > MAX_TENSOR_ELEMENTS:
        return f"its dims {dims} are too large"
    if tensor.HasField("segment"):
        return "it is a segment of a tensor"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return "strings cannot be external data" if dtype is ir.DataType.STRING else None
    return _data_problem(tensor, dtype, count)


def _data_problem(tensor: onnx.TensorProto, dtype: ir.DataType, count: int) -> str | None:
    dims = list(tensor.dims)
    expected_field = next(
        (field for field, names in _DATA_FIELDS.items() if dtype.name in names), "int32_data"
    )
    for field in (*_DATA_FIELDS, "int32_data"):
        if field != expected_field and len(getattr(tensor, field)):
            return f"{dtype.name} data cannot be in {field}"
    found = len(getattr(tensor, expected_field))
    if tensor.HasField("raw_data"):
        if dtype is ir.DataType.STRING or found:
            return f"it has raw_data next to {expected_field}"
        size = data_size_bytes(tensor)
        if len(tensor.raw_data) != size:
            return f"its dims {dims} need {size} bytes, its data has {len(tensor.raw_data)}"
        return None
    if dtype is ir.DataType.STRING or dtype.bitwidth in (8, 16, 32, 64, 128):
        per_element = 2 if dtype.name.startswith("COMPLEX") else 1
        allowed = {count * per_element}
    else:  # sub-byte types: packed in bytes, or (float6) one value each
        allowed = {data_size_bytes(tensor), count}
    if found not in allowed:
        return f"its dims {dims} need {max(allowed)} values, its data has {found}"
    return None


def check_with_onnx(model: onnx.ModelProto) -> None:
    """Runs `onnx.checker`, full check included, without the big tensors.

    Raises:
        InvalidModelError: with the checker's words, and the node they name.
    """
    with refusing("The model cannot be checked"):
        small = skeleton(model)
        try:
            onnx.checker.check_model(small, full_check=True)
            for sparse in model.graph.sparse_initializer:
                onnx.checker.check_sparse_tensor(sparse)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            text = " ".join(str(error).split())
            matches = (pattern.search(str(error)) for pattern in _NODES_IN_MESSAGES)
            match = next((m for m in matches if m), None)
            raise InvalidModelError(
                f"onnx.checker refuses the model: {text[:1000]}",
                node=match["name"] if match else None,
                op_type=match["op_type"] if match else None,
            ) from None
