"""Where received bytes go: files on disk, hashed on the way, and short texts in memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.hashed_file import HashedFile
from service.problems import Problem


@dataclass(frozen=True)
class ReceivedFile:
    """A complete upload, not yet flushed to disk.

    Attributes:
        path: The file.
        filename: The name its sender gave, as sent.
        sha256: Digest of its bytes, in hex.
        size_bytes: Its size; never 0.
    """

    path: Path
    filename: str
    sha256: str
    size_bytes: int

    def flush(self) -> None:
        """Wait until the bytes are on disk; takes no time where they are already.

        Raises:
            Problem: the disk is full.
        """
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            raise _disk_problem(error) from error
        finally:
            os.close(fd)


class FileSink:
    """A file that is written once, with a limit."""

    def __init__(
        self,
        path: Path,
        filename: str,
        *,
        max_bytes: int,
        too_large_code: str,
        part: str,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._path = path
        self._filename = filename
        self._max_bytes = max_bytes
        self._too_large_code = too_large_code
        self._part = part
        self._on_bytes = on_bytes
        self._size = 0
        self._file = HashedFile(path)

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes.

        Raises:
            Problem: the limit is passed, or the disk is full.
        """
        self._count(len(data))
        try:
            self._file.append(data)
        except OSError as error:
            raise _disk_problem(error) from error

    def room(self) -> memoryview:
        """Where the next bytes may be put, which saves a copy."""
        return self._file.room()

    def took(self, size_bytes: int) -> None:
        """Append bytes that are in the room.

        Raises:
            Problem: as `write`.
        """
        self._count(size_bytes)
        try:
            self._file.took(size_bytes)
        except OSError as error:
            raise _disk_problem(error) from error

    def expect(self, size_bytes: int) -> None:
        """Refuse on a declared size, before a byte comes.

        Raises:
            Problem: it is over the limit.
        """
        if size_bytes > self._max_bytes:
            raise Problem(
                self._too_large_code,
                f"The {self._part} has {size_bytes} bytes; at most {self._max_bytes} are taken.",
                part=self._part,
                limit_bytes=self._max_bytes,
            )

    def finish(self) -> ReceivedFile:
        """Close; the file is complete, but only `ReceivedFile.flush` makes it last.

        Raises:
            Problem: the file is empty, or the disk is full.
        """
        if self._size == 0:
            self.abandon()
            raise Problem("upload_empty", f"The {self._part} has no bytes.", part=self._part)
        try:
            sha256 = self._file.finish()
        except OSError as error:
            self.abandon()
            raise _disk_problem(error) from error
        return ReceivedFile(self._path, self._filename, sha256, self._size)

    def abandon(self) -> None:
        """Close and remove the file, unless it is finished."""
        if not self._file.is_closed:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _count(self, size_bytes: int) -> None:
        self._size += size_bytes
        if self._size > self._max_bytes:
            raise Problem(
                self._too_large_code,
                f"The {self._part} is larger than {self._max_bytes} bytes.",
                part=self._part,
                limit_bytes=self._max_bytes,
            )
        self._on_bytes(size_bytes)


class TextSink:
    """A short text in UTF-8."""

    def __init__(self, part: str, max_bytes: int) -> None:
        self._part = part
        self._max_bytes = max_bytes
        self._data = bytearray()

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes.

        Raises:
            Problem: the limit is passed.
        """
        if len(self._data) + len(data) > self._max_bytes:
            raise Problem(
                "text_part_too_large",
                f"The part {self._part!r} is longer than {self._max_bytes} bytes.",
                part=self._part,
                limit_bytes=self._max_bytes,
            )
        self._data += data

    def finish(self) -> str:
        """The text.

        Raises:
            Problem: it is not UTF-8.
        """
        try:
            return self._data.decode("utf-8")
        except UnicodeDecodeError:
            raise Problem(
                "multipart_invalid", f"The part {self._part!r} is not text in UTF-8."
            ) from None


def _disk_problem(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem("insufficient_storage", "The disk became full during the upload.")
    return error
