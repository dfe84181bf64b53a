"""The model as it was uploaded: checked, normalised, with shapes.

Two normalisations only: model-local functions are inlined, and what `onnx_ir` cannot hold is put in
a form it can (sparse initializers get a dense twin; `writing.py` writes the sparse one back).
Constant nodes stay nodes.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedFunctionsPass

from graph_ops.errors import InvalidModelError, ModelTooLargeError, NotOnnxError
from graph_ops.model.archive import is_zip, unpack
from graph_ops.model.checks import (
    CONVOLUTIONS,
    KNOWN_DOMAINS,
    check_domains,
    check_has_convolution,
    check_tensors,
    check_versions,
    check_with_onnx,
    data_size_bytes,
    element_count,
)
from graph_ops.model.external import DataFolder, map_external
from graph_ops.model.guard import refusing
from graph_ops.model.limits import PROTOBUF_LIMIT_BYTES, ModelLimits
from graph_ops.model.protos import iter_graphs
from graph_ops.model.shapes import infer_shapes
from graph_ops.model.wire import parse_model

__all__ = ["CONVOLUTIONS", "SourceModel", "load_model"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceModel:
    """A validated model.

    Attributes:
        model: Functions inlined, shapes inferred. Read-only: edit `clone()`.
        sha256: Of the uploaded bytes, the `.onnx` file's or the `.zip`'s.
        size_bytes: Of the same.
        template: The protobuf the model came in, from which whatever an edit leaves alone is
            written back; its weights are the ones `model` reads.
    """

    model: ir.Model
    sha256: str
    size_bytes: int
    template: onnx.ModelProto = field(repr=False, compare=False)

    def clone(self) -> ir.Model:
        """An independently editable copy that shares the tensors' data."""
        return self.model.clone()


def load_model(
    source: str | Path | bytes | bytearray | SourceModel, *, limits: ModelLimits | None = None
) -> SourceModel:
    """A validated model from a path or bytes of an `.onnx` file or of a `.zip` with its data files.

    Args:
        source: A path (data files may lie beside an `.onnx`), the file's bytes, or a model that is
            loaded already, which is returned as it is.
        limits: Sizes above which a file is refused; the defaults when not given.

    Raises:
        ModelError: a subclass says what is wrong: not ONNX, cut short, refused by the checker,
            external data outside the folder, unknown domain or version, no convolution, a bad
            archive, too large.
    """
    if isinstance(source, SourceModel):
        return source
    limits = limits or ModelLimits()
    if isinstance(source, (bytes, bytearray)):
        return _load_bytes(bytes(source), limits)
    return _load_path(Path(source), limits)


def _load_bytes(data: bytes, limits: ModelLimits) -> SourceModel:
    _check_size(len(data), limits)
    digest = hashlib.sha256(data).hexdigest()
    if is_zip(data[:4]):
        return _load_archive(data, digest, len(data), limits)
    return _build(data, DataFolder(None), digest, len(data))


def _load_path(path: Path, limits: ModelLimits) -> SourceModel:
    try:
        size = path.stat().st_size
        _check_size(size, limits)
        hasher = hashlib.sha256()
        with path.open("rb") as file:
            head = file.read(4)
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
        if is_zip(head):
            return _load_archive(path, hasher.hexdigest(), size, limits)
        data = _read_model_file(path)
    except OSError as error:
        raise NotOnnxError(
            f"The model file {path.name!r} cannot be read: {error.strerror or error}.",
            file=path.name,
        ) from None
    return _build(data, DataFolder(path.parent), hasher.hexdigest(), size)


def _load_archive(
    source: Path | bytes, digest: str, size_bytes: int, limits: ModelLimits
) -> SourceModel:
    with tempfile.TemporaryDirectory(prefix="onnx-model-") as folder:
        path = unpack(source, Path(folder), limits)
        return _build(_read_model_file(path), DataFolder(path.parent), digest, size_bytes)


def _check_size(size: int, limits: ModelLimits) -> None:
    if size > limits.max_bytes:
        raise ModelTooLargeError(
            f"The model file has {size} bytes; at most {limits.max_bytes} are allowed.",
            found=size,
            limit=limits.max_bytes,
        )


def _read_model_file(path: Path) -> bytes:
    size = path.stat().st_size
    if size > PROTOBUF_LIMIT_BYTES:
        raise ModelTooLargeError(
            f"{path.name!r} has {size} bytes, more than one ONNX file can hold; store the weights"
            " as external data and send a .zip of both.",
            found=size,
            limit=PROTOBUF_LIMIT_BYTES,
        )
    return path.read_bytes()


def _build(data: bytes, folder: DataFolder, digest: str, size_bytes: int) -> SourceModel:
    proto = parse_model(data)
    with refusing("The model cannot be read"):
        check_versions(proto)
        check_tensors(proto)
        check_domains(proto)
        mapped = map_external(proto, folder)
        check_with_onnx(proto)
        check_has_convolution(proto)
        model = _deserialize(proto, mapped)
        if proto.functions:
            _inline_functions(model, proto)
        infer_shapes(model)
        model.clone()  # a graph that cannot be copied cannot be worked on: refuse it here
    return SourceModel(model, digest, size_bytes, proto)


def _deserialize(proto: onnx.ModelProto, mapped: dict[str, ir.TensorProtocol]) -> ir.Model:
    dense = _add_dense_twins(proto.graph)
    try:
        model = ir.serde.deserialize_model(proto)
    finally:
        del proto.graph.initializer[len(proto.graph.initializer) - dense :]
    for name, tensor in mapped.items():
        model.graph.initializers[name].const_value = tensor
    if "" not in model.opset_imports:
        model.opset_imports[""] = model.opset_imports.pop("ai.onnx")
    return model


def _add_dense_twins(graph: onnx.GraphProto) -> int:
    """Appends a dense initializer for each sparse one of the main graph; returns how many.

    Sparse indices are linear ([NNZ]) or one row of coordinates per value ([NNZ, rank]).
    """
    if any(inner.sparse_initializer for inner in list(iter_graphs(graph))[1:]):
        raise InvalidModelError("A subgraph has sparse initializers; store them dense.")
    for sparse in graph.sparse_initializer:
        dims = list(sparse.dims)
        name = sparse.values.name
        size = data_size_bytes(onnx.TensorProto(dims=dims, data_type=sparse.values.data_type))
        if size > PROTOBUF_LIMIT_BYTES:
            raise ModelTooLargeError(
                f"Sparse initializer {name!r} of dims {dims} is over {PROTOBUF_LIMIT_BYTES} bytes.",
                tensor=name,
                limit=PROTOBUF_LIMIT_BYTES,
            )
        values = onnx.numpy_helper.to_array(sparse.values)
        indices = onnx.numpy_helper.to_array(sparse.indices)
        if indices.ndim == 2:
            indices = np.ravel_multi_index(tuple(indices.T), tuple(dims))
        dense = np.zeros(element_count(dims), dtype=values.dtype)
        dense[indices] = values
        graph.initializer.append(onnx.numpy_helper.from_array(dense.reshape(dims), name))
    return len(graph.sparse_initializer)


def _inline_functions(model: ir.Model, template: onnx.ModelProto) -> None:
    """Inlines in the model, and takes the calls and definitions out of the template."""
    functions = {(f.domain, f.name, f.overload) for f in template.functions}
    InlinePass()(model)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    if model.functions:
        names = ", ".join(name for _, name, _ in model.functions)
        raise InvalidModelError(f"The functions {names} cannot be inlined.")
    for graph in list(iter_graphs(template.graph)):
        for index in reversed(range(len(graph.node))):
            node = graph.node[index]
            if (node.domain, node.op_type, node.overload) in functions:
                del graph.node[index]
    template.ClearField("functions")
    kept = {o.domain for o in template.opset_import if o.domain in KNOWN_DOMAINS}
    for index in reversed(range(len(template.opset_import))):
        if template.opset_import[index].domain not in KNOWN_DOMAINS:
            del template.opset_import[index]
    for domain, version in list(model.opset_imports.items()):
        if domain not in KNOWN_DOMAINS:
            del model.opset_imports[domain]
        elif domain not in kept and not (domain == "" and "ai.onnx" in kept):
            template.opset_import.add(domain=domain, version=version)
