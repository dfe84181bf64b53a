"""Files that are there completely or not at all, and reading what a child left.

Light on purpose: children import it, and their start is part of every job.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file so that it is there completely or not at all."""
    write_bytes(path, json.dumps(data, ensure_ascii=True, default=str).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there completely or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_json(path: Path, max_bytes: int | None = None) -> Any:
    """Content of a JSON file; None when it is missing, longer than `max_bytes`, or not JSON.

    Links are not followed: the file may come from a child process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or (max_bytes and found.st_size > max_bytes):
            return None
        try:
            return json.loads(file.read())
        except ValueError:
            return None


def move_folder(source: Path, target: Path) -> None:
    """Flush a folder to disk and rename it; fails when the target has files in it."""
    sync_folder(source)
    source.rename(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; missing ones are fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
