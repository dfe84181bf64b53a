"""A proxy on loopback that cuts connections, as bad networks do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class FlakyProxy:
    """Passes bytes on, and cuts the first connections after some bytes of the answer.

    Attributes:
        budgets: Bytes of the answer that the next connections may get; later ones are not cut.
        connections: How many there were.
    """

    def __init__(self, upstream: str, budgets: list[int]) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self.budgets = budgets
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            budget = self.budgets.pop(0) if self.budgets else None
            threading.Thread(target=self._serve, args=(client, budget), daemon=True).start()

    def _serve(self, client: socket.socket, budget: int | None) -> None:
        with client, socket.create_connection(self._upstream) as server:
            up = threading.Thread(target=_pass_on, args=(client, server, None), daemon=True)
            up.start()
            _pass_on(server, client, budget)
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            up.join()


def _pass_on(source: socket.socket, target: socket.socket, budget: int | None) -> None:
    with suppress(OSError):
        while budget is None or budget > 0:
            data = source.recv(65536 if budget is None else min(65536, budget))
            if not data:
                return
            target.sendall(data)
            if budget is not None:
                budget -= len(data)


@contextmanager
def flaky_proxy(upstream: str, budgets: list[int]) -> Iterator[FlakyProxy]:
    """A proxy in front of `upstream`; gone at the end."""
    proxy = FlakyProxy(upstream, budgets)
    try:
        yield proxy
    finally:
        proxy.close()
