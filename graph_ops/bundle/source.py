"""Opening a bundle: which format it is, told by its content, and what arrays it holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from graph_ops.bundle.arrays import (
    Array,
    ArrayInfo,
    Indices,
    ReadableArray,
    read_bytes,
    read_chunks,
    temporary_file,
    write_all,
)
from graph_ops.bundle.image_shards import is_image_shard, list_image_shards
from graph_ops.bundle.images import (
    ImageFacts,
    ImageListing,
    decode_listing,
    list_archive,
    list_parquet,
)
from graph_ops.bundle.limits import DEFAULT_LIMITS, BundleLimits
from graph_ops.bundle.members import Archive, FolderMembers, TarMembers, ZipMembers, is_tar
from graph_ops.bundle.npz import open_npz, read_directory, verify
from graph_ops.bundle.parquet import SIGNATURE as PARQUET_SIGNATURE
from graph_ops.bundle.safetensors import looks_like_safetensors, open_safetensors
from graph_ops.bundle.samples import is_image
from graph_ops.bundle.shards import is_shard, open_shards
from graph_ops.bundle.specs import InputSpec
from graph_ops.errors import BundleFormatError, PickledBundleError, PreprocessingError
from graph_ops.preprocessing import Preprocessing

STREAM_BYTES = 8 << 20
"""Bytes of an array held at a time while it is checked from end to end."""

ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
NPY_SIGNATURE = b"\x93NUMPY"
PICKLE_SIGNATURES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


class Bundle:
    """Named arrays in an open file; rows are read when asked for.

    Use it as a context manager, or call `close()`: it holds the file open, and temporary files
    where members had to be unpacked.

    Attributes:
        arrays: What is known of each array, by name.
        limits: The limits it was opened under.
        images: How its images became samples; None where it holds arrays.
    """

    def __init__(
        self,
        place: BinaryIO | FolderMembers,
        stored: Sequence[ReadableArray],
        limits: BundleLimits,
        resources: ExitStack,
        images: ImageFacts | None = None,
    ) -> None:
        self._place = place
        self.images = images
        self._stored = {array.info.name: array for array in stored}
        self._resources = resources
        self.limits = limits
        self.arrays: Mapping[str, ArrayInfo] = MappingProxyType(
            {name: array.info for name, array in self._stored.items()}
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays, in the order of the file."""
        return tuple(self._stored)

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file as it was given; of a folder, that of its names and contents."""
        if isinstance(self._place, FolderMembers):
            return self._place.sha256
        descriptor = self._place.fileno()
        digest = hashlib.sha256()
        for chunk in read_chunks(descriptor, 0, os.fstat(descriptor).st_size):
            digest.update(chunk)
        return digest.hexdigest()

    def read(self, name: str, indices: Indices) -> Array:
        """Samples of an array, in the order of `indices`: a fresh array [len(indices), ...].

        Raises:
            KeyError: there is no such array.
            IndexError: an index is outside the array.
            ShapeMismatchError: the array is a scalar.
            BundleFormatError: the file was cut short since it was opened.
        """
        return self._stored[name].rows(np.asarray(indices, np.int64))

    def stream(self, name: str) -> Iterator[tuple[int, Array]]:
        """All samples of an array in blocks of bounded size: (index of the first, block)."""
        info = self.arrays[name]
        step = max(1, STREAM_BYTES // max(1, info.row_bytes))
        for begin in range(0, info.samples, step):
            yield begin, self.read(name, np.arange(begin, min(begin + step, info.samples)))

    def close(self) -> None:
        """Close the file and remove what was unpacked."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_bundle(
    source: str | Path | bytes,
    *,
    limits: BundleLimits = DEFAULT_LIMITS,
    preprocessing: Preprocessing | None = None,
    inputs: Sequence[InputSpec] | None = None,
) -> Bundle:
    """Open a calibration bundle; the content decides which kind it is: docs/bundles.md.

    Images are decoded here, once, into a temporary file.

    Args:
        source: Path of the file or of a folder of images, or the file's bytes (which are written
            to a temporary file).
        limits: What the bundle may hold.
        preprocessing: How images become samples, in place of their `bundle.json`.
        inputs: The model's inputs, where known: they name the array of images, and a guess is
            offered where the settings are missing.

    Raises:
        BundleFormatError: the file is none of them, or is damaged.
        BundleTooLargeError: over one of the limits, declared or real.
        DuplicateNameError: two arrays, or two files, have one name.
        PickledBundleError: an array holds Python objects, or the file is a pickle.
        PreprocessingError: images without settings, or with invalid ones; or settings for arrays.
        ImageError: too many images are corrupt, or their labels cannot be told.
    """
    with ExitStack() as resources:
        place = _open_source(source, limits, resources)
        content = _find_content(place, limits, preprocessing, resources)
        if isinstance(content, ImageListing):
            arrays, images = decode_listing(content, inputs, limits, resources)
            return Bundle(place, arrays, limits, resources.pop_all(), images)
        if preprocessing is not None:
            raise PreprocessingError(
                "The bundle holds arrays, which are used as they are: leave out the settings for "
                "images (the option `preprocessing`).",
                found=[array.info.name for array in content],
            )
        verify(content)
        return Bundle(place, content, limits, resources.pop_all())


def describe_bundle(
    source: str | Path | bytes, *, limits: BundleLimits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """What a bundle holds, without a model and without decoding its images.

    Arrays that are stored as they are (not deflated) are not read, whatever their size: damage in
    them shows when the bundle is opened.

    Raises:
        BundleError: as `open_bundle`, but that settings may be missing.
    """
    with ExitStack() as resources:
        content = _find_content(_open_source(source, limits, resources), limits, None, resources)
        if not isinstance(content, ImageListing):
            infos = [array.info for array in content]
            arrays = [
                {"name": i.name, "dtype": str(i.dtype), "shape": list(i.shape)} for i in infos
            ]
            return {"arrays": arrays, "images": None}
        found, settings = content.source, content.preprocessing
        images = {
            "count": len(found.names),
            "is_labelled": found.labels is not None,
            "classes": None if found.classes is None else list(found.classes),
            "preprocessing": None if settings is None else settings.model_dump(mode="json"),
        }
        return {"arrays": [], "images": images}


def _open_source(
    source: str | Path | bytes, limits: BundleLimits, resources: ExitStack
) -> BinaryIO | FolderMembers:
    if isinstance(source, bytes):
        spool = temporary_file(resources)
        write_all(spool, source)
        return spool
    path = Path(source)
    if path.is_dir():
        return FolderMembers(path, limits)
    try:
        return resources.enter_context(path.open("rb", buffering=0))
    except (OSError, ValueError) as error:
        raise BundleFormatError(
            f"The bundle {path.name!r} cannot be opened: {error}.", path=path.name
        ) from error


def _find_content(
    place: BinaryIO | FolderMembers,
    limits: BundleLimits,
    preprocessing: Preprocessing | None,
    resources: ExitStack,
) -> Sequence[ReadableArray] | ImageListing:
    """The arrays of a bundle, or the images that are to become arrays."""
    if isinstance(place, FolderMembers):
        return _of_archive(place, limits, preprocessing, resources)
    return _in_file(place, limits, preprocessing, resources)


def _in_file(
    file: BinaryIO,
    limits: BundleLimits,
    preprocessing: Preprocessing | None,
    resources: ExitStack,
) -> Sequence[ReadableArray] | ImageListing:
    descriptor = file.fileno()
    prefix = read_bytes(descriptor, 16, 0)
    if prefix.startswith(ZIP_SIGNATURES):
        entries = read_directory(descriptor)
        kinds = (is_image, is_shard, is_image_shard)
        if any(is_one(entry.filename) for entry in entries for is_one in kinds):
            return _of_archive(ZipMembers(file, entries, limits), limits, preprocessing, resources)
        return open_npz(file, limits, resources)
    if looks_like_safetensors(prefix, os.fstat(descriptor).st_size):
        return open_safetensors(file, limits)
    if prefix.startswith(PARQUET_SIGNATURE):
        return list_parquet(file, preprocessing, limits)
    if is_tar(descriptor):
        return _of_archive(TarMembers(file, limits), limits, preprocessing, resources)
    if prefix.startswith(PICKLE_SIGNATURES):
        raise PickledBundleError(
            "The bundle is a Python pickle, which is never loaded. Save the arrays with "
            "np.savez(path, **arrays)."
        )
    if prefix.startswith(NPY_SIGNATURE):
        raise BundleFormatError(
            "The bundle is a single .npy array, which has no name. Save it with "
            "np.savez(path, **{input_name: array})."
        )
    raise BundleFormatError(
        "The bundle is neither an .npz nor a .safetensors file, nor an archive of images. Save the "
        "arrays with np.savez(path, **arrays), each named as the model's input."
    )


def _of_archive(
    archive: Archive,
    limits: BundleLimits,
    preprocessing: Preprocessing | None,
    resources: ExitStack,
) -> Sequence[ReadableArray] | ImageListing:
    if any(is_shard(member.name) for member in archive.members):
        return open_shards(archive, limits, resources)
    names = [member.name for member in archive.members]
    if not any(map(is_image, names)) and any(map(is_image_shard, names)):
        return list_image_shards(archive, preprocessing, limits, resources)
    return list_archive(archive, preprocessing)
