"""A file that is written once, from front to back, and its SHA-256.

Hashing takes longer than receiving and writing together, so it is what must never wait: it has a
thread of its own, and so has writing. Blocks that are full are given to both, and meanwhile the
next one is filled, by the caller himself if he likes (`room`), which saves a copy of every byte.

What is written goes into the kernel's cache, where those who read the file soon find it. But much
of it costs: memory has to be found and copied to, and flushing takes as long as the disk needs for
all that it has not begun with. So the disk is set to work while the bytes still come, and what
makes a file a large one goes to it past the cache (`O_DIRECT`), in blocks that lie where it can
fetch them and begin at a multiple of any disk's sectors. Where the file system does not take them
so, and for what follows the last whole block, the cache it is.
"""

from __future__ import annotations

import contextlib
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
BLOCK_BYTES = 2**20
# One is filled, the others are hashed and written, or wait for that. A file of less than a block
# has one alone.
_BLOCKS = 8
# So many bytes of a file go into the cache, in whole blocks.
_CACHED_BYTES = 64 * 2**20
# So many bytes are handed to the disk at once; what is there already costs nothing.
_WRITE_BACK_BYTES = 32 * 2**20
_SYNC_FILE_RANGE_WRITE = 2


class HashedFile:
    """A new file. Used by one thread at a time.

    Any method raises `OSError` when the disk did not take the bytes, of this call or before.

    Args:
        path: Where; nothing may be there.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._digest = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1, "sha256")
        self._writing = ThreadPoolExecutor(1, "write")
        self._block = _memory(BLOCK_BYTES)
        self._filled = 0
        self._free: list[memoryview] | None = None
        self._at_work: deque[tuple[memoryview, Future[None], Future[None]]] = deque()
        self._written = self._handed_over = 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._fd < 0

    def room(self) -> memoryview:
        """Where the next bytes belong, for at least one; `took` says how many are there."""
        return self._block[self._filled :]

    def took(self, size_bytes: int) -> None:
        """Take bytes that were put into the room."""
        self._filled += size_bytes
        if self._filled == BLOCK_BYTES:
            self._put_block()

    def append(self, data: memoryview | bytes) -> None:
        """Take the next bytes; they are the caller's again afterwards."""
        rest = memoryview(data)
        while rest:
            room = self.room()
            size = min(len(rest), len(room))
            room[:size] = rest[:size]
            self.took(size)
            rest = rest[size:]

    def finish(self) -> str:
        """Write what is left and close; the digest of all bytes, in hex."""
        while self._at_work:
            self._take_back()
        rest = self._block[: self._filled]
        self._bypass_cache(False)
        self._write(rest)
        self._digest.update(rest)
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close, whatever is missing."""
        if not self.is_closed:
            for threads in (self._writing, self._hashing):
                threads.shutdown(cancel_futures=True)
            os.close(self._fd)  # not before: its number may be another file's soon
            self._fd = -1

    def _put_block(self) -> None:
        """Have the block hashed and written, and go on with one that is both."""
        block = self._block
        hashed = self._hashing.submit(self._digest.update, block)
        self._at_work.append((block, hashed, self._writing.submit(self._write_block, block)))
        if self._free is None:
            self._free = _huge_blocks()
        while self._at_work and self._at_work[0][1].done() and self._at_work[0][2].done():
            self._free.append(self._take_back())
        # The last that came free is the one that the processor's cache still holds.
        self._block = self._free.pop() if self._free else self._take_back()
        self._filled = 0

    def _take_back(self) -> memoryview:
        """The block that has been at work for longest, once that is done."""
        block, hashed, written = self._at_work.popleft()
        hashed.result()
        written.result()
        return block

    def _write_block(self, block: memoryview) -> None:
        if self._written == _CACHED_BYTES:
            self._bypass_cache(True)
        self._write(block)

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


def _memory(size_bytes: int) -> memoryview:
    """Memory that begins on a page, and is taken as it is filled."""
    return memoryview(mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def _huge_blocks() -> list[memoryview]:
    """All blocks but the first, in huge pages where there are such.

    A disk that fetches a block itself is told each of its pages, and the processor looks up each
    that it copies or hashes.
    """
    size_bytes = (_BLOCKS - 1) * BLOCK_BYTES
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)
    return [view[start : start + BLOCK_BYTES] for start in range(0, size_bytes, BLOCK_BYTES)]


def _begin_write_back(fd: int, start: int, end: int) -> None:
    """Let the disk begin with some bytes of a file; a hint, which may come to nothing."""
    offset, count = ctypes.c_int64(start), ctypes.c_int64(end - start)
    ctypes.CDLL(None).sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)
