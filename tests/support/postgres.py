"""A PostgreSQL server of the tests' own, on a free loopback port, from Debian's package."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ports import free_port

_USER = "postgres"


def _programs() -> Path | None:
    """Folder of `initdb` and `pg_ctl`; Debian keeps them out of PATH."""
    on_path = shutil.which("pg_ctl")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if on_path is not None:
        folders.insert(0, Path(on_path).resolve().parent)
    usable = (f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists())
    return next(usable, None)


PROGRAMS = _programs()

needs_postgres = pytest.mark.skipif(
    PROGRAMS is None, reason="PostgreSQL is not installed: apt-get install postgresql"
)


class Postgres:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._port = free_port()
        is_root = os.geteuid() == 0
        self._user = _USER if is_root else getpass.getuser()
        if is_root:
            shutil.chown(folder, _USER)
        _run("initdb", "-D", self._data, "-A", "trust", "-U", self._user, "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 "
            f"-c unix_socket_directories={self._folder}"
        )
        log = self._folder / "log"
        _run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        _run("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")


@contextmanager
def running_postgres_server() -> Iterator[Postgres]:
    """An empty server; it and all its files are gone afterwards."""
    # Not below pytest's folder: that is root's alone, and PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="pruner-postgres-"))
    try:
        server = Postgres(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[str]:
    """URL of an empty database."""
    with running_postgres_server() as server:
        yield server.url


def _run(program: str, *arguments: str | Path) -> None:
    assert PROGRAMS is not None
    prefix = ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []
    # pg_ctl's server inherits what it is given: with a pipe, waiting for its end would hang.
    subprocess.run(
        [*prefix, str(PROGRAMS / program), *map(str, arguments)],
        check=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
