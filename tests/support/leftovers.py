"""What a server may leave behind, and what not."""

from __future__ import annotations

import time

from tests.support.server import Server


def assert_nothing_is_left(server: Server, jobs: int) -> None:
    """That a server with so many jobs, all over, has their results on disk and nothing else."""
    end = time.monotonic() + 20
    while (server.leftovers() or server.children()) and time.monotonic() < end:
        time.sleep(0.1)
    assert server.children() == []
    assert server.leftovers() == []
    folders = list((server.data_dir / "jobs").iterdir())
    assert len(folders) == jobs
    for folder in folders:
        (results,) = folder.iterdir()
        assert results.name.startswith("results-")
