"""This product's rows: baselines, plain Taylor, and Taylor with each recovery."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean

import graph_ops
from benchmarks.accuracy.results import Measured, Results, digest, source_digest
from benchmarks.tasks import BATCH, EVERY_FILTER, Task
from graph_ops.errors import PrunerError
from graph_ops.inspection import inspect_model
from graph_ops.pruning import prune

Options = Mapping[str, object]

RANDOM = "random (mean of 3)"
RANDOM_SEEDS = range(3)
RECONSTRUCT = "Taylor + reconstruct"
BY_SCORE = "Taylor + reconstruct, score_per_mac"
MEASURED_LAYERS: Options = {"recovery": "reconstruct", "rank_by": "error_per_mac"}
METHODS: dict[str, Options] = {
    RANDOM: {"criterion": "random", "recovery": "none"},
    "L2": {"criterion": "magnitude_l2", "recovery": "none"},
    "Taylor": {"recovery": "none"},
    "Taylor + bias": {"recovery": "bias"},
    RECONSTRUCT: {"recovery": "reconstruct"},
    BY_SCORE: {"recovery": "reconstruct", "rank_by": "score_per_mac"},
}
COMMON: Options = {"batch_size": BATCH, "on_unreachable": "best", **EVERY_FILTER}
STEPS = (1, 5, 10)
NORMALIZATIONS = ("none", "l2", "mean")
RANKINGS = ("score", "score_per_mac")


def default_rows() -> dict[str, Options]:
    """What the defaults are chosen from: rankings in one step, then steps by what is default."""
    rows: dict[str, Options] = {}
    for normalization, rank_by in itertools.product(NORMALIZATIONS, RANKINGS):
        rows[f"{normalization}, {rank_by}, 1 step"] = {
            "normalization": normalization,
            "rank_by": rank_by,
            "steps": 1,
        }
    rows["error_per_mac, 1 step"] = MEASURED_LAYERS
    for steps in STEPS[1:]:
        rows[f"none, score_per_mac, {steps} steps"] = {
            "normalization": "none",
            "rank_by": "score_per_mac",
            "steps": steps,
        }
    return rows


def macs(model: bytes) -> int:
    """Multiply-accumulates for one sample, by the product's own counter."""
    return int(inspect_model(model)["macs"])


@cache
def library() -> str:
    """A name for this version of the library."""
    return source_digest(Path(str(graph_ops.__file__)).parent)


def task_digest(task: Task) -> str:
    """A name for a network, its calibration samples and its hold-out."""
    arrays = (task.images, task.labels, task.test_images, task.test_labels)
    return digest([task.model, *(array.tobytes() for array in arrays)])


def measured(task: Task, options: Options, target: float, results: Results) -> Measured | None:
    """Accuracy of one run of `prune`."""

    def measure() -> Measured:
        given = {**COMMON, **options, "target": {"max_macs_ratio": target}}
        try:
            return of_model(task, prune(task.model, task.bundle(), given).model)
        except PrunerError as error:
            return Measured(error=str(error))

    return results.get(key_of(task, options, target), measure)


def of_model(task: Task, model: bytes) -> Measured:
    """What a pruned network comes to."""
    left = macs(model) / macs(task.model)
    return Measured(task.accuracy(model), left, "", task.accuracy_to_choose_by(model))


def key_of(task: Task, options: Options, target: float) -> list[str]:
    """What a measurement of this product depends on."""
    return [task_digest(task), library(), json.dumps(options, sort_keys=True), str(target)]


def row(
    task: Task, method: str, targets: Sequence[float], results: Results
) -> list[Measured | None]:
    """A method of the table at every target."""
    if method == RANDOM:
        return [mean_of_random(task, target, results) for target in targets]
    return [measured(task, METHODS[method], target, results) for target in targets]


def mean_of_random(task: Task, target: float, results: Results) -> Measured | None:
    """The random baseline, a mean over seeds."""
    options = METHODS[RANDOM]
    runs = [measured(task, {**options, "seed": seed}, target, results) for seed in RANDOM_SEEDS]
    accuracies = [run.accuracy for run in runs if run is not None and run.accuracy is not None]
    ratios = [run.macs_ratio for run in runs if run is not None and run.macs_ratio is not None]
    if len(accuracies) < len(runs):
        return None
    return Measured(mean(accuracies), mean(ratios))
