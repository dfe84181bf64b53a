"""Bodies that a thread fetches from the socket, beside an application that reads on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from service.connections import PIECE_BYTES, Connection, DirectBody

BODY = bytes(range(251)) * (9 * PIECE_BYTES // 251)


class Hashed:
    """A receiver that keeps a digest, and refuses what is over its limit."""

    def __init__(self, most_bytes: int = 2**30) -> None:
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self._most_bytes = most_bytes
        self._room = bytearray(100_000)

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.size_bytes += len(data)
        if self.size_bytes > self._most_bytes:
            raise ValueError("too much")

    def room(self) -> memoryview:
        return memoryview(self._room)

    def took(self, size_bytes: int) -> None:
        self.write(bytes(self._room[:size_bytes]))


class App:
    """Takes bodies directly whenever it can, and answers with their digests.

    Args:
        threads: So many may fetch.
        most_bytes: A longer body is refused with 413, after it was read to its end.
    """

    def __init__(self, threads: int = 1, most_bytes: int = 2**30) -> None:
        self._threads, self._most_bytes = threads, most_bytes
        self.fetched_bytes: list[int] = []
        self.disconnected = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        receiver = Hashed(self._most_bytes)
        direct, status, fetched = DirectBody.of(scope), 200, 0
        self.limiter = limiter = anyio.CapacityLimiter(self._threads)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnected.set()
                return
            try:
                receiver.write(message["body"])
                before = receiver.size_bytes
                while direct is not None and await direct.take(receiver, 2**22, limiter):
                    pass
                fetched += receiver.size_bytes - before
            except ValueError:
                direct, status, receiver = None, 413, Hashed()
            if not message["more_body"]:
                break
        self.fetched_bytes.append(fetched)
        text = receiver.digest.hexdigest().encode() if status == 200 else b"too long"
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text})


@contextmanager
def serving(app: ASGIApp) -> Iterator[Callable[[], socket.socket]]:
    """A server in this process; gives what connects to it."""
    config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        address = listener.getsockname()
        try:
            yield lambda: socket.create_connection(address, timeout=20)
        finally:
            server.should_exit = True
            thread.join()


def head(size: int, *others: bytes) -> bytes:
    lines = (b"POST / HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % size, *others)
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def answers(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize("pause_after", [0, 1000, 3 * PIECE_BYTES, len(BODY) - 1])
def test_a_body_is_whole_and_the_next_request_begins_behind_it(pause_after: int) -> None:
    app = App()
    with serving(app) as connect, connect() as connection:
        sent = head(len(BODY)) + BODY
        cut = len(sent) - len(BODY) + pause_after
        connection.sendall(sent[:cut])
        time.sleep(0.2)
        connection.sendall(sent[cut:] + head(2, b"Connection: close") + b"ok")
        answer = answers(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert 0 < answer.find(digest(BODY)) < answer.find(digest(b"ok"))
    assert app.fetched_bytes[0] > PIECE_BYTES
    assert app.fetched_bytes[1] == 0


def test_who_waits_for_leave_gets_it() -> None:
    with serving(App()) as connect, connect() as connection:
        connection.sendall(head(len(BODY), b"Expect: 100-continue", b"Connection: close"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert digest(BODY) in answers(connection)


def test_where_no_thread_is_free_the_event_loop_does_it() -> None:
    app = App(threads=0)
    with serving(app) as connect, connect() as connection:
        connection.sendall(head(len(BODY), b"Connection: close") + BODY)
        assert digest(BODY) in answers(connection)
    assert app.fetched_bytes == [0]


@pytest.mark.parametrize("is_reset", [False, True])
def test_the_application_learns_that_the_client_has_gone(is_reset: bool) -> None:
    app = App()
    with serving(app) as connect:
        connection = connect()
        connection.sendall(head(len(BODY)) + BODY[:-1000])
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        assert app.disconnected.wait(10)


def test_what_is_left_of_a_refused_body_can_be_read() -> None:
    with serving(App(most_bytes=4 * PIECE_BYTES)) as connect, connect() as connection:
        connection.sendall(head(len(BODY)) + BODY + head(2, b"Connection: close") + b"ok")
        answer = answers(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert digest(b"ok") in answer


def test_a_cancelled_request_leaves_no_thread_behind() -> None:
    app = App()
    left: list[int] = []

    async def stop_soon(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.create_task(app(scope, receive, send))
        while not hasattr(app, "limiter") or not app.limiter.borrowed_tokens:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        left.append(app.limiter.borrowed_tokens)
        await task

    with serving(stop_soon) as connect, connect() as connection:
        connection.sendall(head(2**30))
        is_over = threading.Event()

        def send_on() -> None:
            with contextlib.suppress(OSError):
                while not is_over.is_set():
                    connection.sendall(bytes(2**16))

        thread = threading.Thread(target=send_on)
        thread.start()
        with contextlib.suppress(ConnectionResetError):
            answers(connection)
        is_over.set()
        thread.join()
    assert left == [0]


class Transport(asyncio.Transport):
    """Only says what it is."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("length", "is_tls", "expected"),
    [
        (b"Content-Length: 2000000", False, True),
        (b"Content-Length: 2000000", True, False),
        (b"Content-Length: 1000", False, False),
        (b"Transfer-Encoding: chunked", False, False),
    ],
)
def test_a_body_is_fetched_if_it_is_long_and_plain(
    length: bytes, is_tls: bool, expected: bool
) -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def connect() -> None:
        config = uvicorn.Config(app, http=Connection, ws="none", lifespan="off", log_config=None)
        config.load()
        connection = Connection(config, ServerState(), {})
        transport = Transport({"sslcontext": object()} if is_tls else {})
        connection.connection_made(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n")
        await asyncio.wait(connection.tasks)
        connection.connection_lost(None)

    asyncio.run(connect())
    assert (DirectBody.of(scopes[0]) is not None) == expected
