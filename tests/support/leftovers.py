"""What a server may leave behind, and what not."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.server import Server


def assert_nothing_is_left(server: Server, jobs: int) -> None:
    """That a server with so many jobs, all over, has their results on disk and nothing else."""
    end = time.monotonic() + 20
    while (server.leftovers() or server.children()) and time.monotonic() < end:
        time.sleep(0.1)
    assert server.children() == []
    assert server.leftovers() == []
    assert_only_results(server.data_dir, jobs)


def assert_only_results(data_dir: Path, jobs: int) -> None:
    """That the folder of each of so many jobs holds its results and nothing else."""
    folders = list((data_dir / "jobs").iterdir())
    assert len(folders) == jobs
    for folder in folders:
        (results,) = folder.iterdir()
        assert results.name.startswith("results-")
