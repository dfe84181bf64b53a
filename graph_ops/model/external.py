"""External data: weights in files beside the `.onnx` file.

A weight of the main graph is mapped: its array is a view of the file, read when it is used, so that
a model of any size loads at once. The mapping keeps the file's data alive even after the file is
deleted, which is how the unpacked files of an archive go away. One mapping serves all the tensors
of a file: one per tensor would spend a file descriptor on each.

Only plain files inside the model's folder are opened: no absolute paths, no `..`, no links.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir as ir

from graph_ops.errors import ExternalDataError, ModelTooLargeError
from graph_ops.model.checks import data_size_bytes, element_count
from graph_ops.model.limits import PROTOBUF_LIMIT_BYTES
from graph_ops.model.protos import iter_tensors

_KNOWN_KEYS = frozenset({"location", "offset", "length", "checksum", "basepath"})


class DataFolder:
    """The folder a model's external data must lie in.

    Args:
        path: The folder, or None when the model came as bytes and has none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._maps: dict[str, mmap.mmap | bytes] = {}

    def read(self, where: str, tensor: onnx.TensorProto) -> memoryview:
        """The bytes of an external tensor, mapped.

        Raises:
            ExternalDataError: says which tensor and what is wrong with its file.
        """
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")

        def refuse(problem: str) -> ExternalDataError:
            return ExternalDataError(
                f"The data of {where} is external: {problem}.",
                tensor=tensor.name,
                location=location,
            )

        if unknown := sorted(info.keys() - _KNOWN_KEYS):
            raise refuse(f"its keys {', '.join(unknown[:5])} are unknown")
        size = data_size_bytes(tensor)
        try:
            offset = int(info.get("offset") or 0)
            length = int(info.get("length") or size)
        except ValueError:
            raise refuse("its offset or length is not a number") from None
        if self._path is None:
            raise refuse(
                f"it is in the file {location!r}, which did not come with the model; send a .zip of"
                " the .onnx file and its data files"
            )
        data = self._map(self._plain_file(location, refuse), location)
        if offset < 0 or length != size or offset + length > len(data):
            raise refuse(
                f"it needs {size} bytes (length {length}) at offset {offset} of {location!r}, which"
                f" has {len(data)}"
            )
        return memoryview(data)[offset : offset + length]

    def _plain_file(self, location: str, refuse: Callable[[str], ExternalDataError]) -> Path:
        assert self._path is not None
        relative = PurePosixPath(location)
        if (
            not relative.parts
            or relative.is_absolute()
            or ".." in relative.parts
            or "\\" in location
            or "\0" in location
            or PureWindowsPath(location).drive
        ):
            raise refuse(f"its location {location!r} is not a plain path inside the model's folder")
        path = self._path
        try:
            for part in relative.parts:
                path = path / part
                mode = path.lstat().st_mode
                if stat.S_ISLNK(mode):
                    raise refuse(f"{location!r} is a link; put the file itself there")
            status = path.lstat()
        except OSError:
            raise refuse(f"the file {location!r} is missing from the model's folder") from None
        if not stat.S_ISREG(status.st_mode):
            raise refuse(f"{location!r} is not a file")
        if status.st_nlink > 1:
            raise refuse(f"{location!r} is a hard link; put a copy there")
        return path

    def _map(self, path: Path, location: str) -> mmap.mmap | bytes:
        if location not in self._maps:
            with path.open("rb") as file:
                empty = path.stat().st_size == 0
                self._maps[location] = (
                    b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                )
        return self._maps[location]


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the tensor's data is in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def map_external(model: onnx.ModelProto, folder: DataFolder) -> dict[str, ir.TensorProtocol]:
    """Maps the external weights of the main graph; takes the others into the protobuf.

    The others (in subgraphs, attributes, sparse tensors, or of less than a byte per element) are
    small or rare, and nothing that reads them looks for a file.

    Returns:
        The mapped weights by the name of their initializer.

    Raises:
        ExternalDataError: a data file is missing, too short, or outside the model's folder.
    """
    mapped: dict[str, ir.TensorProtocol] = {}
    embedded_bytes = 0
    weights = {id(tensor): tensor for tensor in model.graph.initializer}
    for where, tensor in iter_tensors(model):
        if not is_external(tensor):
            continue
        data = folder.read(where, tensor)
        dtype = ir.DataType(tensor.data_type)
        if id(tensor) in weights and dtype.bitwidth % 8 == 0 and len(data):
            array = np.frombuffer(data, dtype=dtype.numpy(), count=element_count(list(tensor.dims)))
            mapped[tensor.name] = ir.Tensor(
                array.reshape(tensor.dims),
                dtype=dtype,
                shape=ir.Shape(tensor.dims),
                name=tensor.name,
                doc_string=tensor.doc_string or None,
            )
            continue
        embedded_bytes += len(data)
        if embedded_bytes > PROTOBUF_LIMIT_BYTES:
            raise ModelTooLargeError(
                f"The external data of subgraphs and attributes is over {PROTOBUF_LIMIT_BYTES}"
                " bytes; only initializers of the main graph may be that large.",
                limit=PROTOBUF_LIMIT_BYTES,
            )
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = bytes(data)
    return mapped
