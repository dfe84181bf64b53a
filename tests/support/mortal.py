"""Roles that are started again, some time after they were killed."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.server import running_server, running_worker

Start = Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]]
_START_SECONDS = 60.0


class Mortal:
    """A process that lives again and again.

    Args:
        name: Names its chances.
        away_s: How long it stays away, at most.
        start: Starts it and, at the end, stops it.
    """

    def __init__(self, name: str, away_s: float, start: Start) -> None:
        self.name = name
        self._away_s, self._start = away_s, start
        self._stop, self._started = threading.Event(), threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Mortal:
        self._thread.start()
        assert self._started.wait(_START_SECONDS), f"{self.name} does not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def process(self) -> psutil.Process | None:
        """The process, if it is alive and has started."""
        process = self._process
        return (
            None if process is None or process.poll() is not None else psutil.Process(process.pid)
        )

    def _live(self) -> None:
        chance = random.Random(self.name)
        while not self._stop.is_set():
            with self._start() as process:
                self._process = process
                self._started.set()
                while process.poll() is None and not self._stop.wait(0.05):
                    pass
            self._stop.wait(chance.uniform(0, self._away_s))


def mortal_worker(folder: Path, name: str, away_s: float, **settings: Any) -> Mortal:
    """A worker of this name."""
    return Mortal(f"worker {name}", away_s, lambda: running_worker(folder, name, **settings))


def mortal_api(folder: Path, port: int, away_s: float, **settings: Any) -> Mortal:
    """An API that is always found at the same port."""

    @contextmanager
    def start() -> Iterator[subprocess.Popen[bytes]]:
        with running_server(folder, "/healthz", role="api", port=port, **settings) as server:
            yield server.process

    return Mortal("api", away_s, start)
