"""Bytes from a socket to who takes them, by a thread of their own.

Through the event loop each piece of a body costs a turn of the loop, memory of its own, and a
copy. A thread that waits for the socket itself has the kernel put the bytes where they belong.
"""

from __future__ import annotations

import socket
import time
from typing import Protocol

# Who sends slowly is left to the event loop, where waiting costs no thread.
_PAUSE_S = 0.05
_TURN_S = 0.5


class Receiver(Protocol):
    """Takes bytes, front to back. Its methods block, and are called by one thread at a time."""

    def write(self, data: bytes) -> None:
        """Take bytes that are somewhere else."""

    def room(self) -> memoryview:
        """Where the next bytes may be put; room for at least one."""

    def took(self, size_bytes: int) -> None:
        """Take bytes that were put at the beginning of the room."""


class Turn:
    """One thread's turn at a socket, until the bytes are there, the client pauses or time is up.

    Args:
        connection: Stays open. It is at its end, or broken, when it gives nothing: whoever reads
            from it next sees that.
        receiver: Gets what comes.
        size_bytes: The most that is taken.
    """

    def __init__(self, connection: socket.socket, receiver: Receiver, size_bytes: int) -> None:
        self._connection = connection
        self._receiver = receiver
        self._rest = size_bytes
        self.taken_bytes = 0

    def run(self, before: bytes) -> None:
        """Receive.

        Args:
            before: Bytes that the receiver gets first; they are not counted.

        Raises:
            Exception: what the receiver raises.
        """
        if before:
            self._receiver.write(before)
        self._connection.settimeout(_PAUSE_S)  # for Python: to the kernel it stays non-blocking
        end = time.monotonic() + _TURN_S
        while self._rest and time.monotonic() < end:
            try:
                size = self._connection.recv_into(self._receiver.room()[: self._rest])
            except OSError:  # a pause (TimeoutError), or the connection broke
                return
            if not size:
                return
            self._rest -= size
            self.taken_bytes += size
            self._receiver.took(size)
