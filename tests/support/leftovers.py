"""What a server may leave behind, and what not.

A worker tidies up after it has said that a job is over, so that these wait a while for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from tests.support.server import Server, temporary_files

_TIDYING_S = 20


def assert_left(expected: list[str], look: Callable[[], list[str]]) -> None:
    """That in the end these names are left where one looks, in any order."""
    end = time.monotonic() + _TIDYING_S
    while sorted(look()) != sorted(expected) and time.monotonic() < end:
        time.sleep(0.05)
    assert sorted(look()) == sorted(expected)


def names_in(folder: Path) -> list[str]:
    """Names of what is in a folder."""
    return [path.name for path in folder.iterdir()]


def assert_nothing_is_left(server: Server, jobs: int) -> None:
    """That a server with so many jobs, all over, has their results on disk and nothing else."""
    assert_nothing_is_left_of(jobs, server.data_dir, server.children)


def assert_nothing_is_left_of(
    jobs: int, data_dir: Path, children: Callable[[], list[psutil.Process]]
) -> None:
    """The same of any servers that share a folder.

    Args:
        jobs: How many there were.
        data_dir: The folder.
        children: Processes of these servers that do native work.
    """
    end = time.monotonic() + _TIDYING_S
    while (temporary_files(data_dir) or children()) and time.monotonic() < end:
        time.sleep(0.1)
    assert children() == []
    assert temporary_files(data_dir) == []
    folders = list((data_dir / "jobs").iterdir())
    assert len(folders) == jobs
    for folder in folders:
        assert_left(["results"], partial(_kinds_in, folder))


def _kinds_in(folder: Path) -> list[str]:
    """Names without the number of the attempt."""
    return [name.partition("-")[0] for name in names_in(folder)]
