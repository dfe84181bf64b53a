"""Finding bytes where they lie: Python's own `find` would copy a block, and hold others up."""

from __future__ import annotations

import ctypes

_memmem = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def contains(block: memoryview, wanted: bytes) -> bool:
    """Whether a block, of memory that may be written to, has these bytes in it."""
    if len(block) < len(wanted):
        return False
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    return _memmem(address, len(block), wanted, len(wanted)) is not None


def ends_with_start(block: memoryview, wanted: bytes) -> bool:
    """Whether a block ends with the beginning of these bytes, so that the rest may follow."""
    tail = bytes(block[-len(wanted) :])
    return any(wanted.startswith(tail[i:]) for i in range(len(tail)) if tail[i] == wanted[0])
