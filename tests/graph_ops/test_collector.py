"""The collector is paused for the call, and as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

from graph_ops.analysis import analyse
from graph_ops.canonical import bind_shapes
from graph_ops.collector import without_collector
from graph_ops.model import load_model
from graph_ops.surgery import cut
from tests.support import digits


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


def test_a_large_graph_is_bound_analysed_and_cut_without_it() -> None:
    """Each of these copies a graph, which the collector would walk again and again."""
    model = load_model(digits.MODEL).model
    collections: list[str] = []

    def note(phase: str, _: dict[str, int]) -> None:
        collections.append(phase)

    threshold = gc.get_threshold()
    gc.set_threshold(50)
    gc.callbacks.append(note)
    try:
        gc.collect()
        collections.clear()
        shapes = bind_shapes(model, {"image": (1, 28, 28)})
        bound = len(collections)
        classes = analyse(model, shapes)
        analysed = len(collections)
        cut(classes, np.zeros(classes.count, dtype=np.bool_))
        done = len(collections)
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*threshold)
    # Between the calls it may run once, a phase for its start and one for its end.
    assert bound <= 2
    assert analysed - bound <= 2
    assert done - analysed <= 2
