"""uvicorn's HTTP connections, made for large bodies.

What an upload costs is the number of its pieces, each of which passes through the event loop and
the application, and of the copies of its bytes. By default asyncio reads at most 256 KiB at once;
uvicorn stops reading while 64 KiB wait, and copies what waits twice, after the parser has copied
it. Here up to a megabyte is read at once and may wait, and where a request declares the length of
its body, the parser sees of it no more than came with the headers: the rest is counted, and handed
on as it was read.

The parser of httptools is fast, but keeps a header until it ends, however long it gets. So bytes
of which nothing comes (no request, no body) are counted, and a request with too many is refused.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# The most that is read at once, and about what may wait for the application, per connection.
PIECE_BYTES = 2**20
# Bytes of a request line with headers, or of trailers, beyond those of the piece they begin in.
MAX_HEAD_BYTES = 2**16


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
            self.on_message_complete()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return data

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
