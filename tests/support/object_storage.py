"""An S3-compatible server of the tests' own, on a free loopback port: moto's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

BUCKET = "pruner"


@dataclass
class ObjectServer:
    """A running server with one empty bucket."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def settings(self) -> dict[str, str]:
        """What a server of ours needs to use it."""
        return {
            "storage_url": f"s3://{BUCKET}/tests",
            "aws_endpoint_url": self.url,
            "aws_access_key_id": "tests",
            "aws_secret_access_key": "a-secret-of-the-tests",
            "aws_region": "us-east-1",
        }

    def names(self) -> list[str]:
        """Names of all objects, without the prefix."""
        listing = httpx.get(f"{self.url}/{BUCKET}", params={"list-type": "2"}).text
        keys = [part.split("</Key>")[0] for part in listing.split("<Key>")[1:]]
        return sorted(key.removeprefix("tests/") for key in keys)

    def file_names(self, prefix: str) -> list[str]:
        """Last parts of the names that begin with a prefix."""
        return [name.rpartition("/")[2] for name in self.names() if name.startswith(prefix)]

    def pause(self) -> None:
        """Let it hang, as a server does whose network is gone."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_object_server(folder: Path) -> Iterator[ObjectServer]:
    """`moto_server`; stopped by its pid at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "objects.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", f"-p{port}"],
            cwd=folder,
            env={**os.environ, "MOTO_S3_CUSTOM_ENDPOINTS": ""},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    server = ObjectServer(f"http://127.0.0.1:{port}", process)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                httpx.put(f"{server.url}/{BUCKET}", timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, (folder / "objects.log").read_text()
                assert time.monotonic() < end, (folder / "objects.log").read_text()
                time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(10)
