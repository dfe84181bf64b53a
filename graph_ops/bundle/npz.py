"""`.npz`: a zip archive of `.npy` members.

Members that are only stored are read in place: the local file header (APPNOTE.TXT 4.3.7) tells
where their bytes start. Their checksums are held against them by who uses the arrays (`verify`):
what is in a file of any size is told without reading it. Deflated members are inflated once, as a
stream, to a temporary file. `zipfile` reads the central directory; the inflating is done here
because the real size has to be held against the declared one, and `zipfile` cuts a member off at
its declared size.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from graph_ops.bundle.arrays import (
    CHUNK_BYTES,
    ArrayInfo,
    Checksum,
    ReadableArray,
    StoredArray,
    read_bytes,
    read_chunks,
    read_into,
    temporary_file,
    write_all,
)
from graph_ops.bundle.limits import BundleLimits
from graph_ops.bundle.npy import HEADER_PREFIX_BYTES, NpyHeader, parse_header
from graph_ops.errors import BundleFormatError, BundleTooLargeError, DuplicateNameError

MAX_DIRECTORY_BYTES = 4 << 20
MAX_FORTRAN_BYTES = 64 << 20

LOCAL_HEADER = struct.Struct("<4s22xHH")
LOCAL_SIGNATURE = b"PK\x03\x04"
ENCRYPTED_FLAG = 1
_WRONG_CHECKSUM = "does not match its checksum"


@dataclass(frozen=True)
class _Member:
    """A `.npy` member: the name of its array, its directory entry and where its bytes start."""

    name: str
    entry: zipfile.ZipInfo
    offset: int


class _DirectoryFile(io.FileIO):
    """A file for `zipfile` that does not read a central directory of any size into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise BundleTooLargeError(
                f"The archive's directory takes {size} bytes; the limit is {MAX_DIRECTORY_BYTES}.",
                limit="directory_bytes",
                expected=MAX_DIRECTORY_BYTES,
                found=size,
            )
        return super().read(size) or b""


def open_npz(file: BinaryIO, limits: BundleLimits, resources: ExitStack) -> list[StoredArray]:
    """Find the arrays of an `.npz` file; `verify` is to be called before they are used.

    Args:
        file: The open file; it outlives the arrays.
        limits: What the bundle may hold.
        resources: Takes over the temporary files that deflated members are unpacked to.

    Raises:
        BundleFormatError: not a zip archive of `.npy` members, or a damaged one.
        BundleTooLargeError: over one of the limits.
        DuplicateNameError: two members have one name.
        PickledBundleError: a member holds Python objects.
    """
    members = _members(file.fileno(), limits)
    limits.check_sizes(
        {member.name: member.entry.file_size for member in members},
        sum(member.entry.compress_size for member in members),
    )
    return [_open_member(member, file, resources) for member in members]


def verify(arrays: Iterable[ReadableArray]) -> None:
    """Hold the bytes of arrays against their checksums, where that was not done yet.

    Raises:
        BundleFormatError: one is damaged.
    """
    for array in arrays:
        checksum = array.checksum if isinstance(array, StoredArray) else None
        if checksum is not None and not checksum.holds():
            raise _damaged(f"{array.info.name}.npy", _WRONG_CHECKSUM)


def _members(descriptor: int, limits: BundleLimits) -> list[_Member]:
    entries = read_directory(descriptor)
    limits.check_count(len(entries))
    seen: set[str] = set()
    for entry in entries:
        if entry.filename in seen:
            raise DuplicateNameError(
                f"The bundle holds {entry.filename!r} twice; every array needs its own name.",
                array=entry.filename.removesuffix(".npy"),
            )
        seen.add(entry.filename)
    members = [
        _Member(entry.filename.removesuffix(".npy"), entry, _data_offset(entry, descriptor))
        for entry in entries
        if entry.filename.endswith(".npy")
    ]
    if entries and not members:
        raise BundleFormatError(
            f"The archive holds no .npy members (it holds {entries[0].filename!r}); write the "
            "bundle with np.savez(path, **arrays), each array named as the model's input.",
            found=[entry.filename for entry in entries[:20]],
        )
    _check_extents(members, os.fstat(descriptor).st_size)
    return members


def read_directory(descriptor: int) -> list[zipfile.ZipInfo]:
    """Entries of a zip archive's directory, which is read only up to a size.

    Raises:
        BundleFormatError: it cannot be read.
        BundleTooLargeError: it is too large.
    """
    try:
        with _DirectoryFile(os.dup(descriptor)) as file, zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        struct.error,
        ValueError,
        OverflowError,
        OSError,
    ) as error:
        raise BundleFormatError(
            f"The bundle is not a readable .npz file ({error}); it may be truncated."
        ) from error


def _data_offset(entry: zipfile.ZipInfo, descriptor: int) -> int:
    """Offset of the member's bytes: behind its local header, whose length varies."""
    if entry.flag_bits & ENCRYPTED_FLAG:
        raise _damaged(entry.filename, "is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _damaged(
            entry.filename,
            f"uses compression method {entry.compress_type}; only stored and deflated work",
        )
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise _damaged(entry.filename, "is stored, but its packed and unpacked sizes differ")
    if entry.header_offset < 0:
        raise _damaged(entry.filename, "starts before the file does")
    header = read_bytes(descriptor, LOCAL_HEADER.size, entry.header_offset)
    if len(header) < LOCAL_HEADER.size or not header.startswith(LOCAL_SIGNATURE):
        raise _damaged(entry.filename, "has no local header")
    _, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    return int(entry.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes)


def _check_extents(members: list[_Member], file_bytes: int) -> None:
    """Members lie inside the file and do not overlap (an overlap packs one bomb many times)."""
    end = 0
    for member in sorted(members, key=lambda m: m.entry.header_offset):
        if member.entry.header_offset < end:
            raise _damaged(member.entry.filename, "overlaps another member")
        end = member.offset + member.entry.compress_size
        if end > file_bytes:
            raise _damaged(
                member.entry.filename, f"ends at byte {end}, but the file at {file_bytes}"
            )


def _open_member(member: _Member, file: BinaryIO, resources: ExitStack) -> StoredArray:
    source, offset = file, member.offset
    if member.entry.compress_type == zipfile.ZIP_DEFLATED:
        source, offset = temporary_file(resources), 0
        _unpack(member, file.fileno(), source)
        checksum = None
    else:
        checksum = Checksum(file.fileno(), offset, member.entry.file_size, member.entry.CRC)
    size = member.entry.file_size
    prefix = read_bytes(source.fileno(), min(size, HEADER_PREFIX_BYTES), offset)
    header = parse_header(member.name, prefix, size)
    offset += header.size_bytes
    if header.is_fortran and len(header.shape) > 1:
        target = temporary_file(resources)
        _write_c_order(member.name, header, source.fileno(), offset, target)
        source, offset = target, 0
    info = ArrayInfo(member.name, header.dtype.newbyteorder("="), header.shape)
    return StoredArray(info, source.fileno(), offset, header.dtype, checksum)


def _unpack(member: _Member, descriptor: int, target: BinaryIO) -> None:
    """Inflate a member as a stream; stop as soon as it is larger than it said."""
    entry = member.entry
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, crc = 0, 0
    try:
        for packed in read_chunks(descriptor, member.offset, entry.compress_size):
            pending = packed
            while pending and not inflate.eof:
                block = inflate.decompress(pending, CHUNK_BYTES)
                pending = inflate.unconsumed_tail
                size += len(block)
                if size > entry.file_size:
                    raise BundleTooLargeError(
                        f"Array {member.name!r} unpacks to more than the {entry.file_size} bytes "
                        "it declares.",
                        array=member.name,
                        limit="declared_bytes",
                        expected=entry.file_size,
                        found=size,
                    )
                crc = zlib.crc32(block, crc)
                write_all(target, block)
    except zlib.error as error:
        raise _damaged(entry.filename, f"cannot be inflated ({error})") from error
    if not inflate.eof or size != entry.file_size:
        raise _damaged(entry.filename, f"declares {entry.file_size} bytes and unpacks to {size}")
    if crc != entry.CRC:
        raise _damaged(entry.filename, _WRONG_CHECKSUM)


def _write_c_order(
    name: str, header: NpyHeader, descriptor: int, offset: int, target: BinaryIO
) -> None:
    """Copy an array in Fortran order to a file in C order.

    Raises:
        BundleFormatError: it is too large to be turned in memory. (Turned as a stream it would
            cost one read per element in the worst case.)
    """
    size = math.prod(header.shape) * header.dtype.itemsize
    if size > MAX_FORTRAN_BYTES:
        raise BundleFormatError(
            f"Array {name!r} is stored in Fortran order, which works up to {MAX_FORTRAN_BYTES} "
            f"bytes; it has {size}. Save np.ascontiguousarray(array).",
            array=name,
            expected=MAX_FORTRAN_BYTES,
            found=size,
        )
    raw = np.empty(size, np.uint8)
    read_into(descriptor, raw, offset)
    if size:
        # The bytes in Fortran order are those of the transpose in C order.
        turned = raw.view(header.dtype).reshape(header.shape[::-1]).T
        write_all(target, turned.tobytes())


def _damaged(member: str, problem: str) -> BundleFormatError:
    return BundleFormatError(
        f"Member {member!r} {problem}. Write the bundle again with np.savez.",
        array=member.removesuffix(".npy"),
    )
