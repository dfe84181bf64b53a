"""The `.npy` header: element type, shape and order of the bytes that follow it.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Numpy's own
parser reads it, out of a bounded prefix, so that a header that claims to be huge costs nothing.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass

import numpy as np

from graph_ops.bundle.arrays import DType
from graph_ops.errors import BundleFormatError, PickledBundleError

HEADER_PREFIX_BYTES = 16_384
"""Numpy refuses to evaluate headers over 10,000 characters; no plain array needs as many."""


@dataclass(frozen=True)
class NpyHeader:
    """A parsed header.

    Attributes:
        dtype: Element type as stored.
        shape: All axes.
        is_fortran: Whether the first axis runs fastest.
        size_bytes: Length of the header itself; the elements start there.
    """

    dtype: DType
    shape: tuple[int, ...]
    is_fortran: bool
    size_bytes: int


def parse_header(name: str, prefix: bytes, member_bytes: int) -> NpyHeader:
    """Parse the header of array `name` from the first bytes of its `.npy` member.

    Args:
        name: Name of the array, for messages.
        prefix: The member's first `HEADER_PREFIX_BYTES` bytes (or all of it).
        member_bytes: Size of the whole member.

    Raises:
        BundleFormatError: not a `.npy` header, or shape × element size is not what follows it.
        PickledBundleError: the elements are Python objects.
    """
    stream = io.BytesIO(prefix)
    try:
        with warnings.catch_warnings():
            # Numpy warns about headers written by Python 2; they are read all the same.
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            if version == (1, 0):
                shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            elif version in ((2, 0), (3, 0)):
                # Version 3 differs in the encoding of field names only, and arrays with named
                # fields never fit a model's input.
                shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
            else:
                raise ValueError(f"unknown version {version}")
    # The header is a Python literal of unknown origin; the parsers under numpy's fail in ways
    # of their own (SyntaxError, TokenError, RecursionError, MemoryError, TypeError, ...).
    except Exception as error:
        raise BundleFormatError(
            f"Array {name!r} has no readable .npy header ({error}). "
            "Write the bundle with np.savez or np.savez_compressed.",
            array=name,
        ) from error
    if dtype.hasobject:
        raise PickledBundleError(
            f"Array {name!r} holds pickled Python objects, which are never loaded. "
            "Convert it to a numeric array before saving.",
            array=name,
            found=str(dtype),
        )
    shape = tuple(int(dim) for dim in shape)
    expected = math.prod(shape) * dtype.itemsize
    found = member_bytes - stream.tell()
    if min(shape, default=0) < 0 or expected != found:
        raise BundleFormatError(
            f"Array {name!r} declares shape {shape} of {dtype}, {expected} bytes, "
            f"but {found} bytes follow its header; the file is damaged.",
            array=name,
            expected=expected,
            found=found,
        )
    return NpyHeader(dtype, shape, bool(is_fortran), stream.tell())
