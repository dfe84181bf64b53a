"""What a server may leave behind, and what not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.support.server import Server, temporary_files


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
    end = time.monotonic() + 20
    while (temporary_files(data_dir) or children()) and time.monotonic() < end:
        time.sleep(0.1)
    assert children() == []
    assert temporary_files(data_dir) == []
    folders = list((data_dir / "jobs").iterdir())
    assert len(folders) == jobs
    for folder in folders:
        (results,) = folder.iterdir()
        assert results.name.startswith("results-")
