"""The order of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
FIRST = ("service", "browser")
"""Folders whose tests wait for servers: begun last, a long file of theirs would run on alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the folders that take longest first; the order within them stays."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(ROOT).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
