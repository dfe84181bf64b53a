"""How arrays and messages pass between a process and its training child.

Arrays lie in anonymous shared memory: a file without a name, of which each side has the
descriptor, so that nothing is copied through a pipe and nothing is left behind, however a process
ends. Messages are lines of JSON that say where in that memory the arrays are. Used on both sides;
needs numpy alone.
"""

from __future__ import annotations

import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Message = dict[str, Any]

ALIGNMENT = 64
"""Arrays start at multiples of a cache line."""


class SharedMemory:
    """Growing memory that two processes map.

    Args:
        descriptor: Of memory that the other process made; None makes it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _anonymous_file() if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def put(self, arrays: Mapping[str, Array]) -> list[Message]:
        """Write arrays, over whatever was there; what to send so that they are found."""
        entries: list[Message] = []
        offset = 0
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        for name, array in contiguous.items():
            place = {"name": name, "offset": offset}
            entries.append({**place, "dtype": array.dtype.str, "shape": list(array.shape)})
            offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        self._reserve(offset)
        views = self.get(entries)
        for name, array in contiguous.items():
            views[name][...] = array
        return entries

    def get(self, entries: Iterable[Message]) -> dict[str, Array]:
        """The arrays, without copying them: they change when the writer writes again."""
        size = os.fstat(self.descriptor).st_size
        if size and (self._map is None or len(self._map) < size):
            self._map = mmap.mmap(self.descriptor, size)
        arrays = {}
        for entry in entries:
            shape, dtype = tuple(entry["shape"]), np.dtype(entry["dtype"])
            count = int(np.prod(shape, dtype=np.int64))
            if count == 0 or self._map is None:
                arrays[entry["name"]] = np.empty(shape, dtype)
                continue
            flat = np.frombuffer(self._map, dtype, count, entry["offset"])
            arrays[entry["name"]] = flat.reshape(shape)
        return arrays

    def _reserve(self, size: int) -> None:
        if size > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, size)

    def close(self) -> None:
        """Give the memory back once no array of it is left."""
        self._map = None
        os.close(self.descriptor)


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("onnx-filter-pruner")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def encode(message: Message) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line."""
    message: Message = json.loads(line)
    return message
