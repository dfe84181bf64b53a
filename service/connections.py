"""uvicorn's HTTP connections, made for large bodies.

What an upload costs is the number of its pieces, each of which passes through the event loop and
the application, and of the copies of its bytes. By default asyncio reads at most 256 KiB at once;
uvicorn stops reading while 64 KiB wait, and copies what waits twice, after the parser has copied
it. Here up to a megabyte is read at once and may wait, and where a request declares the length of
its body, the parser sees of it no more than came with the headers: the rest is counted, and handed
on as it was read. Where it is long and comes in plain, an application that wants it to be somewhere
may have a thread receive it there (`DirectBody`), and nothing of it passes through the event loop.

The parser of httptools is fast, but keeps a header until it ends, however long it gets. So bytes
of which nothing comes (no request, no body) are counted, and a request with too many is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.to_thread
import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.receiving import Receiver, Turn

# The most that is read at once, and about what may wait for the application, per connection.
PIECE_BYTES = 2**20
# Bytes of a request line with headers, or of trailers, beyond those of the piece they begin in.
MAX_HEAD_BYTES = 2**16
# Under this name a request's scope has, among its extensions, its `DirectBody`, if it has one.
_DIRECT_BODY = "pruner.direct_body"


class Connection(HttpToolsProtocol):
    """A connection of a client."""

    # uvicorn keeps a body in a bytearray; here it may be bytes, which its `receive` does not copy.
    cycle: Any

    _fruitless_bytes = 0
    # What is still to come of a body whose length was declared.
    _rest_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        transport.max_size = PIECE_BYTES  # type: ignore[attr-defined]
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take what was read."""
        if self._rest_bytes:
            data = self._take_body(data)
            if not data:
                return
        self._fruitless_bytes += len(data)
        super().data_received(data)
        if self._fruitless_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are longer than {MAX_HEAD_BYTES} bytes.")

    def _take_body(self, data: bytes) -> bytes:
        """Hand on what belongs to the body; what follows it."""
        body, data = data[: self._rest_bytes], data[self._rest_bytes :]  # copies only if cut
        self.on_body(body)
        if not self._rest_bytes:
            self._end_body()
        return data

    def _end_body(self) -> None:
        self.on_message_complete()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def rest_of(self, cycle: Any) -> int:
        """Bytes of a request's body that can still be read from the socket."""
        is_lost = cycle.disconnected or self.transport.is_closing()
        return 0 if is_lost or cycle is not self.cycle else self._rest_bytes

    def count_body(self, size_bytes: int) -> None:
        """Take note of bytes of the body that somebody has read from the socket."""
        self._rest_bytes -= size_bytes
        is_lost = self.parser is None
        if size_bytes and not self._rest_bytes and not is_lost:
            self._end_body()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._fruitless_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers of a request are there."""
        self._fruitless_bytes = 0
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            # The parser takes one such header at most, and none but digits.
            lengths = [int(value) for name, value in self.headers if name == b"content-length"]
            self._rest_bytes = sum(lengths)
            if self._rest_bytes > PIECE_BYTES and self.scheme == "http":
                extensions = self.cycle.scope.setdefault("extensions", {})
                extensions[_DIRECT_BODY] = DirectBody(self)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body for the application; too much of it stops the reading."""
        self._fruitless_bytes = 0
        self._rest_bytes = max(0, self._rest_bytes - len(body))
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body = cycle.body + body if cycle.body else body
        if len(cycle.body) >= PIECE_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """A request has ended."""
        self._fruitless_bytes = 0
        super().on_message_complete()


class DirectBody:
    """What is still to come of a request's body, for a thread that receives it itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cycle = connection.cycle

    @staticmethod
    def of(scope: Scope) -> DirectBody | None:
        """That of a request; None where its body has to pass through the event loop."""
        found = scope.get("extensions", {}).get(_DIRECT_BODY)
        return found if isinstance(found, DirectBody) else None

    async def take(
        self, receiver: Receiver, most_bytes: int, threads: anyio.CapacityLimiter
    ) -> bool:
        """Have a thread receive what comes without pause, at most so many bytes.

        Nobody may read from the body meanwhile. Afterwards the application reads on as before:
        what is left, the end, or that the client has gone. However this is left, the receiver is
        not used any more.

        Args:
            receiver: Gets the bytes.
            most_bytes: How many at most.
            threads: If none is to be had, nothing is received.

        Returns:
            Whether all came that were asked for, and more will.

        Raises:
            Exception: what the receiver raises.
        """
        connection, cycle = self._connection, self._cycle
        size = min(most_bytes, connection.rest_of(cycle))
        if not size or threads.available_tokens < 1:
            return False
        connection.flow.pause_reading()
        waiting, cycle.body = cycle.body, b""
        cycle.message_event.clear()
        with connection.transport.get_extra_info("socket").dup() as copy:
            turn = Turn(copy, receiver, size)
            work = asyncio.create_task(anyio.to_thread.run_sync(turn.run, waiting, limiter=threads))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({work})
                    if not work.cancelled():
                        work.exception()  # who is cancelled is not told
                raise
            finally:
                connection.count_body(turn.taken_bytes)
        return turn.taken_bytes == most_bytes and connection.rest_of(cycle) > 0
