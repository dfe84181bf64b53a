"""Blocks: where a network falls into them, what training does to them, what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graph_ops.canonical import scoring_copy
from graph_ops.options import BLOCK_ITERATIONS, parse_options
from graph_ops.pruning import prune
from graph_ops.recovery import acceptance, refit
from graph_ops.recovery.blockwise import stage
from graph_ops.recovery.blockwise.partition import NetworkBlock, find_blocks, largest_numbers
from graph_ops.recovery.blockwise.passing import Passing
from graph_ops.recovery.cut_network import CutNetwork
from graph_ops.recovery.layers import Layer
from graph_ops.recovery.refit import Refitter
from graph_ops.recovery.summary import BlockRecovery, LayerRecovery
from graph_ops.recovery.training import muon
from graph_ops.recovery.training.muon import MAX_WORK, Muon, orthogonal
from graph_ops.recovery.weights import RefittedWeights
from graph_ops.runtime import Session
from graph_ops.surgery import cut
from tests.support import digits
from tests.support.cutting import analyse_bytes, model_of
from tests.support.recovering import counted, drop_filters, random_inputs, recovered

SMALL: dict[str, Any] = {
    "target": {"max_macs_ratio": 0.4},
    "rank_by": "score_per_mac",
    "max_samples": 400,
    "seed": 1,
}
RESIDUAL = """
    a = Conv<pads=[1,1,1,1]>(x, w1)
    r = Relu(a)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
    b = Conv<pads=[1,1,1,1]>(p, w2)
    s = Relu(b)
    c = Conv<pads=[1,1,1,1]>(s, w3)
    t = Add(c, p)
    u = Relu(t)
    d = Conv<pads=[1,1,1,1]>(u, w4)
    v = Relu(d)
    e = Conv<pads=[1,1,1,1]>(v, w5)
    z = Relu(e)
    q = GlobalAveragePool(z)
    f = Flatten(q)
    y = Gemm<transB=1>(f, w6)
"""
RESIDUAL_WEIGHTS = (
    "float[8,3,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[8,8,3,3] w4, "
    "float[8,8,3,3] w5, float[5,8] w6"
)
CROSSING = """
    a = Conv<pads=[1,1,1,1]>(x, w1)
    r = Relu(a)
    b = Conv<pads=[1,1,1,1]>(r, w2)
    s = Relu(b)
    c = Conv<pads=[1,1,1,1]>(s, w3)
    t = Relu(c)
    k = Concat<axis=1>(r, t)
    y = Conv(k, w4)
"""
CROSSING_WEIGHTS = "float[8,3,3,3] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[2,16,1,1] w4"


def blocks_of(model: bytes, filters: dict[str, list[int]]) -> tuple[Any, list[NetworkBlock]]:
    analysis = analyse_bytes(model)
    dropped = drop_filters(analysis, filters)
    shapes = {n: a.shape[1:] for n, a in random_inputs(model, 2).items()}
    copies = [
        scoring_copy(m, shapes)
        for m in (cut(analysis.classes, dropped), analysis.classes.channels.model)
    ]
    return copies, find_blocks(analysis.classes, dropped, *copies)


def test_a_block_ends_where_one_value_is_passed_on() -> None:
    """Not within a residual sum, not behind a single layer, and before pixels are pooled."""
    _, blocks = blocks_of(model_of(RESIDUAL, RESIDUAL_WEIGHTS), {"a": [1], "b": [0, 5]})
    assert [b.outputs for b in blocks] == [["u"], ["z"], ["y"]]
    assert [len(b.layers) for b in blocks] == [3, 2, 1]
    assert [b.begin.value if b.begin else None for b in blocks] == [None, "u", "z"]
    assert blocks[0].weights == {"w1", "w2", "w3"}
    (end,) = blocks[0].compared
    kept = end.kept[1]
    assert kept is not None
    assert kept.tolist() == [n != 1 for n in range(8)]
    side = 3  # of the 6 × 6 pixels behind the pooling
    assert end.sizes == (7 * side * side, 8 * side * side)
    inputs = 3 * 6 * 6
    assert largest_numbers(blocks, {"x": (3, 6, 6)}) == inputs + inputs


def test_no_block_ends_where_another_value_passes_by() -> None:
    _, blocks = blocks_of(model_of(CROSSING, CROSSING_WEIGHTS), {"a": [1]})
    assert [b.outputs for b in blocks] == [["k"], ["y"]]


def test_outputs_on_the_way_are_compared_where_they_are_made() -> None:
    aside = "h = GlobalAveragePool(u) g = Flatten(h) o = Softmax<axis=1>(g)"
    begin, rest = RESIDUAL.split("d = Conv", 1)
    body = f"{begin} {aside} d = Conv{rest}"
    _, blocks = blocks_of(model_of(body, RESIDUAL_WEIGHTS, outputs="y, o"), {"b": [0]})
    assert [b.outputs for b in blocks] == [["g", "u"], ["z"], ["y"]]


@pytest.mark.parametrize(
    ("body", "weights"), [(RESIDUAL, RESIDUAL_WEIGHTS), (CROSSING, CROSSING_WEIGHTS)]
)
def test_passing_block_by_block_gives_what_the_network_gives(body: str, weights: str) -> None:
    model = model_of(body, weights)
    copies, blocks = blocks_of(model, {"a": [0, 3]})
    inputs = random_inputs(model, 4)
    for copy in copies:
        passing = Passing(copy, [inputs])
        for block in blocks:
            (ahead,) = passing.compared(block, [0])
            (found,) = passing.go_on(block)
            np.testing.assert_array_equal(ahead[block.name], found[block.name])
        (wanted,) = Session(copy.model).run(inputs)
        np.testing.assert_allclose(found["y"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 12, 40), (1, 40, 12), (5, 1, 9), (3, 7, 7)])
def test_singular_values_become_alike(shape: tuple[int, ...]) -> None:
    matrices = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = np.linalg.svd(orthogonal(matrices), compute_uv=False)
    assert found.min() > 0.3  # the iteration is made for speed: they end near 1, not at it
    assert found.max() < 1.3


def test_muon_finds_the_minimum_of_a_narrow_bowl_sooner_than_adam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Narrow in directions that mix the inputs, as those of correlated channels do."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((36, 36)))[0]
    narrow = ((axes * np.geomspace(1, 1000, 36)) @ axes.T).astype(np.float32)
    wanted = rng.standard_normal((6, 4, 3, 3)).astype(np.float32)
    shift = rng.uniform(-1, 1, 6).astype(np.float32)
    left = {}
    for limit in (MAX_WORK, 0.0):  # with 0 no matrix is small enough: Adam
        monkeypatch.setattr(muon, "MAX_WORK", limit)
        found = {"w": np.zeros_like(wanted), "b": np.zeros(6, np.float32)}
        optimiser = Muon(found, {"w": 0.1, "b": 0.1}, {"w": 1}, 60)
        for _ in range(60):
            gap = ((found["w"] - wanted).reshape(6, 36) @ narrow).reshape(wanted.shape)
            optimiser.update({"w": gap, "b": found["b"] - shift})
        left[limit] = float(np.square(found["w"] - wanted).mean())
        np.testing.assert_allclose(found["b"], shift, atol=0.1)
    assert left[MAX_WORK] < 0.5 * left[0.0]
    assert left[MAX_WORK] < 0.2


def test_a_gradient_of_zero_moves_nothing() -> None:
    found = {"w": np.ones((4, 2, 1, 1), np.float32)}
    Muon(found, {"w": 0.1}, {"w": 2}, 1).update({"w": np.zeros((4, 2, 1, 1), np.float32)})
    np.testing.assert_array_equal(found["w"], 1)


@pytest.fixture(scope="module")
def results() -> dict[int, Any]:
    return {n: prune(digits.MODEL, digits.BUNDLE, SMALL | {"block_iterations": n}) for n in (0, 50)}


def test_training_lowers_the_error_of_blocks_and_of_the_outputs() -> None:
    model = model_of(RESIDUAL, RESIDUAL_WEIGHTS)
    filters = {"a": [1], "b": [0, 5], "d": [2, 3]}
    plain, trained = (recovered(model, filters, samples=512, block_iterations=n) for n in (0, 50))
    assert plain.recovery.blocks == ()
    blocks = trained.recovery.blocks
    assert [b.kept for b in blocks[:2]] == [True, True]
    for block in blocks:
        assert block.trained > 0
        assert block.error_before is not None
        assert block.error_after is not None
        assert block.kept == (block.error_after < block.error_before)
        assert block.kept == (block.reason is None)
    fresh = random_inputs(model, 500, seed=9)
    assert trained.relative_errors(fresh)[1] < 0.97 * plain.relative_errors(fresh)[1]


def test_the_report_lists_the_blocks(results: dict[int, Any]) -> None:
    plain, trained = (results[n].report["recovery"] for n in (0, 50))
    assert plain["blocks"] == []
    assert trained["output_error"]["after"] <= plain["output_error"]["after"]
    assert [b["layers"] for b in trained["blocks"]] == [["conv1", "conv2"], ["conv3", "fc"]]


def test_what_training_spoils_is_not_kept(
    results: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "STEP_FACTOR", 1000.0)
    result = prune(digits.MODEL, digits.BUNDLE, SMALL)
    blocks = result.report["recovery"]["blocks"]
    assert blocks
    assert not any(b["kept"] for b in blocks)
    assert all("not lower" in b["reason"] or "not finite" in b["reason"] for b in blocks)
    assert Session(ir.from_proto(onnx.load_from_string(result.model))).run(
        random_inputs(result.model, 2)
    )[0] == pytest.approx(
        Session(ir.from_proto(onnx.load_from_string(results[0].model))).run(
            random_inputs(result.model, 2)
        )[0]
    )


def test_blocks_that_spoil_the_outputs_are_not_kept(
    results: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block's own error is not the last word."""

    def spoil(network: CutNetwork, *rest: Any) -> Any:
        tensors = {n: np.zeros_like(a) for n, a in network.weights.tensors.items()}
        spoilt = RefittedWeights(tensors, network.weights.biases)
        spoilt.lay_over(network.classes, network.dropped, network.model)
        return spoilt, [BlockRecovery("y", ("c",), 1, True, 0.2, 0.1)]

    monkeypatch.setattr(acceptance, "train_blocks", spoil)
    recovery = prune(digits.MODEL, digits.BUNDLE, SMALL).report["recovery"]
    plain = results[0].report["recovery"]
    assert recovery["output_error"] == plain["output_error"]
    assert not recovery["blocks"][0]["kept"]
    assert recovery["blocks"][0]["reason"] == recovery["notes"][-1]
    assert "blocks: not kept" in recovery["notes"][-1]


def test_rounds_on_the_way_are_not_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, acceptance, "train_blocks")
    prune(digits.MODEL, digits.BUNDLE, SMALL | {"block_iterations": 2, "steps": 3})
    assert len(calls) == 1


def test_a_model_of_a_fixed_batch_is_trained_as_well() -> None:
    filters = {"a": [1], "b": [0, 5], "d": [2, 3]}
    errors = []
    for count in (4, 16):
        fixed = model_of(RESIDUAL, RESIDUAL_WEIGHTS, inputs=f"float[{count},3,6,6] x")
        done = recovered(fixed, filters, samples=514, batch_size=count, block_iterations=30)
        blocks = done.recovery.blocks
        assert any(b.kept for b in blocks)
        errors.append([b.error_before for b in blocks])
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-4)


def test_a_block_without_gradients_says_so() -> None:
    body = """
        a = Conv<pads=[1,1,1,1]>(x, w1)
        r = Relu(a)
        c = Conv<pads=[1,1,1,1]>(r, w2)
        q, scale, zero = DynamicQuantizeLinear(c)
        y = DequantizeLinear(q, scale, zero)
    """
    model = model_of(body, "float[8,3,3,3] w1, float[8,8,3,3] w2")
    (block,) = recovered(model, {"a": [0, 3]}, block_iterations=5).recovery.blocks
    assert not block.kept
    assert "no gradient" in str(block.reason)


@pytest.mark.parametrize("biased", [False, True])
def test_what_is_trained_is_what_is_returned(monkeypatch: pytest.MonkeyPatch, biased: bool) -> None:
    """Also where a layer behind a trained block is given a bias it did not have until then."""
    given: list[str] = []
    original = Refitter.refit

    def refit(self: Refitter, layer: Layer, method: str) -> Any:
        if layer.name == "e" and given.count("e") == 0:
            given.append("e")
            return LayerRecovery("e", "Conv", "none")  # the first time it stays as it was
        given.append(layer.name)
        return original(self, layer, method)

    if biased:
        monkeypatch.setattr(Refitter, "refit", refit)
    model = model_of(RESIDUAL, RESIDUAL_WEIGHTS)
    filters = {"a": [1], "b": [0, 5], "d": [2, 3]}
    recovery = recovered(model, filters, samples=512, block_iterations=30).recovery
    assert [b.kept for b in recovery.blocks[:2]] == [True, True]
    last = recovery.blocks[-1]
    found = last.error_after if last.kept else last.error_before
    assert found == pytest.approx(recovery.output_error_after, rel=1e-4)
    assert given.count("e") == (2 if biased else 0)


def test_activations_that_are_not_kept_are_computed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(RESIDUAL, RESIDUAL_WEIGHTS)
    filters = {"a": [1], "b": [0, 5], "d": [2, 3]}
    kept = recovered(model, filters, samples=256, block_iterations=10).recovery
    monkeypatch.setattr(refit, "FRONTIER_BYTES", 1)
    found = recovered(model, filters, samples=256, block_iterations=10).recovery
    assert any(b.kept for b in kept.blocks)
    assert [b.kept for b in found.blocks] == [b.kept for b in kept.blocks]
    assert found.output_error_after == pytest.approx(kept.output_error_after, rel=1e-3)


def test_few_samples_are_drawn_where_the_ends_of_a_block_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []
    original = stage.training_batches

    def count(*arguments: Any) -> Any:
        for batch in original(*arguments):
            drawn.append(batch["x"].shape[0])
            yield batch

    monkeypatch.setattr(stage, "training_batches", count)
    monkeypatch.setattr(stage, "KEPT_BYTES", 100 * 4 * 216)  # numbers of the inputs, twice
    model = model_of(RESIDUAL, RESIDUAL_WEIGHTS)
    done = recovered(model, {"b": [0]}, samples=200, block_iterations=10)
    assert sum(drawn) == 80  # of 100, in batches of 16; others are set aside
    assert done.recovery.blocks


@pytest.mark.parametrize(
    ("macs", "iterations", "samples"),
    [(40_000_000, 50, 64), (900_000_000, 50, 18), (900_000_000, 25, 37), (15 * 10**9, 50, 8)],
)
def test_steps_of_large_networks_see_fewer_samples(
    macs: int, iterations: int, samples: int
) -> None:
    assert stage.step_samples(macs, iterations) == samples


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"target": {"max_macs_ratio": 0.5}}, BLOCK_ITERATIONS),
        ({"target": {"max_metric_drop": 0.01}}, 0),
        ({"target": {"max_metric_drop": 0.01}, "block_iterations": 7}, 7),
        ({"target": {"max_macs_ratio": 0.5}, "block_iterations": 0}, 0),
    ],
)
def test_a_search_does_not_train_every_size(options: dict[str, Any], count: int) -> None:
    assert parse_options(options).steps_of_blocks == count


def test_outputs_that_are_right_already_are_left_alone(
    results: dict[int, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = results[0].report["recovery"]["output_error"]["after"]
    monkeypatch.setattr(acceptance, "SMALL_ERROR", error)
    result = prune(digits.MODEL, digits.BUNDLE, SMALL)
    assert result.report["recovery"]["blocks"] == []
    assert result.report["recovery"]["output_error"]["after"] == error
    assert 0.02 < error < 0.1  # by the default it is trained, as above
