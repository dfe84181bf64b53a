"""`prune` with recovery: rounds, report, structure of the returned file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from graph_ops.equivalence import check_same_structure
from graph_ops.errors import ProofError
from graph_ops.network import TaylorPrunableNetwork
from graph_ops.pruning import Progress, PruneResult, prune
from tests.support import digits
from tests.support.cutting import model_of
from tests.support.models import light_input, light_network, text_model
from tests.support.recovering import random_inputs

HALF: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.5},
    "max_samples": 400,
    "rank_by": "score_per_mac",  # the same filters go whatever the recovery
}


def run(**options: Any) -> PruneResult:
    return prune(digits.MODEL, digits.BUNDLE, HALF | options)


def accuracy(model: bytes) -> float:
    with np.load(digits.TEST) as test:
        images, labels = test["image"], test["labels"]
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float((session.run(None, {"image": images})[0].argmax(axis=1) == labels).mean())


def structure(model: bytes) -> list[tuple[Any, ...]]:
    """Nodes with their attributes and the values they read and make, stored tensors left out."""
    graph = onnx.load_from_string(model).graph
    tensors = {t.name for t in graph.initializer}
    return [
        (
            node.op_type,
            tuple(a.SerializeToString() for a in node.attribute),
            tuple(i for i in node.input if i not in tensors),
            tuple(node.output),
        )
        for node in graph.node
    ]


@pytest.fixture(scope="module")
def plain() -> PruneResult:
    return run(recovery="none")


@pytest.fixture(scope="module")
def refitted() -> PruneResult:
    return run(recovery="reconstruct")


def test_a_refit_gives_accuracy_back(plain: PruneResult, refitted: PruneResult) -> None:
    original = accuracy(digits.MODEL.read_bytes())
    assert accuracy(refitted.model) > accuracy(plain.model)
    assert original - accuracy(refitted.model) <= 0.01


def test_only_numbers_change(plain: PruneResult, refitted: PruneResult) -> None:
    assert structure(refitted.model) == structure(plain.model)
    assert refitted.model != plain.model
    kept = [[c["kept"] for c in r.report["convolutions"]] for r in (plain, refitted)]
    assert kept[0] == kept[1]


def test_the_proof_is_of_the_cut_before_the_refit(
    plain: PruneResult, refitted: PruneResult
) -> None:
    assert refitted.report["proof"] == plain.report["proof"]
    metric = refitted.report["recovery"]["metric"]
    assert metric["before"] == plain.report["metric"]["after"]
    assert metric["after"] == refitted.report["metric"]["after"]


def test_the_report_tells_what_was_done(plain: PruneResult, refitted: PruneResult) -> None:
    assert plain.report["recovery"] is None
    recovery = refitted.report["recovery"]
    assert (recovery["asked"], recovery["method"]) == ("reconstruct", "reconstruct")
    assert recovery["output_error"]["after"] < recovery["output_error"]["before"]
    assert [entry["name"] for entry in recovery["layers"]] == ["conv3", "fc"]
    assert recovery["samples"] == {"fitted": 288, "checked": 72}
    assert recovery["seconds"] > 0


def test_a_refit_is_deterministic_to_the_byte(refitted: PruneResult) -> None:
    assert run(recovery="reconstruct").model == refitted.model


def test_every_round_is_scored_on_the_refitted_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights_when_scored: list[bool] = []
    update = TaylorPrunableNetwork.update_score

    def watch(network: TaylorPrunableNetwork, *arguments: Any) -> None:
        weights_when_scored.append(bool(network.weights))
        update(network, *arguments)

    monkeypatch.setattr(TaylorPrunableNetwork, "update_score", watch)
    seen: list[Progress] = []
    result = prune(
        digits.MODEL,
        digits.BUNDLE,
        HALF | {"recovery": "reconstruct", "steps": 3, "batch_size": 360},
        progress=seen.append,
    )
    assert weights_when_scored == [False, True, True]
    messages = [p.message for p in seen if p.phase == "recover" and p.done == p.total]
    assert messages == [*(f"round {n}, refit" for n in (1, 2, 3)), "round 3, blocks"]
    assert accuracy(digits.MODEL.read_bytes()) - accuracy(result.model) <= 0.01


def test_a_network_goes_on_with_saved_weights() -> None:
    """What a round leaves behind is the drop mask and the refitted weights; both can be stored."""
    first = TaylorPrunableNetwork(digits.MODEL)
    first.update_score(digits.batch(0, 64))
    first.update_prunables(20)
    before = first.to_model()
    weights = {
        name: first.classes.channels.model.graph.initializers[name].const_value.numpy() * 1.5  # type: ignore[union-attr]
        for name in ("conv2.weight",)
    }
    first.take_weights(type(first.weights)(weights))
    again = TaylorPrunableNetwork(digits.MODEL)
    again.dropped = first.dropped
    again.take_weights(first.weights)
    assert again.to_model() == first.to_model() != before
    assert again.digest == first.digest


@pytest.fixture(scope="module")
def without_biases() -> tuple[bytes, bytes]:
    """A network whose convolutions have no bias, and a bundle for it."""
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1)
        r = Relu(a)
        b = Conv<pads=[1,1,1,1]>(r, w2)
        s = Relu(b)
        c = Conv(s, w3)
        p = GlobalAveragePool(c)
        y = Flatten(p)
    """
    weights = "float[16,3,3,3] w1, float[16,16,3,3] w2, float[6,16,1,1] w3"
    model = model_of(body, weights)
    file = io.BytesIO()
    np.savez(file, **random_inputs(model, 96))  # type: ignore[arg-type]
    return model, file.getvalue()


@pytest.mark.parametrize("method", ["bias", "reconstruct"])
def test_a_size_in_bytes_is_kept_with_added_biases(
    method: str, without_biases: tuple[bytes, bytes]
) -> None:
    limit = 9_000
    options = {"recovery": method, "target": {"max_size_bytes": limit}, "seed": 1}
    result = prune(*without_biases, options)
    assert len(result.model) == result.report["cost"]["after"]["bytes"] <= limit
    assert result.report["recovery"]["method"] == method
    before = [len(n.input) for n in onnx.load_from_string(without_biases[0]).graph.node]
    after = [len(n.input) for n in onnx.load_from_string(result.model).graph.node]
    assert sum(after) > sum(before)


def test_a_bias_that_one_round_added_is_refitted_in_the_next(
    without_biases: tuple[bytes, bytes],
) -> None:
    options = {"recovery": "reconstruct", "target": {"filter_ratio": 0.6}, "steps": 3}
    report = prune(*without_biases, options).report
    assert report["recovery"]["method"] == "reconstruct"
    assert (
        report["recovery"]["output_error"]["after"]
        < 0.7 * (report["recovery"]["output_error"]["before"])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "shufflenet", "inception_v1"])
def test_real_architectures_keep_their_nodes(name: str) -> None:
    file = io.BytesIO()
    images = np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32)
    np.savez(file, **{light_input(name): images})  # type: ignore[arg-type]
    options = {
        "target": {"filter_ratio": 0.7},
        "criterion": "random",
        "validation_fraction": 0,
        "batch_size": 4,
    }
    models = {
        method: prune(
            light_network(name, shrink=16, batch="N"),
            file.getvalue(),
            options | {"recovery": method},
        )
        for method in ("none", "bias")
    }
    plain, recovered = structure(models["none"].model), structure(models["bias"].model)
    assert recovered == plain
    report = models["bias"].report["recovery"]
    assert report["method"] == "bias"
    assert len(report["layers"]) > 20
    assert report["output_error"]["after"] < report["output_error"]["before"]


def test_a_class_that_the_bundle_lacks_is_named() -> None:
    with np.load(digits.BUNDLE) as data:
        chosen = np.flatnonzero(~np.isin(data["labels"], [3, 7]))[:100]
        file = io.BytesIO()
        np.savez(file, image=data["image"][chosen], labels=data["labels"][chosen])
    report = prune(digits.MODEL, file.getvalue(), {"recovery": "bias"}).report
    assert "2 classes (3, 7)" in report["recovery"]["notes"][0]


def test_a_model_without_a_metric_is_recovered_by_its_outputs(
    without_biases: tuple[bytes, bytes],
) -> None:
    """No labels, a criterion without gradients, nothing held out: there is no metric to report."""
    options = {
        "recovery": "reconstruct",
        "criterion": "magnitude_l2",
        "target": {"filter_ratio": 0.7},
        "validation_fraction": 0,
    }
    report = prune(*without_biases, options).report
    assert report["recovery"]["metric"]["after"] is None
    assert report["recovery"]["method"] == "reconstruct"


SHARED = """<ir_version: 8, opset_import: ["": 17]>
spec (float[N, 2] x) => (float[N, 2] y)
<float[2] b = {1.0, 2.0}, float[2] own = {3.0, 4.0}>
{ same = Identity(b) h = Add(x, b) r = Relu(h) y = Add(r, OPERAND) }"""


def as_ir(operand: str) -> ir.Model:
    return ir.from_proto(onnx.load_from_string(text_model(SHARED.replace("OPERAND", operand))))


def test_a_tensor_that_an_exporter_stored_once_may_part_from_its_equal() -> None:
    """Equal tensors are stored once and read through an Identity, until one of them is refitted."""
    check_same_structure(as_ir("same"), as_ir("own"))


def test_a_node_that_reads_another_computed_value_is_not_the_same() -> None:
    with pytest.raises(ProofError, match="more than weights"):
        check_same_structure(as_ir("same"), as_ir("h"))
