"""How fast a bundle of 2 GB is taken, beside `cat` through a socket on this machine.

`cat FILE` writes into a loopback connection whose other end throws the bytes away, or writes them
to a file and flushes it, which is the fairer bound; the upload writes the same file to disk,
hashes it, flushes it and has a child inspect it. SHA-256 alone, by one thread, is a bound of its
own. Where there is curl, it uploads too, as a raw body and as a form. All are taken by turns; the
best time of each is told and the median, which counts. The peak of the API's memory is told as
well. TMPDIR says which disk is used.

    python -m benchmarks.upload [--gigabytes 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
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
from tests.support.server import Server, running_server

_RAW = "application/octet-stream"
_PAUSE_S = 1.5


def cat_s(path: Path, target: Path) -> float:
    """Seconds that `cat` takes to send a file through a socket, to a device or a flushed file."""
    listener = socket.create_server(("127.0.0.1", 0))

    def take() -> None:
        connection, _ = listener.accept()
        buffer = memoryview(bytearray(2**20))
        with connection, target.open("wb", buffering=0) as file:
            while size := connection.recv_into(buffer):
                file.write(buffer[:size])
            if target.is_file():
                os.fsync(file.fileno())

    thread = threading.Thread(target=take)
    thread.start()
    began = time.perf_counter()
    with socket.create_connection(listener.getsockname()) as connection:
        subprocess.run(["cat", str(path)], stdout=connection.fileno(), check=True)
        connection.shutdown(socket.SHUT_WR)
        thread.join()
    listener.close()
    taken = time.perf_counter() - began
    if target.is_file():
        target.unlink()
    return taken


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


def upload_s(server: Server, client: Client, path: Path) -> tuple[float, float, float]:
    """Seconds of hashing by the client, of sending, and of sending and the wait for the answer."""
    at: list[float] = []
    began = time.perf_counter()
    bundle_id = client.upload("bundle", path, lambda n, total: at.append(time.perf_counter()))
    answered = time.perf_counter()
    server.client.delete(f"/v1/bundles/{bundle_id}").raise_for_status()
    return at[0] - began, at[-1] - at[0], answered - at[0]


def curl_s(server: Server, *arguments: str) -> float:
    """Seconds from the start of curl until it has the answer to an upload."""
    began = time.perf_counter()
    command = ["curl", "-sS", "--fail", *arguments, f"{server.url}/v1/bundles"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    answered = time.perf_counter()
    server.client.delete(f"/v1/bundles/{json.loads(answer)['id']}").raise_for_status()
    return answered - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    size = int(arguments.gigabytes * 2**30)
    taken: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        taken.setdefault(name, []).append(seconds)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "bundle.npz"
        rows = np.random.default_rng(0).random((size // 2**22, 2**19))
        np.savez(path, image=rows)
        del rows
        with running_server(folder) as server, Client(server.url) as client:
            api = server.role("api")
            assert api is not None
            before = api.memory_info().rss
            with Peak(api) as peak:
                for _ in range(arguments.rounds):
                    note("cat through a socket", cat_s(path, Path(os.devnull)))
                    note("cat through a socket to a file", cat_s(path, folder / "copy"))
                    note("SHA-256 alone", sha256_s(path))
                    hashed, sent, answered = upload_s(server, client, path)
                    note("client hashes first", hashed)
                    note("upload sent", sent)
                    note("upload answered", answered)
                    if shutil.which("curl"):
                        # Between two uploads lies what it takes to start the next spare child.
                        time.sleep(_PAUSE_S)
                        raw = ["-X", "POST", "-H", f"Content-Type: {_RAW}", "-T", str(path)]
                        note("curl, raw, answered", curl_s(server, *raw))
                        time.sleep(_PAUSE_S)
                        note("curl, form, answered", curl_s(server, "-F", f"file=@{path}"))
                        time.sleep(_PAUSE_S)
    cat = statistics.median(taken["cat through a socket"])
    table = [
        [name, f"{min(all_s):.2f}", f"{s:.2f}", f"{size / s / 1e6:.0f}", f"{cat / s:.0%}"]
        for name, all_s in taken.items()
        for s in [statistics.median(all_s)]
    ]
    columns = [f"{size / 2**30:g} GiB", "best, s", "median, s", "MB/s", "of cat"]
    print(markdown_table(columns, table))
    print(f"API: {before / 1e6:.0f} MB before, {peak.size_bytes / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
