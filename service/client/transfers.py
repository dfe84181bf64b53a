"""Files up and down, a piece at a time.

An upload is hashed first: bytes that the service has already are not sent. A download goes into
`.NAME.DIGEST.part` beside its target; one that was cut short goes on where it ended, also in
another process, and is put in its place when its sha256 is that of the `ETag`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from service.client.errors import DownloadError

PIECE_BYTES = 2**20

OnBytes = Callable[[int, int], None]
"""Told the bytes that are done, and all there are."""


def ignore_bytes(done: int, total: int) -> None:
    """Tell nobody."""


def sha256_of(path: Path) -> str:
    """Digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces_of(path: Path, on_bytes: OnBytes) -> Iterator[bytes]:
    """A file's bytes, for the body of a request."""
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
            done += len(piece)
            on_bytes(done, total)


class PartialFile:
    """A download that may have begun before.

    Args:
        target: Where the file goes.
        etag: The strong ETag of what is downloaded: the sha256 in quotes.
        size_bytes: Its size.
    """

    def __init__(self, target: Path, etag: str, size_bytes: int) -> None:
        self.target = target
        self.etag = etag
        self.size_bytes = size_bytes
        self._digest = etag.strip('"')
        self._path = target.with_name(f".{target.name}.{self._digest[:16]}.part")

    @property
    def received_bytes(self) -> int:
        """Bytes that are there."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the rest, or for all of it should it have changed."""
        received = self.received_bytes
        return {"Range": f"bytes={received}-", "If-Range": self.etag} if received else {}

    def take(self, response: httpx.Response, on_bytes: OnBytes) -> None:
        """Write the body of a streamed answer behind what is there, or in its place.

        Raises:
            httpx.TransportError: the connection broke; what came is kept.
        """
        is_rest = response.status_code == 206
        with self._path.open("ab" if is_rest else "wb") as file:
            done = file.tell() if is_rest else 0
            for piece in response.iter_bytes():  # as they come: what came before a cut is kept
                file.write(piece)
                done += len(piece)
                on_bytes(done, self.size_bytes)

    def finish(self) -> Path:
        """Check the bytes and put the file in its place.

        Raises:
            DownloadError: they are not those that were promised; they are removed.
        """
        found = sha256_of(self._path)
        if found != self._digest:
            self._path.unlink()
            raise DownloadError(
                "The bytes that came are not those that the service has; download it again.",
                {"expected_sha256": self._digest, "found_sha256": found},
            )
        with self._path.open("rb") as file, contextlib.suppress(OSError):
            os.fsync(file.fileno())
        self._path.replace(self.target)
        return self.target
