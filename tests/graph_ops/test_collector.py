"""The collector is paused for the call, and as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from graph_ops.collector import without_collector


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


@without_collector
def is_collecting(fail: bool = False) -> bool:
    if fail:
        raise ValueError("wanted")
    return gc.isenabled()


def test_it_is_paused_during_the_call_only() -> None:
    assert not is_collecting()
    assert gc.isenabled()


def test_it_comes_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="wanted"):
        is_collecting(fail=True)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    assert not is_collecting()
    assert not gc.isenabled()
