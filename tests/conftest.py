"""The order of the tests, and how long an example of Hypothesis may take."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Where others have the processors any example may take long; pytest-timeout ends what hangs.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

ROOT = Path(__file__).parent
FIRST = ("service", "browser", "test_demo.py", "test_docs.py")
"""Where tests wait for servers: begun last, a long file of theirs would run on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes longest first; the order within a folder stays."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
