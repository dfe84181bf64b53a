"""Writers of calibration bundles, well-formed and otherwise."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

Array = npt.NDArray[Any]

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
DIRECTORY_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
DIRECTORY_END = struct.Struct("<4sHHHHIIH")
ZERO_BLOCK = bytes(1 << 20)


def write_npz(path: Path, /, **arrays: npt.ArrayLike) -> Path:
    """Write arrays as stored `.npz` members."""
    with path.open("wb") as file:
        np.savez(file, **_as_arrays(arrays))
    return path


def write_deflated_npz(path: Path, /, **arrays: npt.ArrayLike) -> Path:
    """Write arrays as deflated `.npz` members."""
    with path.open("wb") as file:
        np.savez_compressed(file, **_as_arrays(arrays))
    return path


def write_safetensors(path: Path, /, **arrays: Array) -> Path:
    """Write arrays with the `safetensors` package."""
    save_file(arrays, path)
    return path


def write_zip(path: Path, members: list[tuple[str, bytes]], *, compressed: bool = False) -> Path:
    """Write zip members as they are, even two of one name."""
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def npy_bytes(array: npt.ArrayLike, *, version: tuple[int, int] | None = None) -> bytes:
    """An array as a `.npy` file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), version=version)
    return stream.getvalue()


def safetensors_bytes(header: dict[str, Any] | str, data: bytes) -> bytes:
    """A `.safetensors` file with any header."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def sparse_npz(
    path: Path, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, /, **small: npt.ArrayLike
) -> Path:
    """Write an `.npz` whose array `name` is all zeros and takes (almost) no disk.

    Its data is a hole in the file. `small` arrays are written beside it. The members stay under
    4 GiB each, so that the plain zip layout (no zip64) will do.
    """
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    hole = math.prod(shape) * np.dtype(dtype).itemsize
    members = [(name, header.getvalue(), hole)]
    members += [(other, npy_bytes(array), 0) for other, array in small.items()]
    directory = b""
    with path.open("wb") as file:
        for member, data, zeros in members:
            filename = f"{member}.npy".encode()
            crc = _crc_of_zeros(zeros, zlib.crc32(data))
            size = len(data) + zeros
            common = (20, 0, 0, 0, 0x21, crc, size, size, len(filename), 0)
            directory += DIRECTORY_ENTRY.pack(b"PK\x01\x02", 20, *common, 0, 0, 0, 0, file.tell())
            directory += filename
            file.write(LOCAL_HEADER.pack(b"PK\x03\x04", *common) + filename + data)
            file.seek(zeros, io.SEEK_CUR)
        start, count = file.tell(), len(members)
        end = (0, 0, count, count, len(directory), start, 0)
        file.write(directory + DIRECTORY_END.pack(b"PK\x05\x06", *end))
    return path


def _as_arrays(arrays: dict[str, npt.ArrayLike]) -> dict[str, Any]:
    return {name: np.asanyarray(array) for name, array in arrays.items()}


def _crc_of_zeros(count: int, crc: int) -> int:
    for _ in range(count // len(ZERO_BLOCK)):
        crc = zlib.crc32(ZERO_BLOCK, crc)
    return zlib.crc32(ZERO_BLOCK[: count % len(ZERO_BLOCK)], crc)
