"""Bytes are found where they lie, as Python's own search finds them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.searching import contains, ends_with_start

few_letters = st.lists(st.sampled_from(b"\0ab"), max_size=12).map(bytes)


@given(few_letters, few_letters.filter(len))
def test_what_is_found_is_what_is_there(data: bytes, wanted: bytes) -> None:
    block = memoryview(bytearray(data))
    assert contains(block, wanted) == (wanted in data)
    starts = [wanted[:size] for size in range(1, len(wanted) + 1)]
    assert ends_with_start(block, wanted) == any(data.endswith(start) for start in starts)


@given(st.integers(0, 8), st.integers(0, 8))
def test_only_the_block_is_searched(start: int, size: int) -> None:
    whole = b"abababab"
    block = memoryview(bytearray(whole))[start : start + size]
    assert contains(block, b"ba") == (b"ba" in whole[start : start + size])
