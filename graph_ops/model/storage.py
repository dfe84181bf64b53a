"""Where a written tensor's data goes: into the protobuf, or into a data file beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import IO

import numpy as np
import onnx
import onnx_ir as ir

from graph_ops.model.external import is_external
from graph_ops.model.protos import BIG_TENSOR_BYTES

DATA_MEMBER = "model.onnx.data"
_ALIGNMENT_BYTES = 4096
_CHUNK_BYTES = 1 << 24

StoreTensor = Callable[[onnx.TensorProto, str, ir.TensorProtocol, onnx.TensorProto | None], None]
"""Writes a tensor of a name into a message; the template's is given where it is the same."""


def size_bytes(tensor: ir.TensorProtocol) -> int:
    """Bytes of the tensor's raw data; none for strings, which have no raw form."""
    return 0 if tensor.dtype is ir.DataType.STRING else int(tensor.nbytes)


def embed(
    out: onnx.TensorProto, name: str, tensor: ir.TensorProtocol, template: onnx.TensorProto | None
) -> None:
    """Stores the data in the message itself."""
    if template is None:
        ir.serde.serialize_tensor_into(out, tensor)
    else:
        out.CopyFrom(template)
        if is_external(template):
            out.ClearField("external_data")
            out.ClearField("data_location")
            out.raw_data = tensor.tobytes()
    out.name = name


class ExternalSink:
    """Stores the data of larger tensors in one data file, each at an aligned offset."""

    def __init__(self) -> None:
        self._tensors: list[tuple[int, ir.TensorProtocol]] = []
        self._end = 0

    def store(
        self,
        out: onnx.TensorProto,
        name: str,
        tensor: ir.TensorProtocol,
        template: onnx.TensorProto | None,
    ) -> None:
        """Stores a reference, and keeps the tensor for `write_to`; small ones are embedded."""
        size = size_bytes(tensor)
        if size < BIG_TENSOR_BYTES:
            embed(out, name, tensor, template)
            return
        offset = -(-self._end // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._tensors.append((offset, tensor))
        self._end = offset + size
        out.name = name
        out.data_type = tensor.dtype.value
        out.dims.extend(tensor.shape.numpy())
        if tensor.doc_string:
            out.doc_string = tensor.doc_string
        out.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", DATA_MEMBER), ("offset", offset), ("length", size)):
            out.external_data.add(key=key, value=str(value))

    def write_to(self, file: IO[bytes]) -> None:
        """Streams the data of every stored tensor, in order, zeros between them."""
        at = 0
        for offset, tensor in self._tensors:
            file.write(bytes(offset - at))
            data = _little_endian(tensor)
            for start in range(0, len(data), _CHUNK_BYTES):
                file.write(data[start : start + _CHUNK_BYTES])
            at = offset + len(data)


def _little_endian(tensor: ir.TensorProtocol) -> memoryview:
    """The tensor's raw bytes, without a copy where its array is stored that way already."""
    if tensor.dtype.bitwidth % 8 or sys.byteorder == "big":
        return memoryview(tensor.tobytes())
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data
