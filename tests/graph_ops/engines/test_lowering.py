"""Opset and IR are lowered where that changes nothing, and refused by name where it might."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from graph_ops.engines.ort_training.lowering import (
    ADDED_ATTRIBUTES,
    NEWEST_IR_VERSION,
    NEWEST_OPSET,
    SAME_AS_OPSET_21,
    lower,
)
from tests.support.models import text_model

BODY = "spec (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)"


def model_at(opset: int, nodes: str) -> ir.Model:
    payload = text_model(f'<ir_version: 11, opset_import: ["": {opset}]> {BODY} {{ {nodes} }}')
    return ir.from_proto(onnx.load_from_string(payload))


def test_a_newer_model_is_lowered() -> None:
    model = model_at(23, "h = Relu(x) p = GlobalAveragePool(h) e = Elu(p) y = Add(x, e)")
    assert lower(model) == {}
    assert model.graph.opset_imports[""] == NEWEST_OPSET
    assert model.ir_version == NEWEST_IR_VERSION


def test_an_older_model_keeps_its_opset() -> None:
    model = model_at(18, "y = Relu(x)")
    assert lower(model) == {}
    assert model.graph.opset_imports[""] == 18


def test_an_operator_that_is_new_since_then_is_named() -> None:
    model = model_at(24, "y = Swish(x)")
    assert lower(model) == {"Swish": "'y' is new since opset 21"}
    assert model.graph.opset_imports[""] == 24


def test_an_attribute_that_is_new_since_then_is_named() -> None:
    model = model_at(25, 'h = Cast<to = 10, round_mode = "up">(x) y = Cast<to = 1>(h)')
    obstacles = lower(model)
    assert list(obstacles) == ["Cast"]
    assert "round_mode" in obstacles["Cast"]


@pytest.mark.parametrize("op_type", sorted(SAME_AS_OPSET_21))
def test_listed_operators_have_the_same_signature_as_at_opset_21(op_type: str) -> None:
    """Names of inputs, outputs and attributes, and defaults; what was added since is listed."""
    newest = onnx.defs.get_schema(op_type, onnx.defs.onnx_opset_version())
    oldest = onnx.defs.get_schema(op_type, NEWEST_OPSET)
    assert [i.name for i in newest.inputs] == [i.name for i in oldest.inputs]
    assert [o.name for o in newest.outputs] == [o.name for o in oldest.outputs]
    added = set(newest.attributes) - set(oldest.attributes)
    assert added == set(ADDED_ATTRIBUTES.get(op_type, ()))
    assert not set(oldest.attributes) - set(newest.attributes)
    for name, attribute in oldest.attributes.items():
        default = newest.attributes[name].default_value.SerializeToString()
        assert default == attribute.default_value.SerializeToString(), name
