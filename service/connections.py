"""uvicorn's HTTP connections, made for large bodies.

What an upload costs is the number of its pieces: each passes through the event loop, the parser
and the application. By default asyncio reads at most 256 KiB at once, into new memory; uvicorn
stops reading while 64 KiB wait, and copies what waits twice. Here up to a megabyte is read at once
and may wait. It is read into one buffer that all connections share, since nothing of it is used
once the parser has seen it; and a piece that waits alone is handed on as it is.

The parser of httptools is fast, but keeps a header until it ends, however long it gets. So bytes
of which nothing comes (no request, no body) are counted, and a request with too many is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# The most that is read at once, and about what may wait for the application, per connection.
PIECE_BYTES = 2**20
# Bytes of a request line with headers, or of trailers, beyond those of the piece they begin in.
MAX_HEAD_BYTES = 2**16

_BUFFER = memoryview(bytearray(PIECE_BYTES))


class Connection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """A connection of a client."""

    # uvicorn keeps a body in a bytearray; here it may be bytes, which its `receive` does not copy.
    cycle: Any

    _fruitless_bytes = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the event loop reads to, which calls `buffer_updated` before it reads again."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        self._fruitless_bytes += nbytes
        data: Any = _BUFFER[:nbytes]  # any buffer does for the parser, which copies what it keeps
        self.data_received(data)
        if self._fruitless_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The headers are longer than {MAX_HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._fruitless_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The headers of a request are there."""
        self._fruitless_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body for the application; too much of it stops the reading."""
        self._fruitless_bytes = 0
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
