"""A PostgreSQL server of the tests' own, on a free loopback port, from Debian's package."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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


@contextmanager
def running_postgres() -> Iterator[str]:
    """URL of an empty database; the server and all its files are gone afterwards."""
    assert PROGRAMS is not None
    # Not below pytest's folder: that is root's alone, and PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="pruner-postgres-"))
    try:
        is_root = os.geteuid() == 0
        user = _USER if is_root else getpass.getuser()
        if is_root:
            shutil.chown(folder, _USER)
        data = folder / "data"
        _run(is_root, "initdb", "-D", data, "-A", "trust", "-U", user, "--no-sync")
        port = _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        start = ("pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        _run(is_root, *start)
        try:
            yield f"postgresql://{user}@127.0.0.1:{port}/postgres"
        finally:
            _run(is_root, "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(is_root: bool, program: str, *arguments: str | Path) -> None:
    assert PROGRAMS is not None
    prefix = ["runuser", "-u", _USER, "--"] if is_root else []
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
