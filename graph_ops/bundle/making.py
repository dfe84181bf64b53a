"""Any bundle as an `.npz`: images decoded once, to look at or to use again and again."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from graph_ops.bundle.limits import DEFAULT_LIMITS, BundleLimits
from graph_ops.bundle.source import Bundle, open_bundle
from graph_ops.bundle.specs import InputSpec
from graph_ops.errors import BundleFormatError
from graph_ops.files import write_atomically
from graph_ops.preprocessing import Preprocessing


def make_bundle(
    source: str | Path,
    out: str | Path,
    *,
    preprocessing: Preprocessing | None = None,
    inputs: Sequence[InputSpec] | None = None,
    limits: BundleLimits = DEFAULT_LIMITS,
) -> Bundle:
    """Write the arrays of a bundle into one `.npz`, a few samples in memory at a time.

    The same samples make the same bytes.

    Args:
        source: A file or a folder, as `open_bundle` takes it.
        out: Where the `.npz` goes; it is there whole, or not at all.
        preprocessing: How images become samples, in place of their `bundle.json`.
        inputs: The model's inputs, where known.
        limits: What the bundle may hold.

    Returns:
        What was read, closed: its `arrays` and `images` say what became of it.

    Raises:
        BundleError: as `open_bundle`; or an array has an element type that `.npz` lacks.
    """
    with open_bundle(source, limits=limits, preprocessing=preprocessing, inputs=inputs) as bundle:
        write_atomically(Path(out), lambda file: _write(file, bundle))
    return bundle


def _write(file: IO[bytes], bundle: Bundle) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in bundle.names:
            # An entry made by its name alone has a fixed date.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                _write_array(member, bundle, name)


def _write_array(member: IO[bytes], bundle: Bundle, name: str) -> None:
    info = bundle.arrays[name]
    if info.dtype.kind == "V":
        raise BundleFormatError(
            f"Array {name!r} holds {info.dtype}, which an .npz cannot say: use the bundle itself.",
            array=name,
        )
    header = {"descr": info.dtype.str, "fortran_order": False, "shape": info.shape}
    np.lib.format.write_array_header_2_0(member, header)
    if info.row_bytes:
        for _, block in bundle.stream(name):
            member.write(block.tobytes())
