"""How well each criterion orders the filters, against the truth.

The truth (*oracle*, Molchanov et al. 2017, arXiv 1611.06440, section 3.1) is the change of the mean
loss on the scored samples when a filter is really cut out alone. A criterion is good when its
scores order the filters as the truth does: Spearman's rank correlation. The truth is taken both as
it is and in absolute value; a filter whose loss goes down when it is gone is harmless to drop, yet
an absolute score calls it important.

    python -m benchmarks.criterion_correlation [--model NETWORK.onnx --data CIFAR10.npz]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.tables import markdown_table
from benchmarks.tasks import BATCH, Task, tasks_from_arguments
from graph_ops import TaylorPrunableNetwork

FILTERS_PER_LAYER = 24
"""Filters of a convolution cut out one by one; of larger convolutions a seeded sample."""
RANDOM_SEEDS = range(20)
CRITERIA: tuple[tuple[str, dict[str, object]], ...] = (
    ("taylor, gate batch_norm", {"criterion": "taylor"}),
    ("taylor, gate convolution", {"criterion": "taylor", "gate": "convolution"}),
    ("taylor_squared", {"criterion": "taylor_squared"}),
    ("magnitude_l2", {"criterion": "magnitude_l2"}),
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def sampled_filters(network: TaylorPrunableNetwork) -> list[IntArray]:
    """Classes of the filters to cut out, by convolution."""
    rng = np.random.default_rng(0)
    groups = []
    for convolution in network.convolutions:
        ids = np.unique(network.classes.of_filters(convolution))
        ids = ids[~network.classes.is_frozen[ids]]
        count = min(ids.size, FILTERS_PER_LAYER)
        groups.append(np.sort(rng.choice(ids, count, replace=False)))
    return groups


def oracle(task: Task, network: TaylorPrunableNetwork, classes: IntArray) -> FloatArray:
    """[classes] mean loss without the class, less the mean loss of the whole network."""
    whole = task.mean_loss(task.model)
    changes = np.empty(classes.size)
    for position, class_id in enumerate(classes):
        network.dropped[:] = False
        network.dropped[class_id] = True
        changes[position] = task.mean_loss(network.to_model()) - whole
    network.dropped[:] = False
    return changes


def scores(task: Task, options: dict[str, object]) -> FloatArray:
    """[classes] scores of a criterion on the task's calibration samples."""
    network = TaylorPrunableNetwork(task.model, options)
    if network.options.criterion.needs_gradients:
        for start in range(0, len(task.labels), BATCH):
            rows = slice(start, start + BATCH)
            network.update_score({task.input_name: task.images[rows], "labels": task.labels[rows]})
    return network.scores()


def rank_correlation(found: FloatArray, truth: FloatArray) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(found, truth).statistic)


def correlation_row(
    name: str, found: Sequence[FloatArray], truth: FloatArray, layers: Sequence[IntArray]
) -> list[str]:
    """Correlations with the truth, with its absolute value, and within layers (mean).

    Args:
        name: Criterion.
        found: Scores [filters] of one or several seeds, whose correlations are averaged.
        truth: [filters] oracle.
        layers: Positions of each convolution's filters.
    """
    whole = np.mean([rank_correlation(f, truth) for f in found])
    absolute = np.mean([rank_correlation(f, np.abs(truth)) for f in found])
    within = np.mean([rank_correlation(f[i], truth[i]) for f in found for i in layers])
    return [name, f"{whole:.3f}", f"{absolute:.3f}", f"{within:.3f}"]


def correlations(task: Task) -> list[list[str]]:
    """A row per criterion."""
    network = TaylorPrunableNetwork(task.model, {"criterion": "magnitude_l2"})
    groups = [g for g in sampled_filters(network) if g.size]
    classes = np.concatenate(groups)
    ends = np.cumsum([g.size for g in groups])
    layers = [np.arange(end - g.size, end) for g, end in zip(groups, ends, strict=True)]
    truth = oracle(task, network, classes)
    rows = [
        correlation_row(name, [scores(task, options)[classes]], truth, layers)
        for name, options in CRITERIA
    ]
    seeds = [scores(task, {"criterion": "random", "seed": seed})[classes] for seed in RANDOM_SEEDS]
    return [*rows, correlation_row("random (mean of seeds)", seeds, truth, layers)]


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table for every task."""
    header = ["criterion", "Spearman", "with |change|", "within layers"]
    for task in tasks_from_arguments("benchmarks.criterion_correlation", __doc__ or "", arguments):
        print(f"## Rank correlation with the measured loss change: {task.name}\n")
        print(markdown_table(header, correlations(task)), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
