"""The order of the tests, and what bounds their time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Where others have the processors any example may take long; pytest-timeout ends what hangs.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

ROOT = Path(__file__).parent
FIRST = ("service", "browser", "test_demo.py", "test_docs.py")
"""Where tests wait for servers: begun last, a long file of theirs would run on alone."""


@pytest.fixture(scope="session", autouse=True)
def _short_latencies() -> Iterator[None]:
    """Every run of the library ends with them, and no test asks how exact they are.

    Processes that tests start take the usual time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graph_ops.conclusion.LATENCY_S", 0.05)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first; the order within a folder stays."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
