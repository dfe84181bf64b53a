"""Surgery by hand: lists of channels, and reports replayed on sibling models."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from graph_ops.by_hand import cut_channels
from graph_ops.errors import ChannelListError, OptionsError, ReportMismatchError
from graph_ops.pruning import prune
from tests.support import digits


def sibling() -> bytes:
    """The digits network with other weights."""
    model = onnx.load(digits.MODEL)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array[::-1].copy(), tensor.name))
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    options = {"target": {"filters": 20}, "max_samples": 128, "recovery": "none"}
    return prune(digits.MODEL, digits.BUNDLE, options).report


def shapes(content: bytes) -> dict[str, list[int]]:
    model = onnx.load_from_string(content)
    return {t.name: list(t.dims) for t in model.graph.initializer}


def test_dropped_channels_are_gone_and_the_proof_is_on_random_inputs() -> None:
    result = cut_channels(digits.MODEL, {"drop": {"conv1": [0, 5], "conv3": [1]}})
    kept = {c["name"]: c["kept"] for c in result.report["convolutions"]}
    assert kept["conv1"] == [i for i in range(20) if i not in (0, 5)]
    assert kept["conv2"] == list(range(20))
    assert kept["conv3"] == [i for i in range(20) if i != 1]
    assert result.report["proof"]["inputs"] == "random"
    assert result.report["proof"]["max_rel_diff"] <= 1e-4
    assert result.report["bundle"]["sha256"] is None
    assert result.report["metric"]["name"] is None
    assert result.report["stop_reason"] == "cut_as_asked"
    before, after = shapes(digits.MODEL.read_bytes()), shapes(result.model)
    assert (before["conv1.weight"][0], after["conv1.weight"][0]) == (20, 18)
    assert after["conv2.weight"][1] == 18


def test_keep_is_the_complement_of_drop() -> None:
    kept = [i for i in range(20) if i != 7]
    by_keep = cut_channels(digits.MODEL, {"keep": {"conv2": kept}})
    by_drop = cut_channels(digits.MODEL, {"drop": {"conv2": [7]}})
    assert by_keep.model == by_drop.model


def test_with_a_bundle_it_is_proven_recovered_and_measured_on_it() -> None:
    options = {"max_samples": 200, "recovery": "bias"}
    report = cut_channels(
        digits.MODEL, {"drop": {"conv1": [0, 1, 2]}}, digits.BUNDLE, options
    ).report
    assert report["proof"]["inputs"] == "bundle"
    assert report["metric"]["name"] == "accuracy"
    assert report["recovery"]["asked"] == "bias"


def test_a_report_is_replayed_on_a_sibling_to_the_same_shapes(report: dict[str, Any]) -> None:
    own = cut_channels(digits.MODEL, {"report": report})
    other = cut_channels(sibling(), {"report": report})
    assert shapes(other.model) == shapes(own.model)
    assert other.model != own.model
    assert [c["kept"] for c in other.report["convolutions"]] == [
        c["kept"] for c in report["convolutions"]
    ]
    session = ort.InferenceSession(other.model, providers=["CPUExecutionProvider"])
    assert session.run(None, {"image": digits.batch(0, 2)["image"]})[0].shape == (2, 10)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c[1].update(name="conv9"), "Convolution 1 .* name = 'conv2'.*'conv9'"),
        (lambda c: c[0].update(filters_before=32), "filters_before = 20.*32"),
        (lambda c: c[2].update(op_type="ConvTranspose"), "op_type"),
        (lambda c: c.pop(), "2 convolutions; the model has 3"),
        (lambda c: c[0].update(kept="all"), "no list of indices"),
        (lambda c: c[0].update(kept=[0, 99]), "filter 99 is outside"),
    ],
    ids=["name", "filters", "op_type", "fewer", "kept", "outside"],
)
def test_a_report_that_does_not_fit_is_refused_with_the_first_mismatch(
    report: dict[str, Any], change: Any, says: str
) -> None:
    changed = copy.deepcopy(report)
    change(changed["convolutions"])
    with pytest.raises(ReportMismatchError, match=says):
        cut_channels(digits.MODEL, {"report": changed})


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ({"drop": {"conv9": [0]}}, "no convolution 'conv9'"),
        ({"drop": {"conv1": [20]}}, "filter 20 is outside"),
        ({"drop": {"conv1": [1, 1]}}, "listed twice"),
        ({"drop": {"conv1": list(range(20))}}, "No filter would be left"),
        ({"drop": {"conv1": [0]}, "keep": {"conv1": [1]}}, "exactly one"),
        ({"drop": {"conv1": ["a"]}}, "drop.conv1.0"),
        ({"cut": {}}, "cut"),
    ],
)
def test_lists_that_cannot_be_followed_say_why(channels: dict[str, Any], says: str) -> None:
    with pytest.raises(ChannelListError, match=says):
        cut_channels(digits.MODEL, channels)


COUPLED = """
<ir_version: 8, opset_import: ["" : 17]>
coupled (float[N, 3, 6, 6] x) => (float[N, 4] y)
<float[8, 3, 1, 1] a, float[8, 3, 1, 1] b, float[4, 8] w, float[4] v> {
    p = Conv (x, a)
    q = Conv (x, b)
    s = Add (p, q)
    g = GlobalAveragePool (s)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, w, v)
}
"""


def coupled() -> bytes:
    model = onnx.parser.parse_model(COUPLED)
    rng = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name, dims in (("a", (8, 3, 1, 1)), ("b", (8, 3, 1, 1)), ("w", (4, 8)), ("v", (4,))):
        array = rng.normal(size=dims).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for value in list(model.graph.value_info):
        model.graph.value_info.remove(value)
    return bytes(model.SerializeToString())


def test_coupled_filters_go_together_and_lists_may_not_part_them() -> None:
    result = cut_channels(coupled(), {"drop": {"p": [2]}})
    kept = [c["kept"] for c in result.report["convolutions"]]
    assert kept == [[0, 1, 3, 4, 5, 6, 7]] * 2
    with pytest.raises(ChannelListError, match="kept, but goes with"):
        cut_channels(coupled(), {"keep": {"p": [0, 1, 2], "q": [0, 1, 3]}})


def test_an_open_shape_needs_to_be_given() -> None:
    open_axes = onnx.load_from_string(coupled())
    for axis in (2, 3):
        open_axes.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"s{axis}"
    content = open_axes.SerializeToString()
    with pytest.raises(OptionsError, match="sample_shapes"):
        cut_channels(content, {"drop": {"p": [2]}})
    result = cut_channels(content, {"drop": {"p": [2]}}, sample_shapes={"x": (3, 5, 5)})
    assert result.report["proof"]["max_rel_diff"] <= 1e-4
