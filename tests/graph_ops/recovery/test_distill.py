"""Distillation: batches, gradients, what is kept."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops.canonical import scoring_copy
from graph_ops.pruning import prune
from graph_ops.recovery import acceptance
from graph_ops.recovery.training import parameters as training_parameters
from graph_ops.recovery.training.adam import Adam
from graph_ops.recovery.training.images import (
    changed_images,
    image_axes,
    moved,
    pasted,
    training_batches,
)
from graph_ops.recovery.training.student import Student
from graph_ops.recovery.training.teacher import Teacher, mean_squares, output_values
from tests.support import digits
from tests.support.cutting import model_of
from tests.support.recovering import counted, random_inputs, recovered

IMAGES = np.random.default_rng(0).random((6, 3, 16, 12)).astype(np.float32)
SMALL: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.4},
    "rank_by": "score_per_mac",  # after measured layers 40 iterations do not help
    "max_samples": 400,
    "block_iterations": 0,
    "seed": 1,
}


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((2, 3, 32, 32), (2, 3)),
        ((2, 32, 24, 1), (1, 2)),
        ((2, 64, 32, 32), None),
        ((2, 3, 4, 4), None),
        ((2, 3, 32), None),
    ],
)
def test_images_are_told_by_their_shape(
    shape: tuple[int, ...], axes: tuple[int, int] | None
) -> None:
    assert image_axes(np.zeros(shape, np.float32)) == axes


def test_moved_images_hold_pixels_of_their_own() -> None:
    found = moved(IMAGES, (2, 3), np.random.default_rng(1))
    assert found.shape == IMAGES.shape
    assert (found != IMAGES).any()
    for before, after in zip(IMAGES, found, strict=True):
        assert np.isin(after, before).all()


def test_rectangles_come_from_the_same_place_of_another_image() -> None:
    flat = np.arange(8, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 3, 16, 12), np.float32)
    found = pasted(flat, (2, 3), np.random.default_rng(3))
    changed = [n for n in range(8) if (found[n] != n).any()]
    assert 0 < len(changed) < 8
    for n in changed:
        (other,) = set(np.unique(found[n])) - {np.float32(n)}
        rows, columns = np.nonzero(found[n, 0] == other)
        size = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert (found[n, 0] == other).sum() == size


def test_every_sample_comes_once_before_one_comes_again() -> None:
    samples = {"x": np.arange(10, dtype=np.float32).reshape(10, 1)}
    batches = list(itertools.islice(training_batches(samples, 5, seed=2), 4))
    rounds = [np.concatenate([b["x"] for b in batches[i : i + 2]]).ravel() for i in (0, 2)]
    assert all(sorted(r) == list(range(10)) for r in rounds)
    assert (rounds[0] != rounds[1]).any()


def test_changes_follow_the_seed() -> None:
    first, second, third = (
        changed_images(IMAGES, (2, 3), np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_adam_finds_the_minimum_of_a_bowl() -> None:
    wanted = np.asarray([3.0, -2.0], np.float32)
    found = {"x": np.zeros(2, np.float32)}
    adam = Adam(found, {"x": 0.1}, 300)
    for _ in range(300):
        adam.update({"x": 1e-6 * (found["x"] - wanted) * np.asarray([1, 50], np.float32)})
    np.testing.assert_allclose(found["x"], wanted, atol=0.02)


def test_gradients_of_every_weight_agree_with_finite_differences() -> None:
    """Of a smooth network with a grouped, a depthwise and a transposed convolution."""
    body = """
        a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
        n = BatchNormalization(a, g, h, m, v)
        t = Sigmoid(n)
        d = Conv<group=4, pads=[1,1,1,1]>(t, w2)
        u = Tanh(d)
        e = ConvTranspose<group=2, strides=[2,2]>(u, w3)
        p = GlobalAveragePool(e)
        f = Flatten(p)
        y = Gemm<transB=1>(f, w4, b4)
    """
    weights = (
        "float[4,3,3,3] w1, float[4] b1, float[4] g, float[4] h, float[4] m, float[4] v, "
        "float[4,1,3,3] w2, float[4,3,2,2] w3, float[5,6] w4, float[5] b4"
    )
    model = ir.serde.deserialize_model(onnx.load_from_string(model_of(body, weights)))
    for name in ("v", "g"):
        value = model.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(np.abs(value.const_value.numpy()) + 0.5, name=name)
    inputs = random_inputs(model_of(body, weights), 3)
    shapes = {"x": inputs["x"].shape[1:]}
    names = ["w1", "b1", "h", "w2", "w3", "w4", "b4"]
    copy = scoring_copy(model, shapes)
    student = Student(copy, names, output_values(copy), {"y": 1.0})
    assert student.parameters == names
    rng = np.random.default_rng(5)
    wanted = {"y": rng.standard_normal((3, 5)).astype(np.float32)}
    stored = {
        n: np.array(model.graph.initializers[n].const_value.numpy())  # type: ignore[union-attr]
        for n in names
    }
    lesson = student.learn(inputs, wanted, stored)
    for name in names:
        direction = rng.standard_normal(stored[name].shape).astype(np.float32)
        step = 2e-2
        ahead, behind = (
            student.learn(inputs, wanted, stored | {name: stored[name] + s * direction}).loss
            for s in (step, -step)
        )
        measured = 3 * (ahead - behind) / (2 * step)
        products = lesson.gradients[name].astype(np.float64) * direction
        assert abs(products.sum() - measured) < 5e-3 * np.abs(products).sum() + 1e-5, name


def test_a_teacher_gives_logits_where_an_output_ends_in_softmax() -> None:
    body = "f = Flatten(x) z = Gemm<transB=1>(f, w) y = Softmax<axis=1>(z)"
    model = model_of(body, "float[5,108] w")
    inputs = random_inputs(model, 2)
    teacher = Teacher(ir.from_proto(onnx.load_from_string(model)), {"x": inputs["x"].shape[1:]})
    found = teacher.outputs(inputs)["y"]
    assert not np.allclose(found.sum(axis=1), 1)
    assert mean_squares([{"y": found}])["y"] == pytest.approx(np.square(found).mean(), rel=1e-5)


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    return {
        method: prune(
            digits.MODEL, digits.BUNDLE, SMALL | {"recovery": method, "distill_iterations": 40}
        )
        for method in ("reconstruct", "distill")
    }


def test_training_lowers_the_error_that_a_refit_leaves(reports: dict[str, Any]) -> None:
    refitted, trained = (reports[m].report["recovery"] for m in ("reconstruct", "distill"))
    done = trained["distillation"]
    assert refitted["distillation"] is None
    assert trained["method"] == "distill"
    assert done["kept"]
    assert done["reason"] is None
    assert (done["iterations"], done["samples"]) == (40, 288)
    assert done["output_error_before"] == refitted["output_error"]["after"]
    assert done["output_error_after"] == trained["output_error"]["after"]
    assert done["output_error_after"] < done["output_error_before"]
    assert done["trained"] > 1000


def test_training_is_deterministic_to_the_byte() -> None:
    options = SMALL | {"recovery": "distill", "distill_iterations": 8, "max_samples": 120}
    first, second = (prune(digits.MODEL, digits.BUNDLE, options).model for _ in range(2))
    assert first == second


def test_what_training_spoils_is_not_kept(
    reports: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_parameters, "WEIGHT_STEP", 3.0)
    options = SMALL | {"recovery": "distill", "distill_iterations": 3}
    result = prune(digits.MODEL, digits.BUNDLE, options)
    recovery = result.report["recovery"]
    assert recovery["method"] == "reconstruct"
    assert not recovery["distillation"]["kept"]
    assert recovery["distillation"]["reason"] == recovery["notes"][-1]
    assert recovery["output_error"] == reports["reconstruct"].report["recovery"]["output_error"]


def test_rounds_on_the_way_are_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, acceptance, "distill")
    options = SMALL | {"recovery": "distill", "distill_iterations": 2, "steps": 3}
    prune(digits.MODEL, digits.BUNDLE, options)
    assert len(calls) == 1


def test_weights_that_no_gradient_reaches_are_left_alone() -> None:
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1)
        r = Relu(a)
        c = Conv<pads=[1,1,1,1]>(r, w2)
        q, scale, zero = DynamicQuantizeLinear(c)
        d = DequantizeLinear(q, scale, zero)
        p = GlobalAveragePool(d)
        f = Flatten(p)
        y = Gemm<transB=1>(f, w3, b3)
    """
    weights = "float[8,3,3,3] w1, float[8,8,3,3] w2, float[5,8] w3, float[5] b3"
    model = model_of(body, weights)
    trial = recovered(model, {"a": [0, 3]}, "distill", iterations=20)
    done = trial.recovery.distillation
    assert done is not None
    assert done.trained == 5 * 8 + 5


def test_a_network_without_gradients_keeps_its_refit() -> None:
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1)
        r = Relu(a)
        c = Conv<pads=[1,1,1,1]>(r, w2)
        q, scale, zero = DynamicQuantizeLinear(c)
        y = DequantizeLinear(q, scale, zero)
    """
    model = model_of(body, "float[8,3,3,3] w1, float[8,8,3,3] w2")
    trial = recovered(model, {"a": [0, 3]}, "distill", iterations=20)
    assert trial.recovery.method == "reconstruct"
    assert trial.recovery.distillation is not None
    assert "no gradient" in str(trial.recovery.distillation.reason)
