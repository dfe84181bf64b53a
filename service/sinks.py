"""Where received bytes go: files on disk, hashed on the way, and short texts in memory.

The kernel keeps written bytes in memory until much of that is used up; flushing a file of some
gigabytes then takes as long as the disk needs for all of it. So the disk is set to work while the
bytes still come, and flushing the rest can go on beside whatever reads the file.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from service.problems import Problem

# Shorter pieces are hashed before they are written, longer ones at the same time: both take about
# as long, and a piece of this size many times longer than waking a thread.
_LONG_PIECE_BYTES = 2**18
# So many bytes are handed to the disk at once.
_WRITE_BACK_BYTES = 32 * 2**20
_SYNC_FILE_RANGE_WRITE = 2


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
        self._digest = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, "sha256")
        self._size = self._handed_over = 0
        self._file = path.open("xb", buffering=0)

    def write(self, data: memoryview | bytes) -> None:
        """Append bytes.

        Raises:
            Problem: the limit is passed, or the disk is full.
        """
        self._size += len(data)
        if self._size > self._max_bytes:
            raise Problem(
                self._too_large_code,
                f"The {self._part} is larger than {self._max_bytes} bytes.",
                part=self._part,
                limit_bytes=self._max_bytes,
            )
        self._on_bytes(len(data))
        if len(data) < _LONG_PIECE_BYTES:
            self._digest.update(data)
            self._write(data)
            return
        hashed = self._hashing.submit(self._digest.update, data)
        try:
            self._write(data)
        finally:
            hashed.result()  # the bytes are the caller's again

    def _write(self, data: memoryview | bytes) -> None:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _disk_problem(error) from error
        if self._size - self._handed_over >= _WRITE_BACK_BYTES:
            _begin_write_back(self._file.fileno(), self._handed_over, self._size)
            self._handed_over = self._size

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
            Problem: the file is empty.
        """
        if self._size == 0:
            self.abandon()
            raise Problem("upload_empty", f"The {self._part} has no bytes.", part=self._part)
        self._close()
        return ReceivedFile(self._path, self._filename, self._digest.hexdigest(), self._size)

    def abandon(self) -> None:
        """Close and remove the file, unless it is finished."""
        if not self._file.closed:
            self._close()
            self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._file.close()
        self._hashing.shutdown()


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


def _begin_write_back(fd: int, start: int, end: int) -> None:
    """Let the disk begin with some bytes of a file; a hint, which may come to nothing."""
    offset, count = ctypes.c_int64(start), ctypes.c_int64(end - start)
    ctypes.CDLL(None).sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def _disk_problem(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem("insufficient_storage", "The disk became full during the upload.")
    return error
