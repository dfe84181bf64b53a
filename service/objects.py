"""Where files are kept for good: the data folder itself, or object storage (S3 and compatible).

On one machine, or where all share a file system, `DATA_DIR` is all there is: `NoObjects`. With
`STORAGE_URL=s3://bucket/prefix` every file that counts is an object, and `DATA_DIR` is a cache
of the machine's own: a file is written to both, and fetched when it is missing here.

    models/{sha256}/file, about.json    bundles/{sha256}/...    jobs/{id}/checkpoint/, results-{n}/

`about.json` is written last and removed first, so a model or bundle is there completely or not
at all. Credentials, region and endpoint come from the usual `AWS_*` variables. The client is
obstore, on the Rust crate `object_store` of Apache Arrow: multipart uploads and retries are its.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

_PIECE_BYTES = 8 * 2**20
_AT_ONCE = 4
_RETRY_S = 5.0


class StorageUnavailable(OSError):  # noqa: N818 - the words of the problem
    """The object storage does not answer, or refuses."""


@dataclass(frozen=True)
class StoredObject:
    """An object in a listing.

    Attributes:
        name: Its name below the store's prefix.
        size_bytes: Its size.
        changed_at: When it was written, seconds since the epoch.
    """

    name: str
    size_bytes: int
    changed_at: float


class Objects(Protocol):
    """Files by name. Methods block, and raise `StorageUnavailable`."""

    @property
    def is_remote(self) -> bool:
        """Whether the objects count, and local files are copies of them."""

    def put(self, name: str, path: Path) -> None:
        """Store a file."""

    def read(self, name: str) -> tuple[bytes, float] | None:
        """A small object's bytes and the time it was written, or None."""

    def fetch(self, name: str, target: Path) -> bool:
        """Write an object to a file, completely or not at all; False when there is none."""

    def folders(self, prefix: str) -> list[str]:
        """Names of what is directly below `prefix`."""

    def below(self, prefix: str) -> list[StoredObject]:
        """All objects below `prefix`."""

    def delete(self, names: list[str]) -> None:
        """Remove objects; those that are not there are fine."""

    def check(self) -> None:
        """Ask the storage for something."""


class NoObjects:
    """The data folder is all there is."""

    is_remote = False

    def put(self, name: str, path: Path) -> None:
        """Nothing: the file is where it belongs."""

    def read(self, name: str) -> tuple[bytes, float] | None:
        """None."""
        return None

    def fetch(self, name: str, target: Path) -> bool:
        """False."""
        return False

    def folders(self, prefix: str) -> list[str]:
        """None."""
        return []

    def below(self, prefix: str) -> list[StoredObject]:
        """None."""
        return []

    def delete(self, names: list[str]) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""


class ObjectStorage:
    """A bucket, or a prefix in one.

    Args:
        url: `s3://bucket` or `s3://bucket/prefix`.
    """

    is_remote = True

    def __init__(self, url: str) -> None:
        self._store = open_store(url)

    def put(self, name: str, path: Path) -> None:
        """Store a file, in parts where it is large."""
        import obstore

        with _translated():
            obstore.put(self._store, name, path, chunk_size=_PIECE_BYTES, max_concurrency=_AT_ONCE)

    def read(self, name: str) -> tuple[bytes, float] | None:
        """A small object's bytes and the time it was written, or None."""
        import obstore

        try:
            with _translated():
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["last_modified"].timestamp()
        except FileNotFoundError:
            return None

    def fetch(self, name: str, target: Path) -> bool:
        """Write an object to a file, completely or not at all; False when there is none."""
        import obstore

        temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
        try:
            with _translated():
                found = obstore.get(self._store, name)
                with temporary.open("xb") as file:
                    for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.replace(target)
            return True
        except FileNotFoundError:
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def folders(self, prefix: str) -> list[str]:
        """Names of what is directly below `prefix`."""
        import obstore

        with _translated():
            found = obstore.list_with_delimiter(self._store, prefix)
        return [str(path).rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]

    def below(self, prefix: str) -> list[StoredObject]:
        """All objects below `prefix`."""
        import obstore

        with _translated():
            return [
                StoredObject(
                    str(meta["path"]), int(meta["size"]), meta["last_modified"].timestamp()
                )
                for page in obstore.list(self._store, prefix)
                for meta in page
            ]

    def delete(self, names: list[str]) -> None:
        """Remove objects; those that are not there are fine."""
        import obstore

        for name in names:
            try:
                with _translated():
                    obstore.delete(self._store, name)
            except FileNotFoundError:
                continue

    def check(self) -> None:
        """Ask the storage for something."""
        self.read("is-it-there")


def open_objects(url: str | None) -> Objects:
    """The storage of a `STORAGE_URL`."""
    return NoObjects() if url is None else ObjectStorage(url)


def open_store(url: str) -> Any:
    """A client for a bucket, by its URL.

    Raises:
        ValueError: it cannot be one.
    """
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    try:
        return from_url(
            url,
            client_options={
                "allow_http": endpoint.startswith("http:"),
                "connect_timeout": "5s",
                "timeout": "300s",
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=_RETRY_S)},
        )
    except BaseError as error:
        raise ValueError(str(error)) from None


@contextmanager
def reading(store: Any, name: str) -> Iterator[Any]:
    """An object that is read a piece at a time.

    Raises:
        FileNotFoundError: there is none.
        StorageUnavailable: also in the middle.
    """
    import obstore

    with _translated():
        yield obstore.get(store, name)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn the client's errors into ours; `FileNotFoundError` stays what it is."""
    from obstore.exceptions import BaseError, NotFoundError

    try:
        yield
    except NotFoundError as error:
        raise FileNotFoundError(str(error)) from None
    except BaseError as error:
        raise StorageUnavailable(f"The object storage failed: {type(error).__name__}.") from error
