"""Writing a model: whatever the surgery left alone comes back as it came in.

`onnx_ir` reads more than it writes back the same way: it gives every value a `value_info` entry,
sorts metadata, stores data as `raw_data`, strips trailing empty outputs. So the source's own
protobuf is the template, and each part of the edited graph is compared with the same part of the
source graph:

* a node, attribute, tensor or entry that is the same in both is copied from the template;
* one that differs is written from the edited graph;
* one that is gone is left out, and a new one is added (after the old ones, nodes in graph order).

Parts are matched by value name: initializers and entries by their own, nodes by their first output.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir

from graph_ops.errors import ModelTooLargeError
from graph_ops.files import write_atomically
from graph_ops.model.guard import refusing
from graph_ops.model.limits import PROTOBUF_LIMIT_BYTES
from graph_ops.model.source import SourceModel
from graph_ops.model.storage import DATA_MEMBER, ExternalSink, StoreTensor, embed, size_bytes

MODEL_MEMBER = "model.onnx"
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_FIRST_IR_WITH_FREE_INITIALIZERS = 4
_COPIED_GRAPH_FIELDS = frozenset({"name", "doc_string", "metadata_props"})


def model_bytes(source: SourceModel, pruned: ir.Model, metadata: Mapping[str, str]) -> bytes:
    """The bytes of an `.onnx` file, weights included.

    Args:
        source: The model that was loaded.
        pruned: An edited clone of it.
        metadata: Entries for `metadata_props`; they replace entries of the same key.

    Raises:
        ModelTooLargeError: the file would be over 2 GB; `write_model` can write it.
        InvalidModelError: the edited graph cannot be written.
    """
    size = _weights_size_bytes(pruned)
    if size < PROTOBUF_LIMIT_BYTES:
        proto = _to_proto(source, pruned, metadata, embed)
        size = proto.ByteSize()
        if size < PROTOBUF_LIMIT_BYTES:
            with refusing("The model cannot be written"):
                data: bytes = proto.SerializeToString(deterministic=True)
            return data
    raise ModelTooLargeError(
        f"The model takes {size} bytes; one .onnx file holds at most {PROTOBUF_LIMIT_BYTES}. Write"
        " it to a path, as a .zip with its weights beside it.",
        found=size,
        limit=PROTOBUF_LIMIT_BYTES,
    )


def write_model(
    source: SourceModel,
    pruned: ir.Model,
    metadata: Mapping[str, str],
    path: Path,
    *,
    external_threshold_bytes: int = PROTOBUF_LIMIT_BYTES,
) -> Path:
    """Writes the model to a file that appears whole or not at all.

    Args:
        source: The model that was loaded.
        pruned: An edited clone of it.
        metadata: Entries for `metadata_props`; they replace entries of the same key.
        path: Where to write.
        external_threshold_bytes: A larger model becomes a `.zip` of `model.onnx` and
            `model.onnx.data`, stored uncompressed.

    Returns:
        `path`, or for a `.zip` the same path with that suffix.

    Raises:
        InvalidModelError: the edited graph cannot be written.
    """
    if _weights_size_bytes(pruned) < external_threshold_bytes:
        try:
            data = model_bytes(source, pruned, metadata)
        except ModelTooLargeError:
            data = b""
        if data and len(data) <= external_threshold_bytes:
            return write_atomically(path, lambda file: file.write(data))
    sink = ExternalSink()
    proto = _to_proto(source, pruned, metadata, sink.store)
    with refusing("The model cannot be written"):
        graph = proto.SerializeToString(deterministic=True)

    def write_zip(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            archive.writestr(zipfile.ZipInfo(MODEL_MEMBER, _ZIP_EPOCH), graph)
            member = zipfile.ZipInfo(DATA_MEMBER, _ZIP_EPOCH)
            with archive.open(member, "w", force_zip64=True) as out:
                sink.write_to(out)

    return write_atomically(path.with_suffix(".zip"), write_zip)


def _weights_size_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(size_bytes(tensor) for tensor in tensors if tensor is not None)


def _to_proto(
    source: SourceModel, pruned: ir.Model, metadata: Mapping[str, str], store: StoreTensor
) -> onnx.ModelProto:
    with refusing("The model cannot be written"):
        out, template = onnx.ModelProto(), source.template
        for field, value in template.ListFields():
            if field.name == "graph":
                continue
            if field.is_repeated:
                getattr(out, field.name).MergeFrom(value)
            else:
                setattr(out, field.name, value)
        _GraphWriter(template.graph, source.model.graph, store, template.ir_version).write(
            pruned.graph, out.graph
        )
        entries = {entry.key: entry for entry in out.metadata_props}
        for key, text in metadata.items():
            entry = entries[key] if key in entries else out.metadata_props.add()
            entry.key, entry.value = key, text
        return out


class _GraphWriter:
    """Writes one graph over its template.

    Args:
        template: The protobuf of the graph as it came.
        source: The same graph, unedited, in onnx_ir's form.
        store: Where tensors go.
        ir_version: Of the model.
    """

    def __init__(
        self, template: onnx.GraphProto, source: ir.Graph, store: StoreTensor, ir_version: int
    ) -> None:
        self._template = template
        self._source = source
        self._store = store
        self._ir_version = ir_version
        self._source_values = _values(source)
        self._source_nodes = {_first_output(node): node for node in source}

    def write(self, graph: ir.Graph, out: onnx.GraphProto) -> None:
        for field, value in self._template.ListFields():
            if field.name in _COPIED_GRAPH_FIELDS:
                if field.is_repeated:
                    getattr(out, field.name).MergeFrom(value)
                else:
                    setattr(out, field.name, value)
        values = _values(graph)
        self._write_nodes(graph, out)
        self._write_initializers(graph, out)
        self._write_inputs(graph, out, values)
        for info in self._template.output:
            _write_value(out.output.add(), info, values.get(info.name))
        for info in self._template.value_info:
            if not self._is_gone(info.name, values):
                _write_value(out.value_info.add(), info, values.get(info.name))
        for annotation in self._template.quantization_annotation:
            if not self._is_gone(annotation.tensor_name, values):
                out.quantization_annotation.add().CopyFrom(annotation)

    def _is_gone(self, name: str, values: Mapping[str, ir.Value]) -> bool:
        return name in self._source_values and name not in values

    def _write_inputs(
        self, graph: ir.Graph, out: onnx.GraphProto, values: Mapping[str, ir.Value]
    ) -> None:
        for info in self._template.input:
            was_initializer = info.name in self._source.initializers
            if not (was_initializer and info.name not in graph.initializers):
                _write_value(out.input.add(), info, values.get(info.name))
        if self._ir_version >= _FIRST_IR_WITH_FREE_INITIALIZERS or not self._template.input:
            return
        # Before IR version 4 every initializer had to be a graph input as well.
        listed = {info.name for info in self._template.input}
        old = {tensor.name for tensor in self._template.initializer}
        for name, value in graph.initializers.items():
            if name not in listed and name not in old and value.const_value is not None:
                info = out.input.add(name=name)
                info.type.tensor_type.elem_type = value.const_value.dtype.value
                info.type.tensor_type.shape.SetInParent()
                for dim in value.const_value.shape.numpy():
                    info.type.tensor_type.shape.dim.add(dim_value=dim)

    def _write_initializers(self, graph: ir.Graph, out: onnx.GraphProto) -> None:
        # Names come from the source graph: onnx_ir renames a tensor, and with it the template's
        # message, when a value of a working copy that shares the tensor is renamed.
        sparse_names = [sparse.values.name for sparse in self._template.sparse_initializer]
        dense_names = [n for n in self._source.initializers if n not in set(sparse_names)]
        templates = dict(zip(dense_names, self._template.initializer, strict=True))
        for name in dense_names:
            if name in graph.initializers:
                self._write_initializer(out, name, graph, templates[name])
        for name, sparse in zip(sparse_names, self._template.sparse_initializer, strict=True):
            if name in graph.initializers and self._is_same_tensor(name, graph):
                out.sparse_initializer.add().CopyFrom(sparse)
            elif name in graph.initializers:
                self._write_initializer(out, name, graph, None)
        for name in graph.initializers:
            if name not in self._source.initializers:
                self._write_initializer(out, name, graph, None)

    def _write_initializer(
        self,
        out: onnx.GraphProto,
        name: str,
        graph: ir.Graph,
        template: onnx.TensorProto | None,
    ) -> None:
        tensor = graph.initializers[name].const_value
        if tensor is None:
            raise ValueError(f"initializer {name!r} has no data")
        same = template is not None and self._is_same_tensor(name, graph)
        self._store(out.initializer.add(), name, tensor, template if same else None)

    def _is_same_tensor(self, name: str, graph: ir.Graph) -> bool:
        old = self._source.initializers[name].const_value
        new = graph.initializers[name].const_value
        return old is new or _has_equal_data(old, new)

    def _write_nodes(self, graph: ir.Graph, out: onnx.GraphProto) -> None:
        templates = {next((o for o in n.output if o), ""): n for n in self._template.node}
        for node in graph:
            key = _first_output(node)
            source = self._source_nodes.get(key)
            template = templates.get(key) if source is not None and key else None
            self._write_node(out.node.add(), node, source, template)

    def _write_node(
        self,
        out: onnx.NodeProto,
        node: ir.Node,
        source: ir.Node | None,
        template: onnx.NodeProto | None,
    ) -> None:
        if template is None or source is None:
            ir.serde.serialize_node_into(out, node)
            return
        out.CopyFrom(template)
        out.ClearField("attribute")
        if (node.domain, node.op_type) != (source.domain, source.op_type):
            out.domain, out.op_type = node.domain, node.op_type
        _rename(out.input, [v.name or "" if v is not None else "" for v in node.inputs])
        _rename(out.output, [v.name or "" for v in node.outputs])
        for attribute in template.attribute:
            if attribute.name in node.attributes:
                self._write_attribute(
                    out.attribute.add(),
                    node.attributes[attribute.name],
                    source.attributes[attribute.name],
                    attribute,
                )
        for name, attribute in node.attributes.items():
            if name not in source.attributes:
                _serialize_attribute(out.attribute.add(), attribute)

    def _write_attribute(
        self,
        out: onnx.AttributeProto,
        attribute: ir.Attr,
        source: ir.Attr,
        template: onnx.AttributeProto,
    ) -> None:
        if source.type is ir.AttributeType.GRAPH and attribute.type is source.type:
            _copy_except(out, template, "g")
            self._inner(template.g, source.as_graph()).write(attribute.as_graph(), out.g)
        elif source.type is ir.AttributeType.GRAPHS and attribute.type is source.type:
            _copy_except(out, template, "graphs")
            pairs = zip(template.graphs, source.as_graphs(), attribute.as_graphs(), strict=True)
            for inner_template, inner_source, inner in pairs:
                self._inner(inner_template, inner_source).write(inner, out.graphs.add())
        elif attribute is source or _is_equal_attribute(attribute, source):
            out.CopyFrom(template)
        else:
            _serialize_attribute(out, attribute)

    def _inner(self, template: onnx.GraphProto, source: ir.Graph) -> _GraphWriter:
        return _GraphWriter(template, source, embed, _FIRST_IR_WITH_FREE_INITIALIZERS)


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    values = [*graph.inputs, *graph.initializers.values()]
    values += [output for node in graph for output in node.outputs]
    return {value.name: value for value in values if value.name}


def _first_output(node: ir.Node) -> str:
    return next((output.name for output in node.outputs if output.name), "")


def _copy_except(out: onnx.AttributeProto, template: onnx.AttributeProto, field_name: str) -> None:
    for field, value in template.ListFields():
        if field.name != field_name:
            setattr(out, field.name, value)


def _rename(names: list[str], wanted: list[str]) -> None:
    """Sets a message's names, but leaves trailing empty ones (optional, left out) as they are."""
    current = list(names)
    for listed in (current, wanted):
        while listed and not listed[-1]:
            listed.pop()
    if current != wanted:
        del names[:]
        names.extend(wanted)


def _write_value(
    out: onnx.ValueInfoProto, template: onnx.ValueInfoProto, value: ir.Value | None
) -> None:
    """Copies an entry with its fixed dims brought up to date; symbolic ones stay as they were."""
    out.CopyFrom(template)
    if value is None or not out.type.tensor_type.HasField("shape"):
        return
    is_stored = value.is_initializer() and value.const_value is not None
    shape = value.const_value.shape if is_stored and value.const_value is not None else value.shape
    if shape is None or len(shape) != len(out.type.tensor_type.shape.dim):
        out.type.tensor_type.ClearField("shape")
        if shape is None:
            return
        for dim in shape:
            ir.serde.serialize_dimension_into(out.type.tensor_type.shape.dim.add(), dim)
        return
    for message, dim in zip(out.type.tensor_type.shape.dim, shape, strict=True):
        if message.HasField("dim_value") and isinstance(dim, int):
            message.dim_value = dim


def _has_equal_data(old: ir.TensorProtocol | None, new: ir.TensorProtocol | None) -> bool:
    if old is None or new is None or old.dtype != new.dtype or old.shape != new.shape:
        return False
    if old.dtype is ir.DataType.STRING:
        return bool(np.array_equal(old.numpy(), new.numpy()))
    return old.tobytes() == new.tobytes()


def _is_equal_attribute(new: ir.Attr, old: ir.Attr) -> bool:
    if new.type is not old.type or new.is_ref() or old.is_ref():
        return False
    if new.type is ir.AttributeType.TENSOR:
        return _has_equal_data(old.as_tensor(), new.as_tensor())
    if new.type in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
        return list(new.value) == list(old.value)
    return bool(new.value == old.value)


def _serialize_attribute(out: onnx.AttributeProto, attribute: ir.Attr) -> None:
    if attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(out, attribute)
    else:
        ir.serde.serialize_attribute_into(out, attribute)
