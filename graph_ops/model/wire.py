"""Telling ONNX from everything else by protobuf's wire format.

A protobuf message has no magic number, but it is a row of fields, each a key (number and wire type)
and a value, and writers put them in the order of their numbers: an ONNX file starts with
`ir_version` (field 1, a varint) and holds `graph` (field 7) before `opset_import` (field 8). So a
file that starts as ONNX and whose last field runs past the end was cut; a file whose fields have
other types is something else.
See https://protobuf.dev/programming-guides/encoding/ and onnx.proto, message ModelProto.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from graph_ops.errors import NotOnnxError, TruncatedModelError
from graph_ops.model.guard import refusing

_VARINT, _I64, _LENGTH, _I32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_IR_VERSION, _GRAPH, _OPSET_IMPORT = (
    onnx.ModelProto.DESCRIPTOR.fields_by_name[name].number
    for name in ("ir_version", "graph", "opset_import")
)
_WIRE_TYPES = {
    f.number: _VARINT if f.cpp_type == f.CPPTYPE_INT64 else _LENGTH
    for f in onnx.ModelProto.DESCRIPTOR.fields
}
_PLAUSIBLE_IR_VERSIONS = range(1, 1000)

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x80", "a Python pickle, as older PyTorch files are; export the model to ONNX"),
    (0, b"PK", "a ZIP archive that is damaged"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes; convert it to ONNX"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (0, b"\x93NUMPY", "a NumPy array, not a model"),
    (0, b"<", "HTML or XML; the download was probably an error or login page"),
    (0, b"version https://git-lfs", "a Git LFS pointer; fetch the real file with git lfs pull"),
    (0, b"{", "JSON text"),
)


class _EndOfDataError(Exception):
    """A field runs past the end of the data."""


@dataclass
class _Walk:
    """What a walk over the top-level fields saw."""

    ir_version: int | None = None
    fields: list[int] = field(default_factory=list)
    is_cut: bool = False
    is_model: bool = True


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if at + count >= len(data):
            raise _EndOfDataError
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, at + count + 1
    raise ValueError("a varint is longer than ten bytes")


def _skip(data: memoryview, at: int, wire_type: int) -> int:
    if wire_type == _VARINT:
        return _varint(data, at)[1]
    if wire_type == _LENGTH:
        length, at = _varint(data, at)
        end = at + length
    elif wire_type in (_I64, _I32):
        end = at + (8 if wire_type == _I64 else 4)
    else:
        raise ValueError(f"wire type {wire_type} does not occur in ONNX")
    if end > len(data):
        raise _EndOfDataError
    return end


def _walk(data: memoryview) -> _Walk:
    walk, at = _Walk(), 0
    try:
        while at < len(data):
            key, value_at = _varint(data, at)
            number, wire_type = key >> 3, key & 7
            if number == 0 or _WIRE_TYPES.get(number, wire_type) != wire_type:
                walk.is_model = False
                return walk
            if number == _IR_VERSION:
                walk.ir_version, _ = _varint(data, value_at)
            at = _skip(data, value_at, wire_type)
            walk.fields.append(number)
    except _EndOfDataError:
        walk.is_cut = True
    except ValueError:
        walk.is_model = False
    return walk


def _guess(data: memoryview) -> str:
    head = bytes(data[:512])
    for offset, magic, what in _SIGNATURES:
        if head.lstrip()[offset:].startswith(magic) or head[offset:].startswith(magic):
            return f"It looks like {what}"
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError:
        return "Its bytes are not a protobuf message of type ModelProto"
    return "It looks like plain text" if head.isascii() else "It looks like text"


def parse_model(data: bytes) -> onnx.ModelProto:
    """The protobuf message in `data`.

    Args:
        data: The whole `.onnx` file.

    Raises:
        NotOnnxError: the bytes are something else; the message says what they look like.
        TruncatedModelError: an ONNX model that ends too early.
        InvalidModelError: an ONNX model with damage inside.
    """
    if not data:
        raise NotOnnxError("The model file is empty; upload an .onnx file.", size_bytes=0)
    view = memoryview(data)
    walk = _walk(view)
    starts_as_onnx = walk.ir_version in _PLAUSIBLE_IR_VERSIONS or (
        walk.is_cut and not walk.fields and view[0] == _IR_VERSION << 3
    )
    if not starts_as_onnx or not walk.is_model:
        raise NotOnnxError(
            f"The file is not an ONNX model. {_guess(view)}.",
            size_bytes=len(data),
            first_bytes=bytes(view[:16]).hex(),
        )
    missing = next((f for f in (_GRAPH, _OPSET_IMPORT) if f not in walk.fields), None)
    if walk.is_cut or missing is not None:
        name = "" if missing is None else onnx.ModelProto.DESCRIPTOR.fields_by_number[missing].name
        where = f"before its {name}" if name else "inside a field"
        raise TruncatedModelError(
            f"The model is cut short: its {len(data)} bytes end {where}; upload the whole file.",
            size_bytes=len(data),
            missing=name or None,
        )
    with refusing("The model file is damaged, a part of it does not parse", size_bytes=len(data)):
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    return model
