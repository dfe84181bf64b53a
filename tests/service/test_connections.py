"""HTTP as it comes over a socket: heads without end, requests in one piece, bodies in many."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable

import pytest

from service.connections import MAX_HEAD_BYTES, PIECE_BYTES
from tests.support.server import Server

READ_S = 0.05
"""In which the server reads what was sent."""
POST = b"POST /v1/bundles HTTP/1.1\r\nHost: localhost\r\n"


def connect(server: Server) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    connection.settimeout(20)
    return connection


def is_refused(connection: socket.socket, start: bytes, piece: Callable[[int], bytes]) -> bool:
    """Whether it is closed before 64 MiB are sent: more than the buffers of the kernel hold."""
    try:
        connection.sendall(start)
        for index in range(64 * 2**20 // len(piece(0))):
            connection.sendall(piece(index))
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET /", lambda _: b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", lambda _: b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", lambda i: f"X-{i}: b\r\n".encode() * 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", lambda _: b"Trailer: b\r\n" * 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", lambda _: b"extension=1;" * 400),
    ],
    ids=["target", "header", "headers", "trailers", "chunk extension"],
)
def test_a_head_without_end_is_refused(
    server: Server, start: bytes, piece: Callable[[int], bytes]
) -> None:
    """Memory is bounded by the piece in which it begins, and so much more."""
    with connect(server) as connection:
        assert is_refused(connection, start, piece)
    assert server.client.get("/healthz").status_code == 200


def test_a_long_head_is_told_so(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        assert_is_silent(connection)
        for _ in range(3):
            connection.sendall(b"X: " + b"a" * (MAX_HEAD_BYTES // 4) + b"\r\n")
            assert_is_silent(connection)
        connection.sendall(b"X: " + b"a" * (MAX_HEAD_BYTES // 4) + b"\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"longer than 65536 bytes" in answer


def assert_is_silent(connection: socket.socket) -> None:
    """No answer for a moment, in which what was sent is read."""
    connection.settimeout(READ_S)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(20)


def test_requests_in_one_piece_are_answered_in_order(server: Server) -> None:
    bodies = [f"ok number {index}".encode() * 1000 for index in range(20)]
    with connect(server) as connection:
        connection.sendall(
            b"".join(
                POST
                + b"Content-Type: application/octet-stream\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
                for body in bodies
            )
            + b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    places = [answer.find(hashlib.sha256(body).hexdigest().encode()) for body in bodies]
    assert -1 not in places
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 20") == 21


@pytest.mark.parametrize("size", [1, 100_000, PIECE_BYTES + 1])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_arrives_whole_however_it_is_cut(
    server: Server, size: int, is_chunked: bool
) -> None:
    body = (b"ok %d %d " % (size, is_chunked) + bytes(range(256)) * 4200)[: size + 40]
    step = max(1, size // 7)
    with connect(server) as connection:
        length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % len(body)
        connection.sendall(
            POST + b"Content-Type: application/octet-stream\r\nConnection: close\r\n"
        )
        connection.sendall(length + b"\r\n\r\n")
        for start in range(0, len(body), step):
            piece = body[start : start + step]
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            connection.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert hashlib.sha256(body).hexdigest().encode() in answer


@pytest.mark.parametrize("overlap", [0, 1, 30])
def test_a_request_begins_where_a_long_body_ends(server: Server, overlap: int) -> None:
    """Whatever part of the next head comes in the piece in which the body ends."""
    bodies = [b"ok %d %d " % (index, overlap) + bytes(PIECE_BYTES) for index in range(3)]
    with connect(server) as connection:
        sent = b""
        for body in bodies:
            sent += (
                POST
                + b"Content-Type: application/octet-stream\r\n"
                + b"Content-Length: %d\r\n\r\n" % len(body)
                + body
            )
            cut = len(sent) - 10 * 4096
            connection.sendall(sent[:cut])
            time.sleep(READ_S)
            connection.sendall(sent[cut : len(sent) - overlap])
            sent = sent[len(sent) - overlap :]
        last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(sent + last)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    places = [answer.find(hashlib.sha256(body).hexdigest().encode()) for body in bodies]
    assert -1 not in places
    assert places == sorted(places)
    assert answer.count(b"HTTP/1.1 20") == 4
