"""The rule tables: no rule hides another, and no operator is promised without one."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from graph_ops.canonical import SCORING_OPSET
from graph_ops.rules import COUPLINGS, GRADIENTS, DuplicateRuleError
from graph_ops.rules.registry import RuleTable
from graph_ops.rules.zero import zero_gradient
from tests.graph_ops.rules.gradient_harness import build_model

PROMISED = """
    Conv ConvTranspose Gemm MatMul BatchNormalization Relu LeakyRelu PRelu Elu Selu Sigmoid
    HardSigmoid HardSwish Tanh Clip Softplus Erf Exp Log Sqrt Abs Neg Pow Add Sub Mul Div Sum Mean
    Max Min Concat Split Slice Pad Reshape Flatten Squeeze Unsqueeze Transpose Identity Dropout
    Cast MaxPool AveragePool GlobalAveragePool GlobalMaxPool ReduceMean ReduceSum Softmax
    LogSoftmax LRN Resize Upsample DepthToSpace SpaceToDepth Expand Gather
"""

LAST_OPSET = {"Upsample": 9}
"""Operators that ONNX has removed; the scoring copy has their successors instead."""
SUCCESSORS = {"Upsample": "Resize"}

Rule = Callable[[], None]


def rule() -> None:
    """Stands for any rule."""


def test_overlapping_rules_are_an_error_that_names_the_operator() -> None:
    table: RuleTable[Rule] = RuleTable("coupling")
    table.register("Conv", since=1, until=12)(rule)
    with pytest.raises(DuplicateRuleError, match=r"coupling: Conv at opsets 12\.\.20 overlaps"):
        table.register("Conv", since=12, until=20)(rule)


def test_an_open_range_overlaps_every_later_one() -> None:
    table: RuleTable[Rule] = RuleTable("gradient")
    table.register("Relu")(rule)
    with pytest.raises(DuplicateRuleError):
        table.register("Relu", since=30)(rule)


def test_adjacent_ranges_stand_side_by_side() -> None:
    def later() -> None:
        """Stands for the rule of the new form."""

    table: RuleTable[Rule] = RuleTable("coupling")
    table.register("Softmax", until=12)(rule)
    table.register("Softmax", since=13)(later)
    assert table.find("", "Softmax", 12) is rule
    assert table.find("ai.onnx", "Softmax", 13) is later


def test_operators_of_other_domains_have_no_rule() -> None:
    assert GRADIENTS.find("", "Relu", 18) is not None
    assert GRADIENTS.find("com.example", "Relu", 18) is None


@pytest.mark.parametrize("op_type", PROMISED.split())
def test_promised_operator_has_both_rules(op_type: str) -> None:
    for opset in range(7, LAST_OPSET.get(op_type, 22) + 1):
        assert COUPLINGS.find("", op_type, opset) is not None, f"coupling at opset {opset}"
    scored_as = SUCCESSORS.get(op_type, op_type)
    for opset in range(SCORING_OPSET, 23):
        assert GRADIENTS.find("", scored_as, opset) is not None, f"gradient at opset {opset}"


@pytest.mark.parametrize("table", [COUPLINGS, GRADIENTS], ids=lambda table: table.name)
def test_rules_are_of_operators_that_onnx_has(table: RuleTable[object]) -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert set(table.op_types) <= known


def test_every_differentiable_operator_has_a_gradient_spec() -> None:
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_gradients_*.py"))
    tables = [importlib.import_module(f"tests.graph_ops.rules.{name}") for name in names]
    specs = [
        spec
        for table in tables
        for name, rows in vars(table).items()
        if name.endswith("_SPECS") and name != "REFUSED_SPECS"
        for spec in rows
    ]
    covered = {node.op_type for spec in specs for node in build_model(spec).graph}
    differentiable = {
        op_type
        for op_type in GRADIENTS.op_types
        if GRADIENTS.find("", op_type, SCORING_OPSET) not in (None, zero_gradient)
    }
    assert differentiable - covered == set()
