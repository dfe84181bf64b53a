"""The benchmarks run on the library as it is, and their arithmetic is right.

The benchmarks themselves take minutes; here each one's parts run on something small.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import benchmarks
from benchmarks import __main__ as everything
from benchmarks import (
    criterion_correlation,
    digits_curve,
    graph_scaling,
    job_overhead,
    tables,
    tasks,
)
from benchmarks.speed import __main__ as speed
from benchmarks.speed import memory, timing
from benchmarks.zoo import measure as zoo
from graph_ops import TaylorPrunableNetwork
from tests.support import digits


@pytest.fixture(scope="module")
def task() -> tasks.Task:
    whole = tasks.digits()
    return replace(
        whole,
        images=whole.images[:40],
        labels=whole.labels[:40],
        test_images=whole.test_images[:200],
        test_labels=whole.test_labels[:200],
    )


def test_every_benchmark_is_run_by_the_package() -> None:
    folder = Path(str(benchmarks.__file__)).parent
    programs = {p.stem for p in folder.glob("*.py") if "def main(" in p.read_text()}
    assert {*everything.ORDER, *everything.ALONE} == programs - {"__main__"}
    assert not set(everything.ORDER) & set(everything.ALONE)


@pytest.mark.parametrize("name", [*everything.ORDER, *everything.ALONE])
def test_each_benchmark_can_be_imported(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


@pytest.mark.parametrize("part", speed.PARTS)
def test_each_part_of_the_speed_benchmark_can_be_imported(part: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.speed.{part}").main)


def test_medians_are_of_the_runs_that_count() -> None:
    seconds = iter(range(100))
    found = timing.in_turns({"a": lambda n: [float(next(seconds)) for _ in range(n)]}, 2, size=3)
    assert found == {"a": 6.0}  # 3, 4, 5 and 7, 8, 9: two to warm up, and the first of each turn


def test_what_must_live_of_a_small_network_is_counted(task: tasks.Task) -> None:
    network = TaylorPrunableNetwork(task.model)
    network.update_score({task.input_name: task.images[:2], "labels": task.labels[:2]})
    graph = network.scorer.graph
    assert graph is not None
    one, two = memory.living_bytes(graph, 1), memory.living_bytes(graph, 2)
    # The outputs of both convolutions at least: 12 filters at 28², 24 at 14².
    assert one >= 4 * sum(
        c.filter_count * side**2 for c, side in zip(network.convolutions[:2], (28, 14), strict=True)
    )
    assert two == 2 * one


def test_a_network_of_the_zoo_is_measured_with_both_engines(
    task: tasks.Task, tmp_path: Path
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(task.model)
    facts = zoo.measured(model, side=28, both_engines=True)
    assert facts["outcome"] == "pruned"
    assert facts["proof"] < 1e-4
    assert facts["macs"][1] < facts["macs"][0]
    assert facts.get("engine_gap", 0.0) < 1e-4


def test_a_table_is_markdown() -> None:
    assert tables.markdown_table(["a", "b"], [["long", "1"], ["x", "22"]]).splitlines() == [
        "| a    | b  |",
        "| ---- | -- |",
        "| long | 1  |",
        "| x    | 22 |",
    ]


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_fitted_exponent_is_the_one_of_a_power_law(power: float) -> None:
    nodes = [100, 1000, 10_000]
    fitted = graph_scaling.fitted_exponent(nodes, [3e-4 * n**power for n in nodes])
    assert fitted == pytest.approx(power)


@pytest.mark.parametrize("family", [graph_scaling.chain, graph_scaling.densenet])
def test_generated_graphs_have_about_the_nodes_asked_for_and_can_be_cut(family: object) -> None:
    source = family(100)  # type: ignore[operator]
    timing = graph_scaling.measure(source, repeats=1)
    assert 90 <= timing.nodes <= 130
    assert timing.total_s > 0


def test_rank_correlation_looks_at_the_order_only() -> None:
    truth = np.array([0.1, 0.2, 5.0, 9.0])
    assert criterion_correlation.rank_correlation(truth**3, truth) == pytest.approx(1)
    assert criterion_correlation.rank_correlation(-truth, truth) == pytest.approx(-1)


def test_correlations_within_layers_ignore_the_scale_of_a_layer() -> None:
    truth = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    found = np.array([100.0, 200.0, 300.0, 1.0, 2.0, 3.0])
    layers = [np.arange(3), np.arange(3, 6)]
    _, whole, _, within = criterion_correlation.correlation_row("x", [found], truth, layers)
    assert float(within) == pytest.approx(1)
    assert float(whole) < 0


def test_the_oracle_is_the_loss_change_of_the_independent_forward_pass(task: tasks.Task) -> None:
    network = TaylorPrunableNetwork(task.model, {"criterion": "magnitude_l2"})
    class_id = int(network.classes.of_filters(network.convolutions[1])[3])
    change = criterion_correlation.oracle(task, network, np.array([class_id]))
    gate = np.ones(20)
    gate[3] = 0
    weights = digits.weights()
    without = digits.losses(weights, task.images, task.labels, {"bn2": gate})
    whole = digits.losses(weights, task.images, task.labels)
    assert change[0] == pytest.approx(float((without - whole).mean()), abs=1e-5)
    assert not network.dropped.any()


def test_accuracy_is_the_share_of_right_answers(task: tasks.Task) -> None:
    wrong = tasks.Task(**{**vars(task), "test_labels": (task.test_labels + 1) % 10})
    assert task.accuracy(task.model) > 0.97
    assert wrong.accuracy(wrong.model) < 0.03


def test_a_cut_model_is_measured_on_the_test_samples(task: tasks.Task) -> None:
    kept = task.pruned_accuracy({"target": {"filters": 2}})
    assert kept == pytest.approx(task.accuracy(task.model), abs=0.02)


def test_job_overhead_is_what_is_left_of_the_time() -> None:
    row = job_overhead.overhead_row("x", [(2.0, 1.5), (3.0, 2.0), (1.0, 0.75)])
    assert row == ["x", "2.00", "1.50", "0.50", "1.00"]


def test_the_random_baseline_shows_mean_and_range() -> None:
    assert digits_curve.random_cell([0.5, 0.75, 1.0]) == "75.00 (50.00–100.00)"


def test_a_network_is_given_with_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tasks.tasks_from_arguments("x", "", ["--model", "m.onnx"])
    assert "--model and --data together" in capsys.readouterr().err
