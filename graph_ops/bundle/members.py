"""Members of an archive or a folder, read one after the other and never trusted.

An archive is listed before anything in it is used: a member may only be a plain file with a plain
relative name, and what it says of its size is held against the limits. Nothing is unpacked to a
path that the archive names.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, Final, Protocol

from graph_ops.bundle.arrays import CHUNK_BYTES, read_bytes
from graph_ops.bundle.limits import BundleLimits
from graph_ops.errors import BundleFormatError, BundleTooLargeError, DuplicateNameError

GZIP_SIGNATURE: Final = b"\x1f\x8b"
TAR_SIGNATURE: Final = b"ustar"
TAR_SIGNATURE_OFFSET: Final = 257
MAX_HEADER_BYTES: Final = 1 << 20
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
    RuntimeError,
    OSError,
)
_IGNORED_FOLDERS = frozenset({"__MACOSX"})


@dataclass(frozen=True)
class Member:
    """A plain file.

    Attributes:
        name: Relative path with `/`, without the one folder that everything lies in.
        stored_name: As the archive has it.
        size: Bytes, as declared.
    """

    name: str
    stored_name: str
    size: int


class Archive(Protocol):
    """What a bundle of images is read from."""

    @property
    def members(self) -> tuple[Member, ...]:
        """Its files."""
        ...

    def read(self, wanted: Collection[Member]) -> Iterator[tuple[Member, bytes | None]]:
        """Contents of some members in the archive's order; None for one that cannot be read."""
        ...


def is_tar(descriptor: int) -> bool:
    """Whether a file is a tar archive, compressed by gzip or not."""
    head = read_bytes(descriptor, TAR_SIGNATURE_OFFSET + len(TAR_SIGNATURE), 0)
    return head.startswith(GZIP_SIGNATURE) or head.endswith(TAR_SIGNATURE)


class ZipMembers:
    """A `.zip`."""

    def __init__(self, file: BinaryIO, entries: list[zipfile.ZipInfo], limits: BundleLimits):
        self._file = file
        for entry in entries:
            if (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
                raise _refused(entry.filename, "is a link or a device")
            if entry.flag_bits & 1:
                raise _refused(entry.filename, "is encrypted")
        plain = [(e.filename, e.file_size) for e in entries if not e.is_dir()]
        self.members = _checked(plain, os.fstat(file.fileno()).st_size, limits)
        self._limits = limits

    def read(self, wanted: Collection[Member]) -> Iterator[tuple[Member, bytes | None]]:
        """As `Archive.read`."""
        with (
            os.fdopen(os.dup(self._file.fileno()), "rb") as file,
            zipfile.ZipFile(file) as archive,
        ):
            for member in wanted:
                try:
                    with archive.open(member.stored_name) as packed:
                        content = packed.read(member.size + 1)
                except _DAMAGE:
                    content = None
                yield member, content if content and len(content) == member.size else None


class TarMembers:
    """A `.tar` or `.tar.gz`, read from front to back."""

    def __init__(self, file: BinaryIO, limits: BundleLimits) -> None:
        self._file = file
        self._limits = limits
        self._packed_bytes = os.fstat(file.fileno()).st_size
        found: list[tuple[str, int]] = []
        for info, _ in self._walk():
            found.append((info.name, info.size))
            limits.check_images(len(found))
        self.members = _checked(found, self._packed_bytes, limits)

    def read(self, wanted: Collection[Member]) -> Iterator[tuple[Member, bytes | None]]:
        """As `Archive.read`."""
        by_name = {member.stored_name: member for member in wanted}
        for info, archive in self._walk():
            member = by_name.get(info.name)
            if member is not None:
                file = archive.extractfile(info)
                content = b"" if file is None else file.read()
                yield member, content if len(content) == member.size else None

    def _walk(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        """The plain files; links, devices and headers of any size are refused."""
        try:
            with os.fdopen(os.dup(self._file.fileno()), "rb") as raw:
                raw.seek(0)
                is_packed = raw.read(2) == GZIP_SIGNATURE
                raw.seek(0)
                stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if is_packed else raw  # type: ignore[assignment]
                counted = _Counted(stream, self._most_bytes())
                with tarfile.open(fileobj=counted, mode="r|", tarinfo=_BoundedInfo) as archive:
                    for info in archive:
                        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                        if info.isdir():
                            continue
                        if not info.isreg() or info.issparse():
                            raise _refused(info.name, "is a link, a device or a sparse file")
                        yield info, archive
        except _DAMAGE as error:
            raise BundleFormatError(f"The bundle is not a readable tar archive: {error}.") from None

    def _most_bytes(self) -> int:
        ratio = int(self._packed_bytes * self._limits.max_unpacked_ratio)
        return min(self._limits.max_unpacked_bytes, max(self._limits.ratio_floor_bytes, ratio))


class FolderMembers:
    """A folder on this machine; links are followed nowhere."""

    def __init__(self, folder: Path, limits: BundleLimits) -> None:
        self._folder = folder
        found = []
        for parent, _, names in os.walk(folder):
            for name in names:
                path = Path(parent) / name
                if path.is_file() and not path.is_symlink():
                    found.append((path.relative_to(folder).as_posix(), path.stat().st_size))
                    limits.check_images(len(found))
        self.members = _checked(sorted(found), 0, limits, is_packed=False)

    @property
    def sha256(self) -> str:
        """Hex digest of the files' names, sizes and contents, in the order of the names."""
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(f"{member.stored_name}\0{member.size}\0".encode())
            with (self._folder / member.stored_name).open("rb") as file:
                while block := file.read(CHUNK_BYTES):
                    digest.update(block)
        return digest.hexdigest()

    def read(self, wanted: Collection[Member]) -> Iterator[tuple[Member, bytes | None]]:
        """As `Archive.read`."""
        for member in wanted:
            try:
                yield member, (self._folder / member.stored_name).read_bytes()
            except OSError:
                yield member, None


class _BoundedInfo(tarfile.TarInfo):
    """A header whose extension records, which are read into memory, may not be of any size."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size > MAX_HEADER_BYTES and self.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        ):
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


class _Counted(io.RawIOBase):
    """A stream that ends with an error once it has given too many bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._left = most
        self._most = most

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(min(size, 1 << 20) if size >= 0 else 1 << 20)
        self._left -= len(block)
        if self._left < 0:
            raise BundleTooLargeError(
                f"The bundle unpacks to more than {self._most} bytes, which its size or the limits "
                "do not allow.",
                limit="max_unpacked_bytes",
                expected=self._most,
            )
        return block


def _checked(
    found: list[tuple[str, int]],
    packed_bytes: int,
    limits: BundleLimits,
    *,
    is_packed: bool = True,
) -> tuple[Member, ...]:
    """The members that count, each with a safe name of its own and a size within the limits."""
    limits.check_images(len(found))
    plain: dict[str, tuple[str, int]] = {}
    for stored, size in found:
        path = PurePosixPath(stored)
        if is_packed and (
            path.is_absolute()
            or ".." in path.parts
            or "\\" in stored
            or "\0" in stored
            or PureWindowsPath(stored).drive
        ):
            raise _refused(stored, "names a file outside the archive")
        parts = path.parts
        if not parts or parts[0] in _IGNORED_FOLDERS or parts[-1].startswith("."):
            continue
        name = path.as_posix()
        if name in plain:
            raise DuplicateNameError(f"The bundle holds {name!r} twice; keep one.", array=name)
        limits.check_image_bytes(name, size)
        plain[name] = (stored, size)
    if is_packed:
        limits.check_unpacked(sum(size for _, size in plain.values()), packed_bytes)
    skip = _common_folder(plain)
    return tuple(Member(name[skip:], stored, size) for name, (stored, size) in plain.items())


def _common_folder(names: Collection[str]) -> int:
    """Letters of the one folder that everything lies in, if it has files or folders beside it.

    A folder with nothing but images is a class, also when it is the only one.
    """
    tops = {name.split("/", 1)[0] for name in names if "/" in name}
    is_only = len(tops) == 1 and all("/" in name for name in names)
    if not is_only or not any(
        name.count("/") > 1 or name.endswith((".json", ".csv")) for name in names
    ):
        return 0
    return len(next(iter(tops))) + 1


def _refused(name: str, problem: str) -> BundleFormatError:
    return BundleFormatError(
        f"Member {name[:200]!r} of the bundle {problem}. Put plain files with plain relative names "
        "there.",
        member=name[:200],
    )
