"""Losses: which is chosen, and that its head computes it (against NumPy) and differentiates it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from graph_ops.bundle import ArrayInfo
from graph_ops.canonical import scoring_copy
from graph_ops.engines.backward import append_backward
from graph_ops.errors import LossError
from graph_ops.loss import TARGET_INPUT, attach_loss, choose_loss, output_form
from graph_ops.model import load_model
from graph_ops.runtime import Session
from tests.support.models import text_model

TAIL = {
    "logits": "y = Identity(z)",
    "softmax": "y = Softmax<axis=1>(z)",
    "sigmoid": "y = Sigmoid(z)",
}


def model(tail: str, columns: int = 4, opset: int = 17) -> bytes:
    return text_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        net (float[N, 2, 3, 3] x) => (float[N, {columns}] y)
        <float[{columns}, 2, 3, 3] w = {{{", ".join(["0.1"] * (columns * 18))}}}>
        {{ c = Conv(x, w)  z = Flatten(c)  {TAIL[tail]} }}"""
    )


def targets(shape: tuple[int, ...], dtype: str) -> ArrayInfo:
    return ArrayInfo("labels", np.dtype(dtype), shape)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def expected_loss(name: str, z: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    if name in ("cross_entropy", "pseudo_labels"):
        dense = np.eye(z.shape[1])[t] if t.ndim == 1 else t
        return -(dense * np.log(softmax(z))).sum(axis=1)
    if name == "bce":
        p = 1 / (1 + np.exp(-z))
        return -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=1)
    if name == "mse":
        return ((y - t) ** 2).mean(axis=1)
    if name == "l1":
        return np.abs(y - t).mean(axis=1)
    return (y * t).mean(axis=1)


CASES: list[tuple[str, str, str, ArrayInfo | None, str]] = [
    ("logits", "auto", "cross_entropy", targets((8,), "int64"), "class_ids"),
    ("softmax", "auto", "cross_entropy", targets((8, 1), "uint8"), "class_ids"),
    ("softmax", "auto", "cross_entropy", targets((8, 4), "float32"), "dense"),
    ("logits", "cross_entropy", "cross_entropy", targets((8, 4), "float32"), "dense"),
    ("sigmoid", "auto", "bce", targets((8, 4), "float32"), "dense"),
    ("logits", "bce", "bce", targets((8, 4), "float32"), "dense"),
    ("logits", "auto", "mse", targets((8, 4), "float32"), "dense"),
    ("sigmoid", "mse", "mse", targets((8, 4), "float32"), "dense"),
    ("softmax", "l1", "l1", targets((8, 4), "float32"), "dense"),
    ("logits", "auto", "pseudo_labels", None, "class_ids"),
    ("sigmoid", "auto", "projection", None, "projection"),
    ("logits", "unlabelled", "pseudo_labels", targets((8,), "int64"), "class_ids"),
]


@pytest.mark.parametrize(
    ("tail", "wanted", "name", "info", "form_of_targets"),
    CASES,
    ids=[f"{c[0]}-{c[1]}-{c[4]}" for c in CASES],
)
def test_the_loss_is_chosen_computed_and_differentiated(
    tail: str, wanted: str, name: str, info: ArrayInfo | None, form_of_targets: str
) -> None:
    copy = scoring_copy(load_model(model(tail)).model, {"x": (2, 3, 3)})
    form = output_form(copy.model, copy.shapes, None)
    choice = choose_loss(form, info, wanted)
    assert (choice.name, choice.targets) == (name, form_of_targets)
    assert choice.why
    head = attach_loss(copy.model, copy.shapes, form, choice)
    x = copy.model.graph.inputs[0]
    _, gradients = append_backward(copy.model, copy.shapes, head.loss, [x])
    copy.model.graph.outputs.extend([head.loss, gradients[x], form.logits])
    gradients[x].dtype = head.loss.dtype
    session = Session(copy.model)
    rng = np.random.default_rng(0)
    feed = rng.standard_normal((8, 2, 3, 3)).astype(np.float32)
    if form_of_targets == "class_ids":
        t: Any = rng.integers(0, 4, 8)
    else:
        t = rng.random((8, 4)).astype(np.float32)
        if name == "cross_entropy":
            t /= t.sum(axis=1, keepdims=True)

    def losses(values: np.ndarray) -> np.ndarray:
        return session.run({"x": values, TARGET_INPUT: t}, [str(head.loss.name)])[0]

    z, y = session.run({"x": feed, TARGET_INPUT: t}, [str(form.logits.name), "y"])
    np.testing.assert_allclose(losses(feed), expected_loss(name, z, y, t), rtol=1e-4, atol=1e-6)
    gradient = session.run({"x": feed, TARGET_INPUT: t}, [str(gradients[x].name)])[0]
    direction = rng.standard_normal(feed.shape).astype(np.float32)
    step = 1e-2
    numeric = (losses(feed + step * direction) - losses(feed - step * direction)) / (2 * step)
    analytic = (gradient * direction).reshape(8, -1).sum(axis=1)
    np.testing.assert_allclose(analytic, numeric, rtol=2e-2, atol=2e-3)


def test_cross_entropy_is_stable_on_saturated_probabilities() -> None:
    """log of a softmax that rounds to zero would be −inf."""
    copy = scoring_copy(load_model(model("softmax")).model, {"x": (2, 3, 3)})
    form = output_form(copy.model, copy.shapes, None)
    head = attach_loss(
        copy.model, copy.shapes, form, choose_loss(form, targets((1,), "int64"), "auto")
    )
    copy.model.graph.outputs.append(head.loss)
    weight = next(iter(copy.model.graph.initializers.values()))
    array = np.zeros((4, 2, 3, 3), np.float32)
    array[0] = 100.0
    copy.model.graph.initializers[str(weight.name)].const_value = ir.tensor(array)
    feeds = {"x": np.ones((1, 2, 3, 3), np.float32), TARGET_INPUT: np.asarray([1])}
    loss = Session(copy.model).run(feeds, [str(head.loss.name)])[0]
    np.testing.assert_allclose(loss, [1800.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("wanted", "info"),
    [
        ("cross_entropy", None),
        ("mse", targets((8, 5), "float32")),
        ("auto", targets((8, 7), "float32")),
        ("bce", targets((8,), "int64")),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(wanted: str, info: ArrayInfo | None) -> None:
    copy = scoring_copy(load_model(model("logits")).model, {"x": (2, 3, 3)})
    form = output_form(copy.model, copy.shapes, None)
    with pytest.raises(LossError):
        choose_loss(form, info, wanted)
