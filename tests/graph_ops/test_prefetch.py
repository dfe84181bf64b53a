"""Items come in order from another thread; errors and early ends reach the right side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from graph_ops.prefetch import prefetched


def test_order_and_end() -> None:
    assert list(prefetched(range(100))) == list(range(100))
    assert list(prefetched([])) == []


def test_the_next_item_is_read_while_the_first_is_used() -> None:
    is_read = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        is_read.set()
        yield 2

    batches = prefetched(items())
    assert next(batches) == 1
    assert is_read.wait(5), "nothing is read ahead"
    assert list(batches) == [2]


def test_an_error_while_reading_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("row 2 is damaged")

    batches = prefetched(items())
    assert next(batches) == 1
    with pytest.raises(ValueError, match="row 2 is damaged"):
        next(batches)


def test_a_consumer_that_stops_early_stops_the_reader() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    before = threading.active_count()
    batches = prefetched(items())
    assert next(batches) == 0
    batches.close()  # type: ignore[attr-defined]  # generators have it
    assert threading.active_count() == before
    assert len(read) < 10
