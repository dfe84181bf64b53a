"""Times per operator are ONNX Runtime's own, summed over the nodes of a type."""

from __future__ import annotations

import numpy as np

from graph_ops.model import load_model
from graph_ops.profiling import operator_times
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
