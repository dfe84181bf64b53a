"""How fast a bundle of 2 GB is taken, beside `cat` through a socket on this machine.

`cat FILE` writes into a loopback connection whose other end counts bytes and throws them away;
the upload writes the same file to disk, hashes it, flushes it and has a child inspect it. SHA-256
alone, by one thread, is a bound of its own. The peak of the API's memory is told as well.

    python -m benchmarks.upload [--gigabytes 2]
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from benchmarks.tables import markdown_table
from service.client import Client
from service.client.transfers import sha256_of
from tests.support.server import running_server


def cat_s(path: Path) -> float:
    """Seconds that `cat` takes to send a file through a socket."""
    listener = socket.create_server(("127.0.0.1", 0))

    def swallow() -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(2**20):
                pass

    thread = threading.Thread(target=swallow)
    thread.start()
    began = time.perf_counter()
    with socket.create_connection(listener.getsockname()) as connection:
        subprocess.run(["cat", str(path)], stdout=connection.fileno(), check=True)
        connection.shutdown(socket.SHUT_WR)
        thread.join()
    listener.close()
    return time.perf_counter() - began


def sha256_s(path: Path) -> float:
    """Seconds that SHA-256 takes of a file in memory."""
    began = time.perf_counter()
    sha256_of(path)
    return time.perf_counter() - began


class Peak:
    """The most memory that a process has used, as far as one looks."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.size_bytes = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            self.size_bytes = max(self.size_bytes, self._process.memory_info().rss)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    size = int(parser.parse_args().gigabytes * 2**30)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "bundle.npz"
        rows = np.random.default_rng(0).random((size // 2**22, 2**19))
        np.savez(path, image=rows)
        del rows
        baseline = min(cat_s(path) for _ in range(3))
        digest = min(sha256_s(path) for _ in range(3))
        with running_server(folder) as server, Client(server.url) as client:
            api = server.role("api")
            assert api is not None
            before = api.memory_info().rss
            sent: list[float] = []
            began = time.perf_counter()
            with Peak(api) as peak:
                client.upload(
                    "bundle", path, lambda n, total: sent.append(time.perf_counter() - began)
                )
            taken = time.perf_counter() - began
        hashed = sent[0]
        table = [
            ["cat through a socket", f"{baseline:.2f}", f"{size / baseline / 1e6:.0f}"],
            ["SHA-256 alone", f"{digest:.2f}", f"{size / digest / 1e6:.0f}"],
            ["client hashes first", f"{hashed:.2f}", f"{size / hashed / 1e6:.0f}"],
            ["upload sent", f"{sent[-1] - hashed:.2f}", f"{size / (sent[-1] - hashed) / 1e6:.0f}"],
            ["upload answered", f"{taken - hashed:.2f}", f"{size / (taken - hashed) / 1e6:.0f}"],
        ]
    print(markdown_table([f"{size / 2**30:g} GiB", "s", "MB/s"], table))
    print(f"API: {before / 1e6:.0f} MB before, {peak.size_bytes / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
