"""Times per operator are ONNX Runtime's own, summed over the nodes of a type."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from graph_ops.model import load_model
from graph_ops.profiling import operator_times
from graph_ops.runtime import Session
from tests.support import digits


def test_every_type_of_operator_has_its_nodes_and_a_time() -> None:
    model = load_model(digits.MODEL).model
    feeds = {"image": np.zeros((1, 1, 28, 28), np.float32)}
    found = {t.op_type: t for t in operator_times(model, feeds, budget_s=0)}
    convolutions = [t.nodes for name, t in found.items() if name.endswith("Conv")]
    assert sum(convolutions) == len(digits.CONVOLUTIONS)
    assert found["Gemm"].nodes == 1
    assert all(t.ms > 0 for t in found.values() if t.op_type.endswith("Conv"))


def test_the_longest_comes_first() -> None:
    model = load_model(digits.MODEL).model
    feeds = {"image": np.zeros((4, 1, 28, 28), np.float32)}
    times = [t.ms for t in operator_times(model, feeds, budget_s=0)]
    assert times == sorted(times, reverse=True)


def test_a_profile_that_was_cut_short_says_that_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime writes what there is room for, and says nothing."""
    whole = Session.end_profile

    def cut_short(session: Session) -> Path:
        path = whole(session)
        path.write_bytes(path.read_bytes()[:1000])
        return path

    monkeypatch.setattr(Session, "end_profile", cut_short)
    model = load_model(digits.MODEL).model
    with pytest.raises(OSError, match="No space left") as raised:
        operator_times(model, {"image": np.zeros((1, 1, 28, 28), np.float32)}, budget_s=0)
    assert raised.value.errno == errno.ENOSPC
