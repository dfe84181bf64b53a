"""`prune` on the digits example: targets, schedules, floors, determinism, report, proof."""

from __future__ import annotations

import gc
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import graph_ops.result
from graph_ops.engines.standard import StandardSession
from graph_ops.errors import (
    FilterGlobError,
    LossError,
    NothingPrunableError,
    ProofError,
    ScoreStateError,
    SurgeryError,
    UnreachableTargetError,
)
from graph_ops.pruning import Progress, PruneResult, prune
from graph_ops.scores import ScoreState
from tests.support import digits

QUICK: dict[str, Any] = {"max_samples": 128, "batch_size": 64, "recovery": "none"}
"""Few samples, and the cut as it is: recovery has tests of its own."""


def run(**options: Any) -> PruneResult:
    return prune(digits.MODEL, digits.BUNDLE, QUICK | options)


def test_the_default_drops_eight_filters_and_keeps_held_out_accuracy() -> None:
    result = prune(digits.MODEL, digits.BUNDLE)
    report = result.report
    assert report["filters"] == {
        "before": 60,
        "after": 52,
        "prunable_before": 48,
        "prunable_after": 40,
    }
    assert report["metric"]["name"] == "accuracy"
    with np.load(digits.TEST) as test:
        images, labels = test["image"], test["labels"]
    accuracy = []
    for model in (digits.MODEL.read_bytes(), result.model):
        session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        guess = session.run(None, {"image": images})[0].argmax(axis=1)
        accuracy.append(float((guess == labels).mean()))
    assert accuracy[0] - accuracy[1] <= 0.01


@pytest.mark.parametrize(
    ("target", "measure"),
    [
        ({"filter_ratio": 0.7}, lambda r: r["filters"]["after"] / r["filters"]["before"]),
        (
            {"max_params_ratio": 0.6},
            lambda r: r["cost"]["after"]["parameters"] / r["cost"]["before"]["parameters"],
        ),
        (
            {"max_macs_ratio": 0.5},
            lambda r: r["cost"]["after"]["macs"] / r["cost"]["before"]["macs"],
        ),
        ({"max_size_bytes": 300_000}, lambda r: r["cost"]["after"]["bytes"] / 300_000),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_target_is_reached_and_not_overshot_by_more_than_a_class(
    target: dict[str, Any], measure: Any
) -> None:
    report = run(target=target).report
    wanted = next(iter(target.values())) if "max_size_bytes" not in target else 1.0
    found = measure(report)
    assert wanted - 0.06 <= found <= wanted
    assert report["stop_reason"] == "target_reached"
    assert report["proof"]["max_rel_diff"] <= 1e-4


def test_costs_in_the_report_are_those_of_the_returned_model() -> None:
    result = run(target={"filters": 20})
    model = onnx.load(io.BytesIO(result.model))
    shapes = {i.name: list(i.dims) for i in model.graph.initializer}
    kernel = {n: shapes[f"{n}.weight"] for n in digits.CONVOLUTIONS}
    positions = 24 * 24
    macs = sum(int(np.prod(k)) * positions for k in kernel.values()) + int(
        np.prod(shapes["fc.weight"])
    )
    parameters = sum(
        int(np.prod(shapes[f"{n}.{part}"]))
        for n in (*digits.CONVOLUTIONS, "fc")
        for part in ("weight", "bias")
    )
    after = result.report["cost"]["after"]
    assert (after["macs"], after["parameters"]) == (macs, parameters)
    assert after["bytes"] == len(result.model)
    for entry in result.report["convolutions"]:
        assert entry["filters_after"] == len(entry["kept"]) == kernel[entry["name"]][0]
        assert entry["filters_before"] == len(entry["scores"]) == 20


def test_kept_filters_are_the_originals_own_weights() -> None:
    result = run(target={"filters": 10})
    before = digits.weights()
    after = {
        i.name: onnx.numpy_helper.to_array(i)
        for i in onnx.load(io.BytesIO(result.model)).graph.initializer
    }
    kept = [np.asarray(e["kept"]) for e in result.report["convolutions"]]
    expected = before["conv2.weight"][kept[1]][:, kept[0]].astype(np.float32)
    np.testing.assert_array_equal(after["conv2.weight"], expected)


@pytest.mark.parametrize("schedule", [{"steps": 4}, {"filters_per_step": 5}])
def test_rounds_lead_to_the_same_target(schedule: dict[str, int]) -> None:
    report = run(target={"filters": 20}, **schedule).report
    assert report["filters"]["before"] - report["filters"]["after"] == 20
    assert [r["round"] for r in report["rounds"]] == [1, 2, 3, 4]
    counts = [r["filters"] for r in report["rounds"]]
    assert all(0 <= r["metric"] <= 1 and r["latency_ms"] > 0 for r in report["rounds"])
    assert report["rounds"][-1]["metric"] == report["metric"]["after"]
    assert counts == [55, 50, 45, 40]


@pytest.mark.parametrize("criterion", ["taylor", "taylor_squared", "magnitude_l2", "random"])
def test_every_criterion_is_deterministic_to_the_byte(criterion: str) -> None:
    options = {"target": {"max_macs_ratio": 0.6}, "criterion": criterion, "seed": 3}
    first, second = run(**options), run(**options)
    assert first.model == second.model
    assert first.report["proof"]["max_rel_diff"] <= 1e-4


def test_a_seed_changes_what_random_drops() -> None:
    models = {run(criterion="random", seed=seed).model for seed in range(3)}
    assert len(models) == 3


def test_floors_and_multiples_hold() -> None:
    report = run(
        target={"filters": 40}, min_filters=8, channel_multiple=4, on_unreachable="best"
    ).report
    for entry in report["convolutions"]:
        assert entry["filters_after"] >= 8
        assert entry["filters_after"] % 4 == 0
    assert report["stop_reason"] in ("nothing_more_to_prune", "target_reached")


def test_excluded_convolutions_are_left_alone_and_say_why() -> None:
    report = run(exclude=["conv1"], include=["conv*"], target={"filters": 20}).report
    by_name = {e["name"]: e for e in report["convolutions"]}
    assert by_name["conv1"]["filters_after"] == 20
    assert "excluded" in by_name["conv1"]["frozen"]
    assert by_name["conv2"]["frozen"] is None


def test_an_unreachable_target_says_how_far_it_could_go() -> None:
    with pytest.raises(UnreachableTargetError) as caught:
        run(target={"filters": 49})
    assert caught.value.details["best"]["filters_dropped"] == 48  # type: ignore[index]
    report = run(target={"filters": 49}, on_unreachable="best").report
    assert report["filters"]["after"] == 12
    assert report["stop_reason"] == "nothing_more_to_prune"


@pytest.mark.parametrize("normalization", ["none", "l2", "mean"])
@pytest.mark.parametrize("rank_by", ["score", "score_per_mac"])
def test_normalisation_and_ranking_reach_the_target(normalization: str, rank_by: str) -> None:
    report = run(
        target={"max_macs_ratio": 0.7}, normalization=normalization, rank_by=rank_by
    ).report
    assert report["cost"]["after"]["macs"] <= 0.7 * report["cost"]["before"]["macs"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"include": ["nothing*"]}, FilterGlobError),
        ({"output": "nope"}, LossError),
        ({"min_filters": 20}, NothingPrunableError),
        ({"loss": "mse"}, LossError),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        run(**options)


def test_without_labels_pseudo_labels_are_used(tmp_path: Any) -> None:
    bundle = tmp_path / "images.npz"
    np.savez(bundle, image=digits.batch(0, 96)["image"])
    report = prune(digits.MODEL, bundle, {"target": {"filters": 8}, "recovery": "none"}).report
    assert report["loss"]["name"] == "pseudo_labels"
    assert report["metric"]["name"] == "agreement"
    assert report["metric"]["before"] == 1.0
    assert report["filters"]["after"] == 52


def test_scores_can_be_kept_and_cut_again_at_another_target(tmp_path: Any) -> None:
    first = run(target={"filters": 4})
    first.write_scores(tmp_path / "scores.npz")
    state = ScoreState.load(tmp_path / "scores.npz")
    again = prune(digits.MODEL, digits.BUNDLE, QUICK | {"target": {"filters": 12}}, scores=state)
    fresh = run(target={"filters": 12})
    assert again.model == fresh.model
    with pytest.raises(ScoreStateError):
        prune(
            digits.MODEL,
            digits.BUNDLE,
            QUICK | {"target": {"filters": 4}, "reduction": "mean"},
            scores=state,
        )


def test_scores_of_other_convolutions_are_not_taken_over(tmp_path: Any) -> None:
    """Scores taken without conv1 say nothing of conv1; taken as zeros they would drop it first."""
    run(exclude=["conv1"], target={"filters": 4}).write_scores(tmp_path / "scores.npz")
    state = ScoreState.load(tmp_path / "scores.npz")
    with pytest.raises(ScoreStateError):
        prune(digits.MODEL, digits.BUNDLE, QUICK, scores=state)


def _sabotage(monkeypatch: pytest.MonkeyPatch, change: Callable[[onnx.ModelProto], None]) -> None:
    """Let the writer make a mistake in what it writes."""
    write = graph_ops.result.model_bytes

    def write_wrongly(*arguments: Any) -> bytes:
        model = onnx.load_from_string(write(*arguments))
        change(model)
        return model.SerializeToString()

    monkeypatch.setattr(graph_ops.result, "model_bytes", write_wrongly)


def test_a_file_that_differs_from_the_cut_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def scale_a_weight(model: onnx.ModelProto) -> None:
        weight = next(i for i in model.graph.initializer if i.name == "conv2.weight")
        array = onnx.numpy_helper.to_array(weight) * 1.01
        weight.raw_data = array.astype(np.float32).tobytes()

    _sabotage(monkeypatch, scale_a_weight)
    with pytest.raises(ProofError) as caught:
        run()
    details = caught.value.details
    assert details["precision"] == "float64"
    assert details["max_rel_diff"] > details["tolerance"] == 1e-6  # type: ignore[operator]


def test_a_file_that_the_checker_refuses_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget_an_input(model: onnx.ModelProto) -> None:
        del model.graph.node[0].input[1:]

    _sabotage(monkeypatch, forget_an_input)
    with pytest.raises(SurgeryError) as caught:
        run()
    assert caught.value.details["cause"] == "model_invalid"


def test_the_file_that_is_written_is_the_one_that_was_proven(tmp_path: Any) -> None:
    result = run()
    assert result.write_model(tmp_path / "pruned.onnx").read_bytes() == result.model


def test_progress_and_metadata() -> None:
    seen: list[Progress] = []
    result = prune(digits.MODEL, digits.BUNDLE, QUICK, progress=seen.append)
    assert {p.phase for p in seen} == {"load", "score", "cut", "write", "prove", "measure"}
    scored = [p for p in seen if p.phase == "score"]
    assert (
        scored[-1].done
        == scored[-1].total
        == result.report["bundle"]["samples"] - (result.report["bundle"]["held_out"])
    )
    model = onnx.load(io.BytesIO(result.model))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["onnx_filter_pruner.source_sha256"] == result.report["model"]["sha256"]
    assert json.loads(metadata["onnx_filter_pruner.options"])["max_samples"] == 128
    assert metadata["onnx_filter_pruner.version"].startswith("onnx-filter-pruner ")


def test_the_report_is_json() -> None:
    assert json.loads(json.dumps(run().report, allow_nan=False))["schema"] == 1


def test_sessions_of_the_scoring_are_gone_when_the_cut_begins() -> None:
    """They hold the weights three times and more, which a large model cannot spare."""
    gc.collect()
    alive: dict[str, int] = {}

    def count(progress: Progress) -> None:
        if progress.phase not in alive:
            alive[progress.phase] = sum(isinstance(o, StandardSession) for o in gc.get_objects())

    prune(
        digits.MODEL,
        digits.BUNDLE,
        {"engine": "standard", "recovery": "none"},
        progress=count,
    )
    assert alive["score"] == alive["load"] + 1
    assert alive["cut"] == alive["load"]
