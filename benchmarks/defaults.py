"""Evidence for the defaults of `normalization`, `rank_by` and `steps`.

Held-out accuracy without retraining, criterion `taylor`.

python -m benchmarks.defaults [--model NETWORK.onnx --data CIFAR10.npz]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from benchmarks.digits_curve import MACS_RATIOS
from benchmarks.tables import markdown_table
from benchmarks.tasks import Task, tasks_from_arguments

NORMALIZATIONS = ("none", "l2", "mean")
RANKINGS = ("score", "score_per_mac")
STEPS = (1, 10)


def grid(task: Task, all_steps: Sequence[int] = STEPS) -> list[list[str]]:
    """A row per combination: accuracy in percent at every MACs ratio, and their mean."""
    rows, scores = [], task.taylor_scores()
    for normalization, rank_by, steps in itertools.product(NORMALIZATIONS, RANKINGS, all_steps):
        options = {"normalization": normalization, "rank_by": rank_by, "steps": steps}
        accuracies = [
            100 * task.pruned_accuracy({"target": {"max_macs_ratio": r}, **options}, scores)
            for r in MACS_RATIOS
        ]
        mean = sum(accuracies) / len(accuracies)
        cells = [f"{accuracy:.2f}" for accuracy in (*accuracies, mean)]
        rows.append([normalization, rank_by, str(steps), *cells])
    return rows


def main(arguments: Sequence[str] = ()) -> None:
    """Print a table for every task."""
    header = ["normalization", "rank_by", "steps", *(f"MACs {r}" for r in MACS_RATIOS), "mean"]
    for task in tasks_from_arguments("benchmarks.defaults", __doc__ or "", arguments):
        print(f"## Accuracy by normalization and ranking: {task.name} (%)\n")
        print(f"Original: {100 * task.accuracy(task.model):.2f}\n")
        print(markdown_table(header, grid(task)), end="\n\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
