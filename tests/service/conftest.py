from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.server import MISBEHAVING_CHILD, Server, running_server

Start = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts a server, with the misbehaving child and one data folder per test."""

    def start_server(**settings: object) -> AbstractContextManager[Server]:
        defaults = {"child_module": MISBEHAVING_CHILD, "executions": tmp_path / "executions"}
        return running_server(tmp_path, **{**defaults, **settings})

    return start_server


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    """Settings of the module's `idle` server; a module may have a fixture of its own."""
    return {}


@pytest.fixture(scope="module")
def _shared(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, object]
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shared")
    defaults = {"child_module": MISBEHAVING_CHILD, "executions": folder / "executions"}
    with running_server(folder, **{**defaults, **settings}) as running:
        yield running


@pytest.fixture
def idle(_shared: Server) -> Server:
    """A server without jobs, for tests that need neither settings nor a start of their own.

    The tests of a module share it, since every start takes some seconds.
    """
    _shared.forget()
    (_shared.data_dir.parent / "executions").unlink(missing_ok=True)
    return _shared


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with small limits for the tests of a module."""
    folder = tmp_path_factory.mktemp("server")
    with running_server(
        folder,
        child_module=MISBEHAVING_CHILD,
        executions=folder / "executions",
        max_upload_bytes=2 * 2**20,
        max_model_bytes=2**20,
        max_options_bytes=1000,
        max_parts=4,
        job_timeout_s=6,
        inspection_timeout_s=6,
        job_memory_bytes=256 * 2**20,
        job_file_bytes=4 * 2**20,
        upload_idle_timeout_s=1,
    ) as running:
        yield running
