"""Half precision and quantised models: scored in float32, cut with their scales, and proven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graph_ops import prune
from graph_ops.model import load_model
from graph_ops.network import TaylorPrunableNetwork
from tests.support import digits
from tests.support.precision import in_half_precision, quantised

OPTIONS = {"target": {"filters": 16}, "recovery": "none", "max_samples": 128, "batch_size": 32}


def bundle_in(folder: Path, dtype: type[np.generic]) -> Path:
    with np.load(digits.BUNDLE) as data:
        path = folder / "bundle.npz"
        np.savez(path, image=data["image"].astype(dtype), labels=data["labels"])
    return path


def scores(model: bytes, dtype: type[np.generic]) -> np.ndarray:
    network = TaylorPrunableNetwork(model, {"engine": "standard"})
    batch = digits.batch(0, 64)
    network.update_score({**batch, "image": batch["image"].astype(dtype)})
    return network.scores()[network.prunable]


@pytest.mark.parametrize(
    ("convert", "dtype", "tolerance"),
    [(in_half_precision, np.float16, 0.01), (quantised, np.float32, 0.1)],
)
def test_scores_are_those_of_the_float_model(convert, dtype, tolerance) -> None:  # type: ignore[no-untyped-def]
    expected = scores(digits.MODEL.read_bytes(), np.float32)
    found = scores(convert(digits.MODEL.read_bytes()), dtype)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * expected.max())


def test_a_half_precision_model_stays_one(tmp_path: Path) -> None:
    model = in_half_precision(digits.MODEL.read_bytes())
    result = prune(model, bundle_in(tmp_path, np.float16), OPTIONS)
    assert result.report["filters"]["after"] == result.report["filters"]["before"] - 16
    assert result.report["proof"]["max_rel_diff"] < 1e-5
    proto = onnx.ModelProto.FromString(result.model)
    kinds = {t.data_type for t in proto.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


def test_scales_and_zero_points_are_cut_with_the_filters(tmp_path: Path) -> None:
    model = quantised(digits.MODEL.read_bytes())
    result = prune(model, bundle_in(tmp_path, np.float32), OPTIONS)
    assert result.report["filters"]["after"] == result.report["filters"]["before"] - 16
    assert result.report["proof"]["max_rel_diff"] <= 1e-4
    pruned = onnx.ModelProto.FromString(result.model)
    stored = {t.name: numpy_helper.to_array(t) for t in pruned.graph.initializer}
    pairs = [
        (stored[n.input[0]], stored[n.input[1]], stored[n.input[2]])
        for n in pruned.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in stored
    ]
    assert [len(w) for w, _, _ in pairs] == [len(s) for _, s, _ in pairs]
    assert [len(w) for w, _, _ in pairs] == [len(z) for _, _, z in pairs]
    assert sum(len(w) for w, _, _ in pairs) == result.report["filters"]["after"]
    load_model(result.model)


@pytest.mark.parametrize("criterion", ["magnitude_l2", "random"])
def test_other_criteria_work_on_quantised_weights(criterion: str, tmp_path: Path) -> None:
    model = quantised(digits.MODEL.read_bytes())
    options = {**OPTIONS, "criterion": criterion}
    report = prune(model, bundle_in(tmp_path, np.float32), options).report
    assert report["filters"]["after"] == report["filters"]["before"] - 16
