"""Archives of `.npz` shards: their arrays of one name, one behind the other."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from graph_ops.bundle.arrays import (
    ArrayInfo,
    JoinedArray,
    ReadableArray,
    temporary_file,
    write_all,
)
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.members import Archive
from graph_ops.bundle.npz import open_npz, verify
from graph_ops.errors import BundleFormatError, DtypeMismatchError, ShapeMismatchError

SHARD_SUFFIX: Final = ".npz"


def is_shard(name: str) -> bool:
    """Whether a file's name is that of a shard."""
    return name.endswith(SHARD_SUFFIX)


def open_shards(
    archive: Archive, limits: BundleLimits, resources: ExitStack
) -> list[ReadableArray]:
    """The arrays of all shards, joined in the order of the shards' names.

    Raises:
        BundleFormatError: a shard is damaged, or has other arrays than the first.
        ShapeMismatchError: arrays of one name differ in more than their samples.
        DtypeMismatchError: they differ in their element type.
        BundleTooLargeError: over one of the limits.
    """
    wanted = sorted((m for m in archive.members if is_shard(m.name)), key=lambda m: m.name)
    limits.check_count(len(wanted))
    shards: dict[str, dict[str, ReadableArray]] = {}
    for member, content in archive.read(wanted):
        if content is None:
            raise BundleFormatError(f"Shard {member.name!r} cannot be read.", member=member.name)
        file = temporary_file(resources)
        write_all(file, content)
        arrays = open_npz(file, limits, resources)
        verify(arrays)
        shards[member.name] = {array.info.name: array for array in arrays}
    parts = [shards[member.name] for member in wanted]
    first = parts[0]
    for member, part in zip(wanted, parts, strict=True):
        if part.keys() != first.keys():
            raise BundleFormatError(
                f"Shard {member.name!r} holds the arrays {', '.join(part)}; the first holds "
                f"{', '.join(first)}.",
                member=member.name,
                expected=list(first),
                found=list(part),
            )
    return [_joined([part[name] for part in parts]) for name in first]


def _joined(parts: list[ReadableArray]) -> ReadableArray:
    first = parts[0].info
    for part in parts:
        info = part.info
        if info.shape[1:] != first.shape[1:] or not info.shape:
            raise ShapeMismatchError(
                f"Array {first.name!r} has shape {list(info.shape)} in one shard and "
                f"{list(first.shape)} in another.",
                array=first.name,
                expected=list(first.shape),
                found=list(info.shape),
            )
        if info.dtype != first.dtype:
            raise DtypeMismatchError(
                f"Array {first.name!r} holds {info.dtype} in one shard and {first.dtype} in "
                "another.",
                array=first.name,
                expected=str(first.dtype),
                found=str(info.dtype),
            )
    samples = sum(part.info.samples for part in parts)
    whole = ArrayInfo(first.name, first.dtype, (samples, *first.shape[1:]))
    return JoinedArray(whole, tuple(parts))
