"""Held-out accuracy without retraining against the share of MACs that is left, per criterion.

The 2,000 test digits are never in the bundle.

    python -m benchmarks.digits_curve
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.tables import markdown_table
from benchmarks.tasks import Task, digits

MACS_RATIOS = (0.9, 0.8, 0.7, 0.5)
DEFAULT_FILTERS = 8
"""Filters of the default update, as in MATLAB's `updatePrunables`."""
TARGETS: tuple[tuple[str, dict[str, float]], ...] = (
    (f"{DEFAULT_FILTERS} filters", {"filters": DEFAULT_FILTERS}),
    *((f"MACs {ratio}", {"max_macs_ratio": ratio}) for ratio in MACS_RATIOS),
)
METHODS: tuple[tuple[str, dict[str, object]], ...] = (
    ("taylor, one cut", {"criterion": "taylor"}),
    ("taylor, ten steps", {"criterion": "taylor", "steps": 10}),
    ("taylor_squared, one cut", {"criterion": "taylor_squared"}),
    ("taylor_squared, ten steps", {"criterion": "taylor_squared", "steps": 10}),
    ("magnitude_l2", {"criterion": "magnitude_l2"}),
)
RANDOM_SEEDS = range(5)


def random_cell(accuracies: Sequence[float]) -> str:
    """Mean and range of the random baseline, in percent."""
    percent = 100 * np.asarray(accuracies)
    return f"{percent.mean():.2f} ({percent.min():.2f}–{percent.max():.2f})"


def curve(task: Task) -> list[list[str]]:
    """A row per method: accuracy in percent at every target."""
    rows = [
        [name, *(f"{100 * task.pruned_accuracy({'target': t, **options}):.2f}" for _, t in TARGETS)]
        for name, options in METHODS
    ]
    baseline = ["random, mean (range)"]
    for _, target in TARGETS:
        accuracies = [
            task.pruned_accuracy({"target": target, "criterion": "random", "seed": seed})
            for seed in RANDOM_SEEDS
        ]
        baseline.append(random_cell(accuracies))
    return [*rows, baseline]


def main() -> None:
    """Print the table."""
    task = digits()
    print("## Accuracy of the digits network without retraining (%)\n")
    print(f"Original: {100 * task.accuracy(task.model):.2f} % of {len(task.test_labels)} digits\n")
    print(markdown_table(["method", *(name for name, _ in TARGETS)], curve(task)))


if __name__ == "__main__":
    main()
