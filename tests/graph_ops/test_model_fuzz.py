"""Reading bytes that are no model, or no longer one: loaded or refused, never a crash."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph_ops import errors
from graph_ops.model import load_model
from tests.support.model_files import conv_model, zipped

LOADED_OR_REFUSED = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def load_or_refuse(data: bytes) -> None:
    """Fails on any exception that is not the library's own."""
    with contextlib.suppress(errors.PrunerError):
        assert load_model(data).model.graph is not None


@LOADED_OR_REFUSED
@given(st.binary(max_size=400))
def test_random_bytes_never_crash(data: bytes) -> None:
    load_or_refuse(data)


@LOADED_OR_REFUSED
@given(st.lists(st.tuples(st.integers(0, 799), st.integers(0, 7)), min_size=1, max_size=8))
def test_flipped_bits_never_crash(flips: list[tuple[int, int]]) -> None:
    data = bytearray(conv_model())
    for at, bit in flips:
        data[at % len(data)] ^= 1 << bit
    load_or_refuse(bytes(data))


@LOADED_OR_REFUSED
@given(st.integers(0, 799), st.integers(0, 799), st.integers(0, 799), st.booleans())
def test_splices_never_crash(start: int, end: int, to: int, is_zipped: bool) -> None:
    data = zipped(("m.onnx", conv_model())) if is_zipped else conv_model()
    load_or_refuse(data[:to] + data[start:end] + data[to:])


@LOADED_OR_REFUSED
@given(st.integers(0, 799))
def test_prefixes_are_called_truncated(length: int) -> None:
    data = conv_model()
    length %= len(data)
    expected = errors.TruncatedModelError if length else errors.NotOnnxError
    with pytest.raises(expected):
        load_model(data[:length])
