"""Arrays that stay in their file: where their bytes lie, and how rows of them are read.

Both formats come down to the same thing, a run of C-ordered elements at an offset of a file. Rows
are read with `preadv` into fresh memory. They are not mapped: pages of a mapping that were
touched count as the process's resident memory, so a mapping grows with what was read from it.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from graph_ops.errors import BundleFormatError, ShapeMismatchError

CHUNK_BYTES = 1 << 20

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
DType = np.dtype[Any]


@dataclass(frozen=True)
class ArrayInfo:
    """What a bundle says about one of its arrays.

    Attributes:
        name: Name in the bundle.
        dtype: Element type, in the byte order of this machine.
        shape: All axes; axis 0 counts the samples.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def samples(self) -> int:
        """Length of the batch axis (0 for a scalar, which has none)."""
        return self.shape[0] if self.shape else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one sample."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class ReadableArray(Protocol):
    """An array of a bundle, wherever its rows come from."""

    @property
    def info(self) -> ArrayInfo:
        """Name, element type and shape."""
        ...

    def rows(self, indices: Indices) -> Array:
        """The samples at `indices`, in that order: a fresh array [len(indices), ...]."""
        ...


@dataclass(frozen=True)
class MemoryArray:
    """A small array, such as class ids."""

    name: str
    values: Array

    @property
    def info(self) -> ArrayInfo:
        """Name, element type and shape."""
        return ArrayInfo(self.name, self.values.dtype, self.values.shape)

    def rows(self, indices: Indices) -> Array:
        """As `ReadableArray.rows`."""
        return self.values[indices].copy()


@dataclass(frozen=True)
class JoinedArray:
    """Arrays of one name and one kind, one behind the other.

    Attributes:
        info: Name, element type, and the shape of the whole.
        parts: The arrays.
    """

    info: ArrayInfo
    parts: tuple[ReadableArray, ...]

    def rows(self, indices: Indices) -> Array:
        """As `ReadableArray.rows`."""
        ends = np.cumsum([part.info.samples for part in self.parts])
        found = np.empty((indices.size, *self.info.shape[1:]), self.info.dtype)
        owners = np.searchsorted(ends, indices, side="right")
        for number in np.unique(owners):
            mask = owners == number
            begin = ends[number] - self.parts[number].info.samples
            found[mask] = self.parts[number].rows(indices[mask] - begin)
        return found


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 that a file declares for a run of its bytes.

    Attributes:
        descriptor: Of the open file.
        offset: Where the run starts, in bytes.
        size_bytes: Its length.
        crc32: What it should come to.
    """

    descriptor: int
    offset: int
    size_bytes: int
    crc32: int

    def holds(self) -> bool:
        """Whether the bytes, all of which are read, are those that were written."""
        crc = 0
        for chunk in read_chunks(self.descriptor, self.offset, self.size_bytes):
            crc = zlib.crc32(chunk, crc)
        return crc == self.crc32


@dataclass(frozen=True)
class StoredArray:
    """An array in a file that is open for as long as the bundle is.

    Attributes:
        info: Name, element type and shape.
        descriptor: Of the open file.
        offset: Where element 0 starts, in bytes.
        stored_dtype: Element type as written, which may have the other byte order.
        checksum: What its bytes are to be held against; None where there is nothing, or it is done.
    """

    info: ArrayInfo
    descriptor: int
    offset: int
    stored_dtype: DType
    checksum: Checksum | None = None

    def rows(self, indices: Indices) -> Array:
        """The samples at `indices`, in that order, shape [len(indices), ...].

        Raises:
            IndexError: an index is outside the array.
            ShapeMismatchError: the array is a scalar.
            BundleFormatError: the file ends before the array does.
        """
        info = self.info
        if not info.shape:
            raise ShapeMismatchError(
                f"Array {info.name!r} is a scalar and has no samples to read.", array=info.name
            )
        if indices.size and not 0 <= indices.min() <= indices.max() < info.samples:
            raise IndexError(f"array {info.name!r} has {info.samples} samples")
        raw = np.empty((indices.size, info.row_bytes), np.uint8)
        if raw.size:
            for begin, end in contiguous_runs(indices):
                start = self.offset + int(indices[begin]) * info.row_bytes
                read_into(self.descriptor, raw[begin:end].reshape(-1), start)
        shape = (indices.size, *info.shape[1:])
        if not raw.size:
            return np.empty(shape, info.dtype)
        if info.dtype == np.bool_:
            # A file may hold any byte where a bool is due; numpy expects 0 and 1 only.
            return np.not_equal(raw, 0).reshape(shape)
        stored: Array = raw.view(self.stored_dtype).reshape(shape)
        return stored.astype(info.dtype, copy=False)


def contiguous_runs(indices: Indices) -> list[tuple[int, int]]:
    """Slices [begin, end) of `indices` in which each index is its predecessor plus one."""
    if not indices.size:
        return []
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    bounds = [0, *cuts.tolist(), indices.size]
    return list(itertools.pairwise(bounds))


def read_into(descriptor: int, buffer: npt.NDArray[np.uint8], offset: int) -> None:
    """Fill a one-dimensional buffer from a file, starting at a byte offset.

    Raises:
        BundleFormatError: the file ends too early.
    """
    view = buffer.data
    while len(view):
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise BundleFormatError(
                f"The bundle ends at byte {offset}, before its arrays do; it is truncated.",
                offset=offset,
            )
        view = view[count:]
        offset += count


def read_bytes(descriptor: int, size: int, offset: int) -> bytes:
    """Up to `size` bytes of a file from a byte offset on; fewer only where the file ends."""
    parts = []
    while size > 0 and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        size -= len(part)
        offset += len(part)
    return b"".join(parts)


def read_chunks(descriptor: int, offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes of a file from a byte offset on, `CHUNK_BYTES` at a time."""
    for start in range(0, size, CHUNK_BYTES):
        yield read_bytes(descriptor, min(CHUNK_BYTES, size - start), offset + start)


def temporary_file(resources: ExitStack) -> BinaryIO:
    """An empty, unbuffered file that is gone when `resources` closes (or the process ends)."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the stack closes it)
    return resources.enter_context(file)


def write_all(file: BinaryIO, block: bytes) -> None:
    """Append a block to an unbuffered file, which may take it in several parts."""
    view = memoryview(block)
    while len(view):
        view = view[file.write(view) :]
