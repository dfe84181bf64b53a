"""Metrics by their definitions, on the digits network; and metrics from outside."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import onnx
import pytest

from graph_ops.errors import OptionsError
from graph_ops.metrics.custom import MAX_BYTES
from graph_ops.pruning import PruneResult, prune
from tests.support import digits

QUICK: dict[str, Any] = {"max_samples": 300, "recovery": "none", "target": {"filters": 20}}

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
SQUARED = """
squared (float[N, 10] output, int64[N] targets) => (float[N] value) {
    one = Constant <value_float = 1.0> ()
    zero = Constant <value_float = 0.0> ()
    depth = Constant <value_int = 10> ()
    pair = Constant <value_floats = [0.0, 1.0]> ()
    wanted = OneHot <axis = 1> (targets, depth, pair)
    gap = Sub (output, wanted)
    square = Mul (gap, gap)
    axes = Constant <value_ints = [1]> ()
    value = ReduceSum <keepdims = 0> (square, axes)
}
"""


def as_text(source: str, **changes: object) -> str:
    model = onnx.parser.parse_model(HEADER + source)
    for name, value in changes.items():
        setattr(model, name, value)
    return base64.b64encode(model.SerializeToString()).decode()


def run(**options: Any) -> PruneResult:
    return prune(digits.MODEL, digits.BUNDLE, QUICK | options)


def metric_of(**options: Any) -> dict[str, Any]:
    metric: dict[str, Any] = run(**options).report["metric"]
    return metric


def test_every_metric_is_named_and_points_the_right_way() -> None:
    found = {
        name: metric_of(metric=name, target={"filters": 40})
        for name in ("accuracy", "top_k", "loss", "mse", "agreement")
    }
    assert [m["name"] for m in found.values()] == [
        "accuracy",
        "top_5",
        "cross_entropy",
        "mse",
        "agreement",
    ]
    for name in ("accuracy", "agreement"):
        assert found[name]["after"] < found[name]["before"]
    for name in ("loss", "mse"):
        assert found[name]["after"] > found[name]["before"]
    assert found["agreement"]["before"] == 1.0
    assert found["mse"]["before"] == 0.0
    assert found["top_k"]["after"] >= found["accuracy"]["after"]
    for metric in found.values():
        change = metric["after"] - metric["before"]
        assert metric["change_low"] <= change <= metric["change_high"]


def test_one_of_one_is_accuracy() -> None:
    assert metric_of(metric="top_k", top_k=1) == metric_of(metric="accuracy")


def test_a_metric_of_the_users_own_is_what_its_graph_computes() -> None:
    result = run(metric="custom", metric_model=as_text(SQUARED), metric_direction="lower")
    with np.load(digits.BUNDLE) as data:
        labels = data["labels"]
    assert labels.ndim == 1
    metric = result.report["metric"]
    assert metric["name"] == "custom"
    assert 0 < metric["before"] < metric["after"] < 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("not base64!", "base64"),
        (base64.b64encode(b"\0" * (MAX_BYTES + 1)).decode(), "bytes"),
        (base64.b64encode(b"hello").decode(), "cannot be used"),
        (as_text("f (float[N] image) => (float[N] y) { y = Neg (image) }"), "inputs"),
        (
            as_text(
                "f (float[N, 10] output) => (float[N, 10] y) { y = Neg (output) }",
            ),
            "shape",
        ),
        (
            as_text(
                "f (float[N, 10] output) => (float[N] y) { a = Constant <value_ints = [1]> () \n"
                " z = ReduceSum <keepdims = 0> (output, a) \n l = Sub (z, z) \n y = Log (l) }"
            ),
            "finite",
        ),
    ],
    ids=["text", "large", "not-onnx", "inputs", "shape", "not-finite"],
)
def test_a_metric_that_cannot_be_used_says_why(text: str, says: str) -> None:
    with pytest.raises(OptionsError, match=says) as caught:
        run(metric="custom", metric_model=text)
    assert caught.value.details["field"] == "metric_model"


def test_custom_operators_are_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>'
        "f (float[N, 10] output) => (float[N, 10] y) { y = com.microsoft.Gelu (output) }"
    )
    text = base64.b64encode(model.SerializeToString()).decode()
    with pytest.raises(OptionsError, match="Gelu"):
        run(metric="custom", metric_model=text)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metric": "custom"}, "metric_model"),
        ({"metric": "top_k", "top_k": 10}, "10 classes"),
        ({"metric": "accuracy", "loss": "unlabelled"}, "targets"),
    ],
)
def test_a_metric_that_does_not_fit_says_why(options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionsError, match=says):
        run(**options)
