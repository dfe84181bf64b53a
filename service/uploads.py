"""Reading request bodies: limits first, then bytes to disk in threads, while the next ones come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from fastapi import Request
from python_multipart.multipart import parse_options_header

from service.bodies import body_chunks, read_body
from service.connections import DirectBody
from service.files import remove
from service.metrics import Metrics
from service.multipart import FilePart, Form, FormReader, TextPart
from service.problems import Problem
from service.receiving import Receiver
from service.settings import Settings
from service.sinks import FileSink, ReceivedFile
from service.sources import Sources, UrlSource
from service.storage import Storage

# Bytes handed to a thread at once: large enough that the hand-over costs nothing, small enough
# that memory stays flat. Of each upload there are two batches: one that is written, one that comes.
_BATCH_BYTES = 4 * 2**20
# Of the uploads that come faster than the event loop could hand them on, so many have a thread each
# that fetches them from the socket. There are as many as keep some processors busy with hashing.
_FETCHING_THREADS = 8
# The disk is looked at again after so many bytes of an upload.
_SPACE_CHECK_BYTES = 64 * 2**20
# Room for boundaries and headers of a multipart body, per part.
_OVERHEAD_BYTES = 16 * 2**10

_RAW_TYPES = frozenset(
    {
        b"",
        b"application/octet-stream",
        b"application/zip",
        b"application/x-npz",
        b"application/x-tar",
        b"application/gzip",
        b"application/vnd.apache.parquet",
    }
)


class Uploads:
    """Receives files for the store."""

    def __init__(
        self, settings: Settings, storage: Storage, metrics: Metrics, sources: Sources
    ) -> None:
        self._sources = sources
        self._fetching = anyio.CapacityLimiter(_FETCHING_THREADS)
        self._settings = settings
        self._storage = storage
        self._metrics = metrics

    @asynccontextmanager
    async def form(
        self, request: Request, expected: Mapping[str, FilePart | TextPart]
    ) -> AsyncIterator[Form]:
        """The parts of a multipart body; files that are not moved away are removed at the end.

        Raises:
            Problem: not multipart, malformed, an unexpected part, a limit, a full disk.
        """
        content_type = request.headers.get("content-type", "")
        if parse_options_header(content_type)[0] != b"multipart/form-data":
            raise Problem(
                "unsupported_media_type",
                f"The body is {content_type[:100] or 'of no type'!r}; send multipart/form-data.",
                headers={"Accept": "multipart/form-data"},
            )
        largest = sum(part.max_bytes for part in expected.values())
        self._check_length(request, largest + _OVERHEAD_BYTES * self._settings.max_parts)
        folder = await anyio.to_thread.run_sync(self._storage.new_temporary)
        try:
            reader = FormReader(
                content_type,
                expected,
                folder,
                max_parts=self._settings.max_parts,
                on_file_bytes=self._metrics.count_upload,
            )
            try:
                await self._pump(request, reader)
                form = reader.finish()
            finally:
                await _shielded(reader.close)
            yield form
        finally:
            await _shielded(remove, folder)

    @asynccontextmanager
    async def single_file(self, request: Request, part: FilePart) -> AsyncIterator[ReceivedFile]:
        """One file: the part `file` of a multipart body, or a raw body.

        Raises:
            Problem: as `form`; `part_missing` when there is no part `file`.
        """
        content_type, _ = parse_options_header(request.headers.get("content-type"))
        if content_type == b"multipart/form-data":
            async with self.form(request, {"file": part}) as form:
                if "file" not in form.files:
                    raise Problem("part_missing", "The part 'file' is missing.", part="file")
                yield form.files["file"]
        elif content_type == b"application/json":
            async with self._source(request, part) as received:
                yield received
        elif content_type in _RAW_TYPES:
            async with self._raw(request, part) as received:
                yield received
        else:
            raise Problem(
                "unsupported_media_type",
                f"The body is {content_type[:100].decode('latin-1')!r}; send "
                "multipart/form-data with a part 'file', or application/octet-stream.",
                headers={"Accept": "multipart/form-data, application/octet-stream"},
            )

    @asynccontextmanager
    async def _source(self, request: Request, part: FilePart) -> AsyncIterator[ReceivedFile]:
        """What a URL in a JSON body names."""
        self._check_length(request, self._settings.max_options_bytes, "body_too_large")
        source = await read_body(request, UrlSource, self._settings)
        folder = await anyio.to_thread.run_sync(self._storage.new_temporary)
        try:
            sink = FileSink(
                folder / "body",
                source.url.partition("?")[0].rpartition("/")[2],
                max_bytes=part.max_bytes,
                too_large_code=part.too_large_code,
                part="file",
                on_bytes=self._metrics.count_upload,
            )
            try:
                await anyio.to_thread.run_sync(self._sources.fetch, source.url, sink)
                received = await anyio.to_thread.run_sync(sink.finish)
            finally:
                await _shielded(sink.abandon)
            yield received
        finally:
            await _shielded(remove, folder)

    @asynccontextmanager
    async def _raw(self, request: Request, part: FilePart) -> AsyncIterator[ReceivedFile]:
        self._check_length(request, part.max_bytes, part.too_large_code)
        _, parameters = parse_options_header(request.headers.get("content-disposition"))
        filename = parameters.get(b"filename", b"").decode("utf-8", "replace")
        folder = await anyio.to_thread.run_sync(self._storage.new_temporary)
        try:
            sink = FileSink(
                folder / "body",
                filename,
                max_bytes=part.max_bytes,
                too_large_code=part.too_large_code,
                part="file",
                on_bytes=self._metrics.count_upload,
            )
            try:
                await self._pump(request, sink)
                received = await anyio.to_thread.run_sync(sink.finish)
            finally:
                await _shielded(sink.abandon)
            yield received
        finally:
            await _shielded(remove, folder)

    def _check_length(self, request: Request, largest: int, code: str = "upload_too_large") -> None:
        """Refuse on the declared length, before a byte of the body is read."""
        declared = request.headers.get("content-length")
        length = int(declared) if declared and declared.isascii() and declared.isdigit() else 0
        if length > largest:
            raise Problem(
                code,
                f"The body has {length} bytes; at most {largest} are taken.",
                limit_bytes=largest,
                declared_bytes=length,
            )
        self._storage.require_space(length)

    async def _pump(self, request: Request, receiver: Receiver) -> None:
        """Hand the body on in threads: in batches, and where it comes fast, by one that fetches it.

        Raises:
            Problem: `upload_stalled`, `insufficient_storage`, and what the receiver raises.
            ClientDisconnect: the client went away.
        """
        direct = DirectBody.of(request.scope)
        batch: list[bytes] = []
        size = since_check = 0
        async with _Writing(receiver.write) as writing:
            async for chunk in body_chunks(request, self._settings.upload_idle_timeout_s):
                batch.append(chunk)
                size += len(chunk)
                if size < _BATCH_BYTES:
                    continue
                since_check += size
                if since_check >= _SPACE_CHECK_BYTES:
                    self._storage.require_space()
                    since_check = 0
                await writing.put(batch)
                batch, size = [], 0
                if direct is not None:
                    await writing.settle()
                    while await direct.take(receiver, _SPACE_CHECK_BYTES, self._fetching):
                        self._storage.require_space()
            if batch:
                await writing.put(batch)


class _Writing:
    """Writes in a thread, one batch after the other; the next waits for the one before.

    However the block is left, nothing is being written afterwards.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._pending: asyncio.Task[None] | None = None

    async def put(self, batch: list[bytes]) -> None:
        """Begin to write a batch, once the one before is written.

        Raises:
            Problem: the one before could not be.
        """
        await self.settle()
        self._pending = asyncio.create_task(asyncio.to_thread(self._write_all, batch))

    def _write_all(self, batch: list[bytes]) -> None:
        for chunk in batch:
            self._write(chunk)

    async def __aenter__(self) -> _Writing:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self.settle()
        elif self._pending is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait({self._pending})
                if not self._pending.cancelled():
                    self._pending.exception()  # the first error is the one that is told

    async def settle(self) -> None:
        """Wait for what is being written; a cancelled wait leaves it to the end of the block."""
        pending = self._pending
        if pending is not None:
            await asyncio.shield(pending)
            self._pending = None


async def _shielded(clear: Callable[..., None], *arguments: object) -> None:
    """Clear up in a thread, also while the request is being cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(clear, *arguments)
