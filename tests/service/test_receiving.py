"""A thread's turn at a socket: what is there and no more, and not for ever."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from service import receiving
from service.receiving import Turn

Pair = tuple[socket.socket, socket.socket]


class Gathered:
    """A receiver with little room."""

    def __init__(self, most_bytes: int = 2**30) -> None:
        self.data = b""
        self._most_bytes = most_bytes
        self._room = bytearray(1000)

    def write(self, data: bytes) -> None:
        self.data += data

    def room(self) -> memoryview:
        return memoryview(self._room)

    def took(self, size_bytes: int) -> None:
        self.data += self._room[:size_bytes]
        if len(self.data) > self._most_bytes:
            raise ValueError("too much")


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client, and the server's end of its connection, as the event loop has it."""
    client, server = socket.socketpair()
    server.setblocking(False)
    with client, server:
        yield client, server


def test_what_was_asked_for_is_taken_and_what_follows_is_left(pair: Pair) -> None:
    client, server = pair
    client.sendall(b"body" * 1000 + b"next request")
    receiver = Gathered()
    turn = Turn(server, receiver, 4000)
    turn.run(b"before, ")
    assert receiver.data == b"before, " + b"body" * 1000
    assert turn.taken_bytes == 4000
    assert server.recv(100) == b"next request"


@pytest.mark.parametrize("is_over", [False, True])
def test_a_client_that_sends_nothing_more_ends_the_turn(pair: Pair, is_over: bool) -> None:
    client, server = pair
    client.sendall(b"some")
    if is_over:
        client.shutdown(socket.SHUT_WR)
    receiver = Gathered()
    turn = Turn(server, receiver, 4000)
    turn.run(b"")
    assert (receiver.data, turn.taken_bytes) == (b"some", 4)
    if is_over:
        assert server.recv(1) == b""  # whoever reads next learns of it
    client.close()


def test_a_connection_that_breaks_ends_the_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
        turn = Turn(server, Gathered(), 4000)
        turn.run(b"")
        assert turn.taken_bytes == 0
        assert server.recv(1) == b""


def test_what_the_receiver_refuses_has_been_taken(pair: Pair) -> None:
    client, server = pair
    client.sendall(bytes(4000))
    turn = Turn(server, Gathered(most_bytes=1500), 4000)
    with pytest.raises(ValueError, match="too much"):
        turn.run(b"")
    assert turn.taken_bytes == 2000


def test_a_turn_is_over_though_bytes_keep_coming(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "_TURN_S", 0.1)
    client, server = pair
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(0.001):
            client.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    turn = Turn(server, Gathered(), 2**30)
    began = time.monotonic()
    turn.run(b"")
    seconds = time.monotonic() - began
    is_over.set()
    thread.join()
    assert turn.taken_bytes > 0
    assert seconds >= 0.1
