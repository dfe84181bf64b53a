"""A file that is written once, from front to back, and its SHA-256.

Hashing takes longer than receiving and writing together, so it is what must never wait: it has a
thread of its own, and goes on with one block while the next ones are gathered and written.

What is written goes into the kernel's cache, where those who read the file soon find it. But much
of it costs: memory has to be found and copied to, and flushing takes as long as the disk needs for
all that it has not begun with. So the disk is set to work while the bytes still come, and what
makes a file a large one goes to it past the cache (`O_DIRECT`), in blocks that lie where it can
fetch them and begin at a multiple of any disk's sectors. Where the file system does not take them
so, and for what follows the last whole block, the cache it is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

# What is hashed and written at once.
BLOCK_BYTES = 2 * 2**20
# One is gathered or written, the others wait to be hashed.
_BLOCKS = 3
# So many bytes of a file go into the cache, in whole blocks.
_CACHED_BYTES = 64 * 2**20
# So many bytes are handed to the disk at once; what is there already costs nothing.
_WRITE_BACK_BYTES = 32 * 2**20
_SYNC_FILE_RANGE_WRITE = 2


class HashedFile:
    """A new file. Used by one thread at a time.

    Any method raises `OSError` when the disk does not take the bytes.

    Args:
        path: Where; nothing may be there.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._digest = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, "sha256")
        self._being_hashed: deque[Future[None]] = deque()
        self._blocks = _new_blocks()
        self._block = self._blocks[0]
        self._gathered = 0
        self._written = self._handed_over = 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._fd < 0

    def append(self, data: memoryview | bytes) -> None:
        """Take the next bytes; they are the caller's again afterwards."""
        rest = memoryview(data)
        while rest:
            size = min(len(rest), BLOCK_BYTES - self._gathered)
            self._block[self._gathered : self._gathered + size] = rest[:size]
            self._gathered += size
            rest = rest[size:]
            if self._gathered == BLOCK_BYTES:
                self._put_block()

    def finish(self) -> str:
        """Write what is left and close; the digest of all bytes, in hex."""
        rest = self._block[: self._gathered]
        self._bypass_cache(False)
        self._write(rest)
        while self._being_hashed:
            self._being_hashed.popleft().result()
        self._digest.update(rest)
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close, whatever is missing."""
        if not self.is_closed:
            os.close(self._fd)
            self._fd = -1
            self._hashing.shutdown()

    def _put_block(self) -> None:
        """Hash and write the block, and go on with one that is hashed."""
        self._being_hashed.append(self._hashing.submit(self._digest.update, self._block))
        if self._written == _CACHED_BYTES:
            self._bypass_cache(True)
        self._write(self._block)
        if len(self._being_hashed) == _BLOCKS:
            self._being_hashed.popleft().result()
        self._gathered = 0
        self._block = self._blocks[self._written // BLOCK_BYTES % _BLOCKS]

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                size = os.write(self._fd, data)
            except OSError as error:
                if error.errno == errno.EINVAL and self._bypass_cache(False):
                    continue  # the file system took the flag, but does not take the bytes
                raise
            self._written += size
            data = data[size:]
        if self._written - self._handed_over >= _WRITE_BACK_BYTES:
            _begin_write_back(self._fd, self._handed_over, self._written)
            self._handed_over = self._written

    def _bypass_cache(self, wanted: bool) -> bool:
        """Write past the cache from here on, or not; whether that changes anything."""
        before = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        after = before | os.O_DIRECT if wanted else before & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, after)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return after != before


def _new_blocks() -> list[memoryview]:
    """Blocks that begin on a page; memory is taken as they are filled."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = memoryview(mmap.mmap(-1, _BLOCKS * BLOCK_BYTES, flags=flags))
    return [memory[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES] for i in range(_BLOCKS)]


def _begin_write_back(fd: int, start: int, end: int) -> None:
    """Let the disk begin with some bytes of a file; a hint, which may come to nothing."""
    offset, count = ctypes.c_int64(start), ctypes.c_int64(end - start)
    ctypes.CDLL(None).sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)
