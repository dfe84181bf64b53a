"""`.safetensors`: a JSON header with types, shapes and offsets, then the bytes.

Format: https://github.com/huggingface/safetensors#format. The header is read here and not by the
`safetensors` package because that maps the file, and touched pages of a mapping count as resident
memory; the rules it enforces (no overlap, no holes, exact sizes) are enforced here too.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any, BinaryIO, TypeGuard

import ml_dtypes
import numpy as np

from graph_ops.bundle.arrays import ArrayInfo, DType, StoredArray, read_bytes
from graph_ops.bundle.limits import BundleLimits
from graph_ops.errors import BundleFormatError, DuplicateNameError

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 4 << 20

DTYPES: dict[str, DType] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


def looks_like_safetensors(prefix: bytes, file_bytes: int) -> bool:
    """Whether a file starts as the format does: a header length that fits, then a JSON object."""
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    return prefix[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and length <= file_bytes - LENGTH_BYTES


def open_safetensors(file: BinaryIO, limits: BundleLimits) -> list[StoredArray]:
    """Find the arrays of a `.safetensors` file.

    Args:
        file: The open file; it outlives the arrays.
        limits: What the bundle may hold.

    Raises:
        BundleFormatError: the header is damaged, or does not fit the bytes behind it.
        BundleTooLargeError: over one of the limits.
        DuplicateNameError: the header holds a name twice.
    """
    descriptor = file.fileno()
    file_bytes = os.fstat(descriptor).st_size
    length = int.from_bytes(read_bytes(descriptor, LENGTH_BYTES, 0), "little")
    if length > MAX_HEADER_BYTES:
        raise BundleFormatError(
            f"The safetensors header takes {length} bytes; the limit is {MAX_HEADER_BYTES}.",
            expected=MAX_HEADER_BYTES,
            found=length,
        )
    header = _parse_json(read_bytes(descriptor, length, LENGTH_BYTES))
    header.pop("__metadata__", None)
    limits.check_count(len(header))
    extents: dict[str, tuple[int, int]] = {}
    arrays = []
    for name, entry in header.items():
        dtype, shape, extents[name] = _parse_entry(name, entry)
        info = ArrayInfo(name, dtype.newbyteorder("="), shape)
        offset = LENGTH_BYTES + length + extents[name][0]
        arrays.append(StoredArray(info, descriptor, offset, dtype))
    _check_extents(extents, file_bytes - LENGTH_BYTES - length)
    sizes = {name: end - begin for name, (begin, end) in extents.items()}
    limits.check_sizes(sizes, sum(sizes.values()))
    return arrays


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"The safetensors header is not valid JSON ({error}).") from error
    if not isinstance(header, dict):
        raise BundleFormatError("The safetensors header is not a JSON object.")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise DuplicateNameError(
                f"The safetensors header holds {key!r} twice; every array needs its own name.",
                array=key,
            )
        result[key] = value
    return result


def _parse_entry(name: str, entry: object) -> tuple[DType, tuple[int, ...], tuple[int, int]]:
    """Element type, shape and [begin, end) of one array."""
    if not isinstance(entry, dict):
        raise BundleFormatError(
            f"Array {name!r} is not described by a JSON object in the safetensors header.",
            array=name,
        )
    code, shape, extent = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(code, str) or code not in DTYPES:
        raise BundleFormatError(
            f"Array {name!r} has the unknown element type {code!r}; known: {', '.join(DTYPES)}.",
            array=name,
            expected=list(DTYPES),
            found=str(code),
        )
    if not _are_sizes(shape) or not _are_sizes(extent) or len(extent) != 2:
        raise BundleFormatError(
            f"Array {name!r} has no valid shape or data_offsets in the safetensors header.",
            array=name,
        )
    expected = math.prod(shape) * DTYPES[code].itemsize
    begin, end = extent
    if end - begin != expected:
        raise BundleFormatError(
            f"Array {name!r} declares shape {tuple(shape)} of {code}, {expected} bytes, but its "
            f"data_offsets span {end - begin}; the file is damaged.",
            array=name,
            expected=expected,
            found=end - begin,
        )
    return DTYPES[code], tuple(shape), (begin, end)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    # bool is an int in Python, but not a size.
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_extents(extents: dict[str, tuple[int, int]], data_bytes: int) -> None:
    """The arrays cover the bytes behind the header: in range, no overlap, no holes."""
    position = 0
    for name, (begin, end) in sorted(extents.items(), key=lambda item: item[1]):
        if end > data_bytes:
            raise BundleFormatError(
                f"Array {name!r} ends at byte {end} of the data, which has {data_bytes}; the file "
                "is truncated.",
                array=name,
                expected=end,
                found=data_bytes,
            )
        if begin != position:
            problem = "overlaps another array" if begin < position else "leaves a hole before it"
            raise BundleFormatError(
                f"Array {name!r} {problem} in the safetensors file: it starts at byte {begin} of "
                f"the data and should start at {position}.",
                array=name,
                expected=position,
                found=begin,
            )
        position = end
    if position != data_bytes:
        raise BundleFormatError(
            f"The safetensors file has {data_bytes} bytes of data but describes {position}.",
            expected=position,
            found=data_bytes,
        )
