"""Refitted weights keep the original's shapes, so that any deeper cut can be laid over."""

from __future__ import annotations

import numpy as np
import pytest

from graph_ops.graph import constant_array
from graph_ops.recovery import RefittedWeights
from graph_ops.recovery.weights import kept_elements, store, stored_values
from graph_ops.surgery import cut
from tests.support.cutting import analyse_bytes, model_of
from tests.support.recovering import drop_filters

MODEL = """
    a = Conv(x, w1, b1)
    c = Conv<group=2>(a, w2)
    y = Conv(c, w3)
"""
WEIGHTS = "float[8,3,3,3] w1, float[8] b1, float[6,4,2,2] w2, float[4,6,1,1] w3"


def test_the_kept_elements_are_those_the_cut_keeps() -> None:
    """Grouped convolutions lose columns of their own in each block of rows."""
    analysis = analyse_bytes(model_of(MODEL, WEIGHTS))
    dropped = drop_filters(analysis, {"a": [0, 6], "c": [2, 3]})
    smaller = stored_values(cut(analysis.classes, dropped))
    for name, value in stored_values(analysis.classes.channels.model).items():
        full = constant_array(value)
        found = constant_array(smaller[name])
        assert full is not None
        assert found is not None
        mask = kept_elements(analysis.classes, value, dropped)
        np.testing.assert_array_equal(full[mask].reshape(found.shape), found)


def test_what_was_refitted_in_one_cut_is_found_again_in_a_deeper_one() -> None:
    analysis = analyse_bytes(model_of(MODEL, WEIGHTS))
    classes = analysis.classes
    first = drop_filters(analysis, {"a": [0, 6]})
    model = cut(classes, first)
    values = stored_values(model)
    kernel = constant_array(values["w2"])
    assert kernel is not None
    new = np.arange(kernel.size, dtype=np.float32).reshape(kernel.shape)
    store(values["w2"], new)
    weights = RefittedWeights().updated(classes, first, model, ["w2"], [])
    assert weights.tensors["w2"].shape == (6, 4, 2, 2)
    deeper = drop_filters(analysis, {"a": [0, 6], "c": [1, 4]})
    again = cut(classes, deeper)
    weights.lay_over(classes, deeper, again)
    found = constant_array(stored_values(again)["w2"])
    np.testing.assert_array_equal(found, new[[0, 2, 3, 5]])


def test_a_new_bias_follows_its_filters() -> None:
    analysis = analyse_bytes(model_of(MODEL, WEIGHTS))
    dropped = drop_filters(analysis, {"c": [1, 4]})
    model = cut(analysis.classes, dropped)
    bias = np.arange(6, dtype=np.float32)
    RefittedWeights({}, {"c": bias}).lay_over(analysis.classes, dropped, model)
    node = next(n for n in model.graph if n.outputs[0].name == "c")
    np.testing.assert_array_equal(constant_array(node.inputs[2]), bias[[0, 2, 3, 5]])


@pytest.mark.parametrize("changed", ["tensors", "biases"])
def test_the_digest_follows_the_numbers(changed: str) -> None:
    a = RefittedWeights(**{changed: {"w": np.zeros(3, np.float32)}})
    b = RefittedWeights(**{changed: {"w": np.ones(3, np.float32)}})
    assert a.digest != b.digest
    assert a.digest == RefittedWeights(**{changed: {"w": np.zeros(3, np.float32)}}).digest
    assert not RefittedWeights()
    assert a
